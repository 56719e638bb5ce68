"""A prepared tiny model's tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from multiverse.models.prepare import prepare
from multiverse.models.tokens import Tokens
from tests.unit.models.tiny_model import write_base


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    base: Path = write_base(tmp_path_factory.mktemp("base"))
    return Tokens.load(prepare(str(base), tmp_path_factory.mktemp("prepared") / "model", dtype="float32"))


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Several threads wait for each other longer than a tiny model takes to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
