"""A tokenizer to write structured answers with."""

from pathlib import Path

import pytest

from multiverse.models.prepare import prepare
from multiverse.models.tokens import Tokens
from tests.unit.models.tiny_model import write_base


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    base: Path = write_base(tmp_path_factory.mktemp("base"))
    return Tokens.load(prepare(str(base), tmp_path_factory.mktemp("prepared") / "model", dtype="float32"))
