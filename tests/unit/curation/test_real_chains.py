"""The real chains and solutions, structured and restored."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from multiverse.curation.chain.assemble import assemble
from multiverse.curation.chain.groups import Body, Span, blocks, first_sentence, group
from multiverse.curation.chain.plan import read_dependencies, read_steps, read_texts
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.curation.stages import anchored, rewrite
from multiverse.curation.stages.outcome import Spent
from multiverse.curation.stages.settings import Settings
from multiverse.structure import grammar
from multiverse.structure.flatten import flatten, flatten_text
from tests.unit.curation.ideal_llm import Ideal, IdealLLM, steps_answer
from tests.unit.curation.plans import random_replies, texts_for

CHAINS = [1, 3, 5, 8, 10, 12, 14, 16, 18, 20, 22, 24]
SOLUTIONS = 500


@pytest.fixture(scope="module")
def solutions(shared: Path) -> list[str]:
    """The first solutions of gsm8k's training set."""
    path = shared / "data" / "eval" / "gsm8k_train.jsonl"
    if not path.is_file():
        pytest.skip(f"reference data not found: {path}")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["answer"] for _, line in zip(range(SOLUTIONS), lines, strict=False)]


def structured(shared: Path, number: int) -> grammar.Document:
    return grammar.parse((shared / "data" / "chains" / f"{number}.xml").read_bytes().decode("utf-8"))


def thought(shared: Path, number: int) -> str:
    """What stands in a structured chain's <Think>."""
    think = next(node for node in structured(shared, number).body if isinstance(node, grammar.Think))
    return grammar.render(grammar.Document(think.body)).removeprefix("\n").removesuffix("\n")


def first_sentences(body: Body, sentences: Sequence[Sentence]) -> list[list[str]]:
    return [[sentences[first_sentence(one.body)].text for one in block.branches] for block in blocks(body)]


@pytest.mark.parametrize("number", CHAINS)
def test_the_ideal_plan_gives_a_chain_its_structure_back(shared: Path, number: int) -> None:
    inside = thought(shared, number)
    chain = flatten_text(inside)
    ideal = Ideal()
    steps, needs = ideal.level(grammar.parse(inside).body)
    assert "".join(sentence.text for sentence in ideal.sentences) == chain
    found = read_steps(json.dumps(steps_answer(steps)), len(ideal.sentences))
    body = group(ideal.sentences, found, read_dependencies(json.dumps({"needs": needs}), found))
    texts = read_texts(
        json.dumps({"blocks": {str(at): block.texts for at, block in enumerate(ideal.blocks, start=1)}}),
        first_sentences(body, ideal.sentences),
    )
    assert assemble(chain, ideal.sentences, body, texts) == inside


@pytest.mark.parametrize("mode", [anchored, rewrite], ids=lambda mode: mode.VERSION)
@pytest.mark.parametrize("number", CHAINS)
async def test_ideal_answers_pass_and_leave_the_chain_as_it_was(shared: Path, number: int, mode: ModuleType) -> None:
    llm, spent = IdealLLM(thought(shared, number)), Spent()
    row = await mode.curate("", llm.chain, llm, Settings(), spent)
    assert (row.sequential, row.diff, row.distance) == (llm.chain, "", 0.0)
    assert row.figures.structure.blocks >= 2
    assert all(spent.calls[stage] == 1 for stage in mode.STAGES if stage != "refill")


@pytest.mark.parametrize("number", CHAINS)
def test_random_plans_restore_a_chain(shared: Path, number: int) -> None:
    chain = flatten(structured(shared, number))
    draw = random.Random(number)
    for _ in range(3):
        assert restored(chain, draw) == chain


def test_all_real_chains_are_tested(shared: Path) -> None:
    assert {path.name for path in (shared / "data" / "chains").glob("*.xml")} == {f"{number}.xml" for number in CHAINS}


def restored(chain: str, draw: random.Random) -> str:
    sentences = split(chain)
    steps_reply, needs_reply = random_replies(draw, len(sentences))
    steps = read_steps(steps_reply, len(sentences))
    body = group(sentences, steps, read_dependencies(needs_reply, steps))
    return flatten_text(assemble(chain, sentences, body, texts_for(list(blocks(body)))))


def test_solutions_are_split_at_their_lines_at_least(solutions: list[str]) -> None:
    for solution in solutions:
        found = split(solution)
        assert "".join(sentence.text for sentence in found) == solution
        assert not any("\n" in sentence.text.strip() for sentence in found)


def test_sequential_solutions_stay_as_they_are(solutions: list[str]) -> None:
    for solution in solutions:
        sentences = split(solution)
        assert assemble(solution, sentences, (Span(0, len(sentences)),), []) == solution


def test_random_plans_restore_solutions(solutions: list[str]) -> None:
    draw = random.Random(0)
    assert all(restored(solution, draw) == solution for solution in solutions)
