"""Directories on S3 and services that speak its protocol (boto3).

Credentials and region are found as boto3 finds them; the endpoint comes from ``AWS_ENDPOINT_URL_S3`` or
``AWS_ENDPOINT_URL``.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MD5 = re.compile(r"[0-9a-f]{32}")
_PART = 64 * 2**20
"""Bytes per part; larger objects are sent in parts, and their ETag is then not the MD5 of the content."""


class StorageError(RuntimeError):
    """S3 refused, could not be reached, or gave something else than was stored."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object under a prefix. name: the key without the prefix. size in bytes. etag without quotes."""

    key: str
    name: str
    size: int
    etag: str


def list_prefix(uri: str) -> tuple[Object, ...]:
    """All objects under ``s3://bucket/prefix/``, by key. Raises StorageError if there are none."""
    objects = _list(uri)
    if not objects:
        raise StorageError(f"there is nothing under {uri}")
    return objects


def download_prefix(uri: str, target: Path) -> Path:
    """Download ``s3://bucket/prefix/`` as the new directory ``target``, which appears whole or not at all.

    Sizes are checked, and the MD5 where the ETag is one. Raises StorageError, FileExistsError.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    bucket, _ = _split(uri)
    client = _client()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for entry in list_prefix(uri):
            path = partial / entry.name
            if not path.resolve().is_relative_to(partial.resolve()):
                raise StorageError(f"the key {entry.key} leads out of the directory")
            path.parent.mkdir(parents=True, exist_ok=True)
            with _errors(uri):
                client.download_file(bucket, entry.key, str(path), Config=_transfer())
            _check(client, bucket, path, entry)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def download_object(uri: str, target: Path) -> Path:
    """Download the one object ``s3://bucket/key`` as the file ``target``, checked as `download_prefix` does.

    Raises StorageError.
    """
    bucket, prefix = _split(uri)
    key = prefix.rstrip("/")
    client = _client()
    with _errors(uri):
        head = client.head_object(Bucket=bucket, Key=key)
        client.download_file(bucket, key, str(target), Config=_transfer())
    _check(client, bucket, target, Object(key, target.name, head["ContentLength"], head["ETag"].strip('"')))
    return target


def upload_directory(directory: Path, uri: str) -> None:
    """Upload all files under ``directory`` to ``s3://bucket/prefix/`` and check what arrived.

    S3 has no rename, so the order says when a checkpoint is whole: JSON files of the directory itself go last,
    ``multiverse.json`` after all others. Objects of the same names are replaced; raises StorageError, before anything
    is sent, if there are others under the prefix, for then the result would be a mixture.
    """
    bucket, prefix = _split(uri)
    client = _client()
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    if not files:
        raise StorageError(f"there are no files in {directory}")
    others = sorted({entry.name for entry in _list(uri)} - files.keys())
    if others:
        raise StorageError(f"{uri} holds other objects, {others[0]} for one; choose another prefix")
    for name in sorted(files, key=lambda name: (_rank(name), name)):
        with _errors(uri):
            client.upload_file(str(files[name]), bucket, prefix + name, Config=_transfer())
    for entry in _list(uri):
        _check(client, bucket, files[entry.name], entry)


def open_folder(location: str) -> "Folder | Prefix":
    """location: a directory, which need not exist, or ``s3://bucket/prefix``."""
    return Prefix(location) if location.startswith("s3://") else Folder(Path(location))


class Folder:
    """Single files under a directory, by their names below it: `Prefix` on this machine or a shared file system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().absolute()
        self.uri = str(self.directory)

    def names(self) -> list[str]:
        """Of all that is there, in order; unfinished files are left out."""
        files = (path for path in self.directory.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.directory).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        return (self.directory / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """The file appears whole or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(content)
        partial.replace(path)

    def delete(self, names: Sequence[str]) -> None:
        """Names that are not there are passed over."""
        for name in names:
            (self.directory / name).unlink(missing_ok=True)


class Prefix:
    """Single objects under ``s3://bucket/prefix/``, by their names below it. One client, usable from all threads.

    Every method raises StorageError.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._bucket, self._prefix = _split(uri)
        self._client = _client()

    def list(self) -> tuple[Object, ...]:
        return _list(self.uri)

    def names(self) -> Sequence[str]:
        """Of all that is there, in order."""
        return [entry.name for entry in _list(self.uri)]

    def read(self, name: str) -> bytes:
        with _errors(self.uri):
            content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """The object appears whole: S3 shows nothing of an upload before its end."""
        with _errors(self.uri):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def upload(self, path: Path, name: str) -> None:
        with _errors(self.uri):
            self._client.upload_file(str(path), self._bucket, self._prefix + name, Config=_transfer())

    def download(self, name: str, path: Path) -> None:
        with _errors(self.uri):
            self._client.download_file(self._bucket, self._prefix + name, str(path), Config=_transfer())

    def delete(self, names: Sequence[str]) -> None:
        """Names that are not there are passed over."""
        for start in range(0, len(names), 1000):  # the most that S3 takes at once
            keys = [{"Key": self._prefix + name} for name in names[start : start + 1000]]
            with _errors(self.uri):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
            for error in answer.get("Errors", ()):
                raise StorageError(f"{self.uri}: {error.get('Key')} was not deleted: {error.get('Message')}")


def _rank(name: str) -> int:
    return 2 if name == "multiverse.json" else int(name.endswith(".json") and "/" not in name)


def _list(uri: str) -> tuple[Object, ...]:
    bucket, prefix = _split(uri)
    with _errors(uri):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = [entry for page in pages for entry in page.get("Contents", ())]
    return tuple(
        Object(entry["Key"], entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"].strip('"'))
        for entry in sorted(found, key=lambda entry: entry["Key"])
        # Consoles make empty objects whose keys end with a slash, for folders.
        if not entry["Key"].endswith("/")
    )


def _split(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a slash at its end (empty for the whole bucket)."""
    match = re.fullmatch(r"s3://([^/]{3,63})(?:/(.*))?", uri)
    if match is None:
        raise StorageError(f"{uri} is not of the form s3://bucket/prefix")
    prefix = (match[2] or "").strip("/")
    return match[1], f"{prefix}/" if prefix else ""


def _check(client: Any, bucket: str, path: Path, entry: Object) -> None:
    size = path.stat().st_size
    if size != entry.size:
        raise StorageError(f"{entry.key} has {entry.size} bytes, {path} has {size}")
    # An ETag of another form is that of an object sent in parts.
    if _MD5.fullmatch(entry.etag) and entry.size <= _PART:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != entry.etag and not _keyed(client, bucket, entry):
            raise StorageError(f"{entry.key} has MD5 {entry.etag}, {path} has {digest}")


def _keyed(client: Any, bucket: str, entry: Object) -> bool:
    """Whether the object is encrypted with a key of KMS or the customer's: its ETag looks like an MD5 and is none."""
    with _errors(f"s3://{bucket}/{entry.key}"):
        head = client.head_object(Bucket=bucket, Key=entry.key)
    return head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head


def _client() -> Any:
    import boto3
    from botocore.config import Config

    custom = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # Services other than AWS seldom have a host name per bucket.
    style = {"addressing_style": "path"} if custom else {}
    retries = {"max_attempts": 5, "mode": "standard"}
    # A session of its own: boto3's default one keeps the first credentials it saw, and is not safe between threads.
    return boto3.Session().client("s3", config=Config(s3=style, retries=retries, connect_timeout=10))


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=4)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise StorageError(f"{uri}: {error}") from error
