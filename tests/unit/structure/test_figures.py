"""Figures of structured text, and of the twelve real chains."""

from pathlib import Path

import pytest

from multiverse.structure.figures import Figures, figures
from multiverse.structure.grammar import parse, render
from multiverse.structure.tags import split_words, word_kinds

# File, words, critical path, depth, widths; derived by recursion on the parsed document, not with the layout.
CHAINS = [
    ("1.xml", 14509, 11667, 2, "3 2 2 3 3 2 2 3 2 2 3"),
    ("3.xml", 10021, 9085, 1, "2 2 2 2 2 3 2"),
    ("5.xml", 3389, 3129, 2, "2 2 2"),
    ("8.xml", 13915, 12271, 2, "2 3 2 3"),
    ("10.xml", 11667, 10245, 2, "2 2 2 2 2 2 2"),
    ("12.xml", 7245, 6263, 2, "2 2 2 2 3 2 2 2 2 2"),
    ("14.xml", 6567, 5399, 2, "2 3 2 3 2 3 4 3"),
    ("16.xml", 7433, 6051, 2, "2 2 3 2 4 2 2"),
    ("18.xml", 8977, 8613, 1, "2 2 2 2 2 2"),
    ("20.xml", 6265, 4737, 2, "2 2 2 2 2 3 2"),
    ("22.xml", 11819, 10469, 1, "3 3 3 3 3 3 2 3"),
    ("24.xml", 11199, 8525, 2, "2 2 3 3 2 2 2 2 4 2 2 8"),
]


def of(text: str) -> Figures:
    return figures(word_kinds(split_words(text)))


def test_sequential_text() -> None:
    assert of("a b c") == Figures(blocks=0, widths=(), depth=0, tokens=5, critical_path=5, parallelism=1.0)


def test_nothing() -> None:
    assert of("") == Figures(blocks=0, widths=(), depth=0, tokens=0, critical_path=0, parallelism=1.0)


def test_a_block_in_a_branch_is_counted_with_its_width_and_depth() -> None:
    inner = "<Parallel><Goal><Outline></Outline></Goal><Path></Path><Conclusion></Conclusion></Parallel>"
    goal = "<Goal><Outline></Outline><Outline></Outline></Goal>"
    text = f"<Parallel>{goal}<Path>{inner}</Path><Path>a</Path><Conclusion></Conclusion></Parallel>"
    # 7 words up to </Goal>, 2 + 10 of the first branch, 3 of the second, 3 behind them.
    assert of(text) == Figures(blocks=2, widths=(2, 1), depth=2, tokens=25, critical_path=22, parallelism=25 / 22)


@pytest.mark.parametrize(("name", "tokens", "critical_path", "depth", "widths"), CHAINS)
def test_real_chains(shared: Path, name: str, tokens: int, critical_path: int, depth: int, widths: str) -> None:
    found = of((shared / "data" / "chains" / name).read_bytes().decode("utf-8"))
    assert (found.tokens, found.critical_path, found.depth) == (tokens, critical_path, depth)
    assert " ".join(map(str, found.widths)) == widths
    assert found.blocks == len(found.widths)
    assert found.parallelism == tokens / critical_path


@pytest.mark.parametrize("name", [chain[0] for chain in CHAINS])
def test_real_chains_are_parsed_and_rendered_to_the_same_bytes(shared: Path, name: str) -> None:
    data = (shared / "data" / "chains" / name).read_bytes()
    assert render(parse(data.decode("utf-8"))).encode("utf-8") == data


def test_all_real_chains_are_tested(shared: Path) -> None:
    assert {path.name for path in (shared / "data" / "chains").glob("*.xml")} == {chain[0] for chain in CHAINS}
