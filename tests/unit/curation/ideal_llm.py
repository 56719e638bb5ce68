"""The answers that give a structured chain its structure back, and a language model that gives them, in either mode."""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from multiverse.curation.chain.plan import read_steps
from multiverse.curation.chain.sentences import Sentence, split
from multiverse.curation.chain.tree import leaves
from multiverse.curation.llm.calls import Call, Reply
from multiverse.structure import grammar
from multiverse.structure.flatten import flatten_text
from multiverse.structure.tags import LEAD_IN

TITLE_WORDS = 6
LONGEST_TITLE = 100
NO_RESULTS = str.maketrans("0123456789=", "abcdefghij:")
"""What takes figures and equations out of outlines, as long as they were: some of the chains give results away."""


@dataclass
class IdealBlock:
    """paths: the numbers of its steps, ``"2.1"``. texts: its answer about outlines and conclusion."""

    paths: list[str]
    texts: dict[str, Any]


@dataclass
class Ideal:
    """The answers that give a chain the structure it had, and its sentences: none reaches over a border of it."""

    sentences: list[Sentence] = field(default_factory=list)
    blocks: list[IdealBlock] = field(default_factory=list)

    def level(self, body: grammar.Body, above: str = "") -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
        """Steps, and what they need: texts and branches what stands right before them or their block."""
        steps: list[dict[str, Any]] = []
        needs: dict[str, list[int]] = {}

        def add(title: str, first: int, more: dict[str, Any], last: int, before: int) -> str | None:
            if len(self.sentences) < first:
                return None
            title = " ".join(title.split()[:TITLE_WORDS])[:LONGEST_TITLE]
            steps.append({"title": title, "first": first, "last": len(self.sentences)} | more)
            number = f"{above}{len(steps)}"
            needs[number] = list(range(last, before + 1))
            return number

        last = 1

        for index, node in enumerate(body):
            before, first = len(steps), len(self.sentences) + 1
            if isinstance(node, grammar.Text):
                text = source(body, index, above != "")
                self._read(text)
                add(text, first, {}, last, before)
                last = last if len(steps) == before else len(steps)
                continue
            assert isinstance(node, grammar.Block)
            outlines = [outline.text.strip().removeprefix(f"{outline.number}: ") for outline in node.outlines]
            block = IdealBlock([], {"outlines": outlines, "conclusion": node.conclusion.strip()})
            self.blocks.append(block)
            for path, outline in zip(node.paths, outlines, strict=True):
                first = len(self.sentences) + 1
                inner: list[dict[str, Any]] = []
                if len(path.body) == 1:
                    self._read(source(path.body, 0, True))
                else:
                    inner, inner_needs = self.level(path.body, f"{above}{len(steps) + 1}.")
                    needs |= inner_needs
                number = add(outline, first, {"sub_steps": inner} if inner else {}, last, before)
                assert number is not None
                block.paths.append(number)
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


