"""Suites from a real S3 service: seaweedfs on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiverse.evaluation.suites.load import load_suite
from multiverse.evaluation.suites.rows import SuiteError, fetch, read_rows
from multiverse.storage import StorageError, upload_directory
from tests.integration.object_store import environment, object_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_store(tmp_path_factory.mktemp("weed"), "suites") as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)


def test_a_suite_in_a_bucket_is_the_suite_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own.json").write_text(json.dumps([{"question": "1+1?", "answer": 2.0}]))
    (folder / "more.csv").write_text("question,answer\n2+2?,4\n")
    upload_directory(folder, "s3://suites/own")
    remote = load_suite("aime25", "s3://suites/own/own.json")
    local = load_suite("aime25", str(folder / "own.json"))
    assert (remote.items, remote.sha256) == (local.items, local.sha256)
    assert remote.source == "s3://suites/own/own.json"
    rows = [record["question"] for _, record in read_rows(fetch("s3://suites/own", tmp_path))]
    assert rows == ["2+2?", "1+1?"]


def test_objects_there_are_not() -> None:
    with pytest.raises(StorageError, match="none"):
        load_suite("aime25", "s3://suites/none.json")


def test_a_folder_is_no_suite() -> None:
    with pytest.raises(SuiteError, match="s3://suites/own is no file"):
        load_suite("aime25", "s3://suites/own")
