"""Keys that change while the server runs."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.serving.access.key_file import KeysError, entry, parse_keys
from multiverse.serving.access.key_store import KeyStore


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(entry("alice", "mv-old"))
    return path


def replace(path: Path, text: str) -> None:
    """As `mv` does: a new file in the place of the old."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.rename(path)


def name(store: KeyStore, key: str) -> str | None:
    found = store.find(key.encode())
    return None if found is None else found.name


def test_keys_of_the_file_and_of_the_environment(path: Path, clock: Clock) -> None:
    store = KeyStore(path, parse_keys("mv-env", "KEYS"), clock)
    assert (name(store, "mv-old"), name(store, "mv-env"), name(store, "mv-none")) == ("alice", "env-1", None)


def test_changed_file_is_read_again(path: Path, clock: Clock) -> None:
    store = KeyStore(path, parse_keys("mv-env", "KEYS"), clock)
    replace(path, entry("alice", "mv-new"))
    clock.now += 1
    assert (name(store, "mv-old"), name(store, "mv-new"), name(store, "mv-env")) == (None, "alice", "env-1")


def test_file_is_looked_at_once_a_second(path: Path, clock: Clock) -> None:
    store = KeyStore(path, (), clock)
    replace(path, entry("alice", "mv-new"))
    clock.now += 0.9
    assert name(store, "mv-old") == "alice"
    clock.now += 0.1
    assert name(store, "mv-old") is None


def test_other_file_of_the_same_time_and_size_is_read(path: Path, clock: Clock) -> None:
    store = KeyStore(path, (), clock)
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    replace(path, entry("alice", "mv-new"))
    os.utime(path, ns=times)
    clock.now += 1
    assert name(store, "mv-new") == "alice"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_text("- mv-new"), "entry 1: it must be fields and values"),
        (lambda path: path.write_text(""), "must be a list of entries with name and sha256"),
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
    ],
    ids=["entry", "empty", "gone"],
)
def test_broken_file_leaves_the_keys_and_says_why_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], reason: str
) -> None:
    store = KeyStore(path, (), clock)
    spoil(path)
    for _ in range(3):
        clock.now += 1
        assert name(store, "mv-old") == "alice"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert reason in record.getMessage()
    assert "mv-new" not in caplog.text


def test_mended_file_is_read(path: Path, clock: Clock) -> None:
    store = KeyStore(path, (), clock)
    path.unlink()
    clock.now += 1
    assert name(store, "mv-old") == "alice"
    path.write_text(entry("bob", "mv-new"))
    clock.now += 1
    assert name(store, "mv-new") == "bob"


def test_all_keys_can_be_revoked(path: Path, clock: Clock) -> None:
    store = KeyStore(path, (), clock)
    replace(path, "[]")
    clock.now += 1
    assert name(store, "mv-old") is None


def test_broken_file_is_refused_at_the_start(path: Path, clock: Clock) -> None:
    path.write_text("- 1")
    with pytest.raises(KeysError):
        KeyStore(path, (), clock)


def test_same_key_in_file_and_environment_is_refused(path: Path, clock: Clock) -> None:
    with pytest.raises(KeysError, match="and the environment: entries 1 and 2 have the same sha256"):
        KeyStore(path, parse_keys("mv-old", "KEYS"), clock)