class IdealLLM:
    """An `LLM` that is asked about the chain inside of ``structured`` and answers with the structure it had there.

    Where a border of that structure is not one of the chain's sentences, the nearest is taken, and a step with no
    sentence left is left out. Steps are rewritten to what they were. count: tokens of an answer; words if not given.
    """

    def __init__(self, structured: str, count: Callable[[str], int] = lambda text: len(text.split())) -> None:
        self.chain = flatten_text(structured)
        self._count = count
        self._sentences = split(self.chain)
        self._starts = [*(sentence.start for sentence in self._sentences), len(self.chain)]
        self._ideal = Ideal()
        steps, needs = self._ideal.level(grammar.parse(structured).body)
        self._numbers: dict[str, str] = {}
        self._ranges: dict[str, tuple[int, int]] = {}
        self._steps = self._moved(steps, "", "")
        self._needs = {
            self._numbers[number]: sorted(
                int(self._numbers[name].rpartition(".")[2])
                for other in needed
                if (name := f"{number[: number.rfind('.') + 1]}{other}") in self._numbers
            )
            for number, needed in needs.items()
            if number in self._numbers
        }

    async def __call__(self, call: Call) -> Reply:
        asked = "\n".join(message["content"] for message in call.messages if message["role"] == "user")
        text = self.answer(call.stage, asked)
        return Reply(text, 0, self._count(text), 1, cached=False, cost=0.0, model="ideal")

    def answer(self, stage: str, asked: str) -> str:
        """asked: the conversation's questions so far."""
        match stage:
            case "steps" | "summary":
                return json.dumps(steps_answer(self._steps), ensure_ascii=False)
            case "dependencies":
                return json.dumps({"needs": self._needs})
            case "groups":
                groups = [self._kept(block) for block in self._ideal.blocks]
                return json.dumps({"groups": [group for group in groups if len(group) > 1]})
            case "reformat":
                form = next(line for line in asked.splitlines() if "{" in line and "</Path>" in line)
                return "\n".join(self._skeleton(iter(form.split()), ""))
            case "refill":
                found = re.search(r"write the text of step ([\d.]*\d)", asked)
                assert found is not None
                return self._leaf(found.group(1))
            case "texts" | "map_reduce":
                texts = {str(at): self._texts(block) for at, block in enumerate(_branches(asked), start=1)}
                return json.dumps({"blocks": texts}, ensure_ascii=False)
        raise AssertionError(f"no such stage: {stage}")

    def _moved(self, steps: list[dict[str, Any]], above: str, new_above: str) -> list[dict[str, Any]]:
        """The steps with numbers of the chain's own sentences."""
        moved: list[dict[str, Any]] = []
        for number, step in enumerate(steps, start=1):
            begin = self._nearest(self._ideal.sentences[step["first"] - 1].start)
            end = self._nearest(self._ideal.sentences[step["last"] - 1].end)
            if begin == end:
                continue
            new = f"{new_above}{len(moved) + 1}"
            self._numbers[f"{above}{number}"] = new
            self._ranges[new] = (begin + 1, end)
            inner = self._moved(step.get("sub_steps", []), f"{above}{number}.", f"{new}.")
            own = {"title": step["title"], "first": begin + 1, "last": end}
            moved.append(own | ({"sub_steps": inner} if inner else {}))
        return moved

    def _nearest(self, at: int) -> int:
        """The index of the sentence whose start, or the chain's end, is nearest to a character."""
        index = bisect_left(self._starts, at)
        return index - 1 if index and at - self._starts[index - 1] < self._starts[index] - at else index

    def _kept(self, block: IdealBlock) -> list[str]:
        return [self._numbers[path] for path in block.paths if path in self._numbers]

    def _texts(self, branches: list[tuple[int, int]]) -> dict[str, Any]:
        """Those of the block that has these branches."""
        for block in self._ideal.blocks:
            if [self._ranges[number] for number in self._kept(block)] == branches:
                kept = [path in self._numbers for path in block.paths]
                outlines = [text for text, is_kept in zip(block.texts["outlines"], kept, strict=True) if is_kept]
                return {
                    "outlines": [text.translate(NO_RESULTS) for text in outlines],
                    "conclusion": block.texts["conclusion"],
                }
        raise AssertionError(f"there was no block with these branches: {branches}")

    def _leaf(self, number: str) -> str:
        steps = read_steps(json.dumps(steps_answer(self._steps)), len(self._sentences))
        leaf = next(leaf for leaf in leaves(steps) if leaf.label == number)
        return self.chain[self._starts[leaf.begin] : self._starts[leaf.end]].strip()

    def _skeleton(self, form: Iterator[str], parent: str) -> Iterator[str]:
        for mark in form:
            if mark == "</Path>":
                return
            if mark != "<Parallel>":
                yield mark
                continue
            paths: list[list[str]] = []
            while next(form) == "<Path>":
                paths.append([*self._skeleton(form, f"{parent}{len(paths) + 1}.")])
            numbers = [f"{parent}{place}" for place in range(1, len(paths) + 1)]
            yield f"{LEAD_IN}\n<Parallel>\n<Goal>"
            for number, path in zip(numbers, paths, strict=True):
                yield f"<Outline>\n{number}: Work out {path[0]}\n</Outline>"
            yield "</Goal>"
            for number, path in zip(numbers, paths, strict=True):
                text = "\n".join(path)
                yield f"<Path>\n{number}: {text}\n</Path>"
            yield "<Conclusion>\n</Conclusion>\n</Parallel>"


def steps_answer(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer about ``steps`` with ``first`` and ``sub_steps``: where they begin, and where their parts do."""
    answer: dict[str, Any] = {"steps": {str(step["first"]): step["title"] for step in steps}}
    parts = {str(part["first"]): part["title"] for step in steps for part in step.get("sub_steps", [])}
    return answer | ({"sub_steps": parts} if parts else {})


def _branches(asked: str) -> list[list[tuple[int, int]]]:
    """Per block its branches, as ranges of sentences."""
    blocks: list[list[tuple[int, int]]] = []
    for line in asked.splitlines():
        if re.fullmatch(r"Block \d+, \d+ branches:", line):
            blocks.append([])
        elif found := re.match(r"- branch \d+: sentences (\d+) to (\d+) \(", line):
            blocks[-1].append((int(found.group(1)), int(found.group(2))))
    return blocks
