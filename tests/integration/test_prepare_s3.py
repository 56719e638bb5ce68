"""Storage, ``prepare`` and training rows against a real S3 service: seaweedfs on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from multiverse import storage
from multiverse.models.manifest import Manifest
from multiverse.models.prepare import prepare
from multiverse.storage import StorageError, download_prefix, list_prefix, upload_directory
from multiverse.training.rows import Row, read_rows
from tests.integration.object_store import environment, free_ports, object_store
from tests.unit.models.tiny_model import write_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with the bucket ``models``; it is stopped whatever happens."""
    with object_store(tmp_path_factory.mktemp("weed"), "models") as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)


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
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_ports(1)[0]}")
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
