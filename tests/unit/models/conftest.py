"""The tiny model, raw and prepared."""

from pathlib import Path

import pytest

from multiverse.models.prepare import prepare
from multiverse.models.tokens import Tokens
from tests.unit.models.tiny_model import write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def prepared(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(str(base), tmp_path_factory.mktemp("prepared") / "model", dtype="float32")


@pytest.fixture(scope="session")
def tokens(prepared: Path) -> Tokens:
    return Tokens.load(prepared)
