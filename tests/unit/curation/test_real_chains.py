"""The real chains and solutions, structured and restored."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.chain.assemble import assemble
from multiverse.curation.chain.groups import Body, Span, blocks, first_sentence, group
from multiverse.curation.chain.plan import read_dependencies, read_steps, read_texts
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.structure import grammar
from multiverse.structure.flatten import flatten, flatten_text
from multiverse.structure.tags import LEAD_IN
from tests.unit.curation.plans import random_replies, texts_for

CHAINS = [1, 3, 5, 8, 10, 12, 14, 16, 18, 20, 22, 24]
SOLUTIONS = 500
TITLE = "Try the next case"


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


@dataclass
class Ideal:
    """The answers that give a chain the structure it had, and its sentences: none reaches over a border of it."""

    sentences: list[Sentence]
    texts: list[dict[str, Any]]

    def level(self, body: grammar.Body, above: str = "") -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
        """Steps, and what they need: texts and branches what stands right before them or their block."""
        steps: list[dict[str, Any]] = []
        needs: dict[str, list[int]] = {}

        def add(first: int, more: dict[str, Any], last: int, before: int) -> None:
            if len(self.sentences) >= first:
                steps.append({"title": TITLE, "first": first, "last": len(self.sentences)} | more)
                needs[f"{above}{len(steps)}"] = list(range(last, before + 1))

        last = 1

        for index, node in enumerate(body):
            before, first = len(steps), len(self.sentences) + 1
            if isinstance(node, grammar.Text):
                self._read(source(body, index, above != ""))
                add(first, {}, last, before)
                last = last if len(steps) == before else len(steps)
                continue
            assert isinstance(node, grammar.Block)
            outlines = [outline.text.strip().removeprefix(f"{outline.number}: ") for outline in node.outlines]
            self.texts.append({"outlines": outlines, "conclusion": node.conclusion.strip()})
            for path in node.paths:
                first = len(self.sentences) + 1
                inner: list[dict[str, Any]] = []
                if len(path.body) == 1:
                    self._read(source(path.body, 0, True))
                else:
                    inner, inner_needs = self.level(path.body, f"{above}{len(steps) + 1}.")
                    needs |= inner_needs
                add(first, {"sub_steps": inner} if inner else {}, last, before)
            last = before + 1
        return steps, needs

    def _read(self, text: str) -> None:
        start = self.sentences[-1].end if self.sentences else 0
        self.sentences += [Sentence(start + one.start, start + one.end, one.text) for one in split(text)]


def source(body: grammar.Body, index: int, in_path: bool) -> str:
    """What a text of a body leaves in the chain."""
    node = body[index]
    assert isinstance(node, grammar.Text)
    after_block = index > 0 and isinstance(body[index - 1], grammar.Block)
    text = node.text.removeprefix("\n" if after_block else " " if in_path and index == 0 else "")
    if index + 1 == len(body):
        return text.removesuffix("\n") if in_path else text
    return text.removesuffix(f"{LEAD_IN}\n").removesuffix("\n")


def first_sentences(body: Body, sentences: Sequence[Sentence]) -> list[list[str]]:
    return [[sentences[first_sentence(one.body)].text for one in block.branches] for block in blocks(body)]


@pytest.mark.parametrize("number", CHAINS)
def test_the_ideal_plan_gives_a_chain_its_structure_back(shared: Path, number: int) -> None:
    document = structured(shared, number)
    think = next(node for node in document.body if isinstance(node, grammar.Think))
    inside = grammar.render(grammar.Document(think.body)).removeprefix("\n").removesuffix("\n")
    chain = flatten_text(inside)
    ideal = Ideal([], [])
    steps, needs = ideal.level(grammar.parse(inside).body)
    assert "".join(sentence.text for sentence in ideal.sentences) == chain
    found = read_steps(json.dumps({"steps": steps}), len(ideal.sentences))
    body = group(ideal.sentences, found, read_dependencies(json.dumps({"needs": needs}), found))
    texts = read_texts(json.dumps({"blocks": ideal.texts}), first_sentences(body, ideal.sentences))
    assert assemble(chain, ideal.sentences, body, texts) == inside


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
