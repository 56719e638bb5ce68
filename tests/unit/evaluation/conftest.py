"""A tiny model, to write structured answers with."""

from pathlib import Path

import pytest

from multiverse.models.prepare import prepare
from multiverse.models.tokens import Tokens
from tests.unit.models.tiny_model import write_base


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared checkpoint's directory."""
    base = write_base(tmp_path_factory.mktemp("base"))
    return prepare(str(base), tmp_path_factory.mktemp("prepared") / "model", dtype="float32")


@pytest.fixture(scope="session")
def tokens(model: Path) -> Tokens:
    return Tokens.load(model)
