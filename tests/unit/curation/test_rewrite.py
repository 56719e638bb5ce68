"""Rewrite mode with a language model whose answers are dictated."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from multiverse.curation.checks.findings import check_content, check_numbering, check_outlines
from multiverse.curation.llm.calls import LLM, Call, EndpointError, LLMError, Reply
from multiverse.curation.stages.conversation import Asking
from multiverse.curation.stages.outcome import Curated, RowRejectedError, Spent
from multiverse.curation.stages.rewrite import STAGES, curate
from multiverse.curation.stages.settings import Settings
from multiverse.structure.flatten import flatten_text
from multiverse.structure.grammar import parse
from tests.unit.curation.ideal_llm import IdealLLM

QUESTION = "Which area do the square of side 3 and the disk have together?"
SENTENCES = {
    "0": "We need both of the areas. ",
    "1": "The square has side 3, so that its area is 9.\n",
    "2.0": "Similarly, the disk of the picture is split into an upper and a lower half. ",
    "2.1": "The upper half of it is drawn on the grid and covers an area of 4. ",
    "2.2": "Likewise the lower half of it is drawn on the grid and covers an area of 4.\n\n",
    "3": "Together that is 17.\n",
}
CHAIN = "".join(SENTENCES.values())
STEPS = {
    "steps": {"2": "Area of the square", "3": "Area of the disk", "6": "Add them up"},
    "sub_steps": {"4": "Upper half", "5": "Lower half"},
}
GROUPS = {"groups": [["1", "2"], ["2.1", "2.2"]]}
SKELETON = """{0}
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: the square
</Outline>
<Outline>
2: the disk
</Outline>
</Goal>
<Path>
1: {1}
</Path>
<Path>
2: {2.0}
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
2.1: upper half
</Outline>
<Outline>
2.2: lower half
</Outline>
</Goal>
<Path>
2.1: {2.1}
</Path>
<Path>
2.2: {2.2}
</Path>
<Conclusion>
</Conclusion>
</Parallel>
</Path>
<Conclusion>
</Conclusion>
</Parallel>
{3}"""
TEXTS = {
    "blocks": {
        "1": {
            "outlines": ["Work out the square.", "Work out the disk."],
            "conclusion": "The square has 9, the disk 8.",
        },
        "2": {"outlines": ["Measure the upper half.", "Measure the lower half."], "conclusion": "Each half has 4."},
    }
}
DISK = "The disk of the picture is split into an upper and a lower half."
LOWER = "The lower half of it is drawn on the grid and covers an area of 4."
GOOD = {
    "summary": json.dumps(STEPS),
    "groups": json.dumps(GROUPS),
    "reformat": SKELETON,
    "map_reduce": json.dumps(TEXTS),
    "refill 2.0": DISK,
    "refill 2.2": LOWER,
} | {f"refill {number}": SENTENCES[number].strip() for number in ("0", "1", "2.1", "3")}
STRUCTURED = """We need both of the areas. 
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
1: Work out the square.
</Outline>
<Outline>
2: Work out the disk.
</Outline>
</Goal>
<Path>
1: The square has side 3, so that its area is 9.

</Path>
<Path>
2: The disk of the picture is split into an upper and a lower half. 
Let's think in parallel.
<Parallel>
<Goal>
<Outline>
2.1: Measure the upper half.
</Outline>
<Outline>
2.2: Measure the lower half.
</Outline>
</Goal>
<Path>
2.1: The upper half of it is drawn on the grid and covers an area of 4. 
</Path>
<Path>
2.2: The lower half of it is drawn on the grid and covers an area of 4.


</Path>
<Conclusion>
Each half has 4.
</Conclusion>
</Parallel>
</Path>
<Conclusion>
The square has 9, the disk 8.
</Conclusion>
</Parallel>
Together that is 17.
"""

TRIES = 2


def key(call: Call) -> str:
    """The stage, for refill with the step's number."""
    if call.stage != "refill":
        return call.stage
    questions = [message["content"] for message in call.messages if message["role"] == "user"]
    found = [match.group(1) for text in questions if (match := re.search(r"the text of step ([\d.]*\d) ", text))]
    return f"refill {found[0]}"


@dataclass
class Scripted:
    """Answers ``bad`` by `key` in order, then those of ``good``. calls: all that were made."""

    good: dict[str, str] = field(default_factory=lambda: dict(GOOD))
    bad: dict[str, list[str]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        await asyncio.sleep(0)
        name = key(call)
        text = self.bad[name].pop(0) if self.bad.get(name) else self.good[name]
        return Reply(text, 10, 5, 1, cached=False, cost=0.5, model="scripted")


class Gaps:
    """A scorer that gives these gaps in turn."""

    def __init__(self, *gaps: float) -> None:
        self.gaps = list(gaps)
        self.asked: list[tuple[str, list[str]]] = []

    async def gap(self, question: str, before: str, branches: Sequence[str]) -> float:
        self.asked.append((before, list(branches)))
        return self.gaps.pop(0)


async def curated(llm: LLM, chain: str = CHAIN, min_saving: int = 1, **more: Any) -> tuple[Curated, Spent]:
    spent = Spent()
    settings = Settings(Asking(tries=TRIES), min_saving=min_saving)
    return await curate(QUESTION, chain, llm, settings, spent, **more), spent


async def test_good_answers_give_the_structured_chain() -> None:
    llm = Scripted()
    row, spent = await curated(llm)
    assert row.chain == STRUCTURED
    assert row.sequential == CHAIN.replace("Similarly, the", "The").replace("Likewise the", "The")
    assert row.diff == (
        "--- chain\n+++ rewritten\n@@ -2 +2 @@\n"
        f"-{SENTENCES['2.0']}{SENTENCES['2.1']}{SENTENCES['2.2'].strip()}\n"
        f"+{DISK} {SENTENCES['2.1']}{LOWER}"
    )
    assert row.distance == pytest.approx((12 + 10) / len(CHAIN))
    assert (row.gaps, row.merged, row.figures.structure.blocks) == ({}, 0, 2)
    assert spent.calls == Counter(summary=1, groups=1, reformat=1, refill=6, map_reduce=1)
    assert (spent.completion_tokens, spent.cost) == (50, 5.0)
    assert tuple(dict.fromkeys(call.stage for call in llm.calls)) == STAGES


async def test_a_step_is_told_what_its_reader_does_not_see() -> None:
    llm = Scripted()
    await curated(llm)
    asked = {key(call): call.messages[-1]["content"] for call in llm.calls if call.stage == "refill"}
    hidden = {
        name: re.search(r"the text of these steps: (.*?)\. ", text).group(1)  # type: ignore[union-attr]
        for name, text in asked.items()
    }
    assert hidden == {
        "refill 0": "none",
        "refill 1": "2.0, 2.1, 2.2",
        "refill 2.0": "1",
        "refill 2.1": "1, 2.2",
        "refill 2.2": "1, 2.1",
        "refill 3": "none",
    }


async def test_all_steps_are_asked_for_at_once() -> None:
    barrier, answers = asyncio.Barrier(6), Scripted()

    async def llm(call: Call) -> Reply:
        if call.stage == "refill":
            await barrier.wait()
        return await answers(call)

    row, _ = await asyncio.wait_for(curated(llm), timeout=10)
    assert row.chain == STRUCTURED


FAR = "The upper half is worth 4."
TAGGED = SENTENCES["2.1"].replace("upper", "<Path>")
FIRST = {"blocks": {"1": TEXTS["blocks"]["1"]}}
LEAK = json.dumps(TEXTS).replace("Measure the upper half.", "Find the upper 4.")
BAD = [
    ("summary", "No idea.", "the reply is no JSON"),
    ("summary", GOOD["summary"][:80], "the reply is no JSON"),
    ("summary", GOOD["summary"].replace('"6"', '"7"'), 'steps has "7": must be a sentence\'s number, 1 to 6'),
    ("summary", GOOD["summary"].replace('"4"', '"1"'), "sub_steps has 1: must lie in a step, the first begins with 2"),
    ("groups", "[[1, 2]]", "the reply must be a JSON object, not [[1, 2]]"),
    ("groups", '{"groups": [["1", "2"', "the reply is no JSON"),
    ("groups", '{"groups": [["1", "4"]]}', 'groups[0] has "4": must be one of 1, 2, 2.1, 2.2, 3'),
    ("groups", '{"groups": [["1", "3"]]}', 'groups[0] has "3" behind "1": must be steps of one level in a row'),
    ("reformat", "First the square.", 'only placeholders may stand outside of tags, not "First the square."'),
    ("reformat", SKELETON[:150], "rule "),
    ("reformat", SKELETON.replace("{2.1}", ""), "behind <Path> must stand {2.1}, not </Path>"),
    ("reformat", SKELETON.replace("{2.0}", "{2.0} {2.0}"), "behind {2.0} must stand <Parallel>, not {2.0}"),
    ("reformat", "{0} {1} {2.0} {2.1} {2.2} {3}", "behind {0} must stand <Parallel>, not {1}"),
    ("refill 2.1", FAR, "step 2.1 differs from its source by 0.62: must be at most 0.2"),
    ("refill 2.1", TAGGED, "step 2.1 holds the tag <Path> at character 4"),
    ("refill 2.1", f"2.1: {SENTENCES['2.1']}", "step 2.1 must not begin with a number"),
    ("refill 2.1", "\ud800" + SENTENCES["2.1"], "step 2.1 is no UTF-8: a lone surrogate at character 0"),
    ("map_reduce", "Nothing.", "the reply is no JSON"),
    ("map_reduce", GOOD["map_reduce"][:-20], "the reply is no JSON"),
    ("map_reduce", json.dumps(FIRST), "blocks has 1: must have 1, 2; see 2"),
    ("map_reduce", LEAK, "outline 2.1 gives away '4', a result of its branch"),
    ("map_reduce", GOOD["map_reduce"].replace("Each", "</Path>"), "must not hold the tag </Path>"),
]


@pytest.mark.parametrize(("name", "answer", "message"), BAD)
async def test_a_bad_answer_is_asked_again_with_the_checkers_message(name: str, answer: str, message: str) -> None:
    llm = Scripted(bad={name: [answer]})
    row, spent = await curated(llm)
    assert row.chain == STRUCTURED
    assert spent.calls[name.partition(" ")[0]] == (7 if name.startswith("refill") else 2)
    again = [call for call in llm.calls if key(call) == name][1]
    assert again.messages[-2] == {"role": "assistant", "content": answer}
    assert message in again.messages[-1]["content"]


@pytest.mark.parametrize(("name", "answer", "message"), BAD)
async def test_bad_answers_only_reject_the_row(name: str, answer: str, message: str) -> None:
    llm = Scripted(bad={name: [answer] * TRIES})
    with pytest.raises(RowRejectedError) as rejected:
        await curated(llm)
    assert rejected.value.stage == name.partition(" ")[0]
    assert rejected.value.reason.startswith(f"no answer could be used in {TRIES} tries; the last: ")
    assert message in rejected.value.reason
    assert not rejected.value.retryable
    assert sum(key(call) == name for call in llm.calls) == TRIES


async def test_the_first_step_in_order_says_why_a_row_is_rejected() -> None:
    llm = Scripted(bad={"refill 3": ["x"] * TRIES, "refill 2.1": ["x"] * TRIES})
    with pytest.raises(RowRejectedError, match=r"^refill: no answer .* step 2\.1 differs"):
        await curated(llm)


def one_block(texts: Sequence[str], chain: Sequence[str]) -> tuple[dict[str, str], str]:
    """Answers that make a block of the lines of ``chain``, each rewritten to its text, and the chain."""
    count = len(chain)
    numbers = [str(number) for number in range(1, count + 1)]
    names = [f"part {chr(97 + place % 26)}{'x' * (place // 26)}" for place in range(count)]
    goal = "".join(f"<Outline>{number}: {name}</Outline>" for number, name in zip(numbers, names, strict=True))
    paths = "".join(f"<Path>{number}: {{{number}}}</Path>" for number in numbers)
    answers = {
        "summary": json.dumps({"steps": dict(zip(numbers, names, strict=True))}),
        "groups": json.dumps({"groups": [numbers]}),
        "reformat": f"<Parallel><Goal>{goal}</Goal>{paths}<Conclusion></Conclusion></Parallel>",
        "map_reduce": json.dumps({"blocks": {"1": {"outlines": names, "conclusion": "Done."}}}),
    }
    return answers | {f"refill {number}": text for number, text in zip(numbers, texts, strict=True)}, "".join(
        f"{line}\n" for line in chain
    )


def drawn(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("abcdefghijklmnop", k=length))


def shrunk(text: str) -> str:
    """A fifth of the letters less: at distance 0.2."""
    return "".join(letter for place, letter in enumerate(text) if place % 5)


def grown(text: str) -> str:
    """A quarter more: at distance 0.2, too, for that is by the longer text."""
    return "".join(f"{letter}{'z' * (place % 4 == 0)}" for place, letter in enumerate(text))


async def test_each_step_close_and_the_whole_too_far() -> None:
    draw = random.Random(0)
    long, short = drawn(draw, 125), drawn(draw, 100)
    answers, chain = one_block([long, grown(short)], [long, short])
    llm = Scripted(answers, bad={"refill 1": [shrunk(long)]})
    row, spent = await curated(llm, chain)
    assert row.sequential == f"{long}\n{grown(short)}\n"
    assert spent.calls["refill"] == 3
    asked = [call for call in llm.calls if key(call) == "refill 1"][-1]
    assert asked.messages[-2] == {"role": "assistant", "content": shrunk(long)}
    assert "step 1 differs from its source by 0.20: must be at most 0.1" in asked.messages[-1]["content"]


async def test_as_many_steps_are_asked_again_as_it_takes() -> None:
    draw = random.Random(1)
    lines = [drawn(draw, 100 if place % 2 else 125) for place in range(40)]
    changed = [grown(line) if place % 2 else shrunk(line) for place, line in enumerate(lines)]
    answers, chain = one_block(lines, lines)
    llm = Scripted(answers, bad={f"refill {place}": [text] for place, text in enumerate(changed, start=1)})
    row, spent = await curated(llm, chain)
    assert 0.15 < row.distance <= 0.2
    assert 40 < spent.calls["refill"] < 60
    again = [key(call) for call in llm.calls if call.stage == "refill"][40:]
    assert len(set(again)) == len(again)


async def test_steps_that_do_not_give_reject_the_row() -> None:
    draw = random.Random(0)
    long, short = drawn(draw, 125), drawn(draw, 100)
    answers, chain = one_block([shrunk(long), grown(short)], [long, short])
    with pytest.raises(RowRejectedError, match=r"^refill: .* step 1 differs .* must be at most 0\.1$"):
        await curated(Scripted(answers), chain)


async def test_answers_in_code_blocks_are_taken_out_of_them() -> None:
    llm = Scripted({name: f"```\n{text}\n```" for name, text in GOOD.items()})
    row, _ = await curated(llm)
    assert row.chain == STRUCTURED


async def test_without_groups_the_chain_stays_as_it_is() -> None:
    row, spent = await curated(Scripted(GOOD | {"groups": '{"groups": []}'}))
    assert (row.chain, row.sequential, row.diff, row.distance) == (CHAIN, CHAIN, "", 0.0)
    assert spent.calls == Counter(summary=1, groups=1)


async def test_blocks_that_save_too_little_are_not_made() -> None:
    row, spent = await curated(Scripted(), min_saving=1000)
    assert row.chain == CHAIN
    assert spent.calls == Counter(summary=1, groups=1)


async def test_branches_that_lean_on_each_other_are_made_sequential_before_the_skeleton() -> None:
    inner = re.compile(r"\nLet's think in parallel\.\n<Parallel>\n<Goal>\n<Outline>\n2\.1.*?</Parallel>", re.DOTALL)
    skeleton = inner.sub("", SKELETON).replace("{2.0}", "{2.0} {2.1} {2.2}")
    scorer = Gaps(0.1, 0.6)
    llm = Scripted(GOOD | {"reformat": skeleton, "map_reduce": json.dumps(FIRST)})
    row, _ = await curated(llm, scorer=scorer)
    assert scorer.asked[1] == (
        "".join(SENTENCES[name] for name in ("0", "1", "2.0")),
        [SENTENCES["2.1"], SENTENCES["2.2"]],
    )
    assert (row.gaps, row.merged, row.figures.structure.blocks) == ({"2-5": 0.1, "4-5": 0.6}, 1, 1)


@pytest.mark.parametrize("chain", ["", " \n", "A <Path> b."])
async def test_chains_that_cannot_be_structured_are_not_asked_about(chain: str) -> None:
    llm = Scripted()
    with pytest.raises(RowRejectedError, match=r"^chain: the chain (is empty|holds the tag <Path> at character 2)$"):
        await curated(llm, chain)
    assert llm.calls == []


@pytest.mark.parametrize("stage", STAGES)
async def test_an_llm_that_gives_no_answer(stage: str) -> None:
    answers = Scripted()

    async def llm(call: Call) -> Reply:
        if call.stage == stage:
            raise LLMError("timed out", 3, retryable=True)
        return await answers(call)

    with pytest.raises(RowRejectedError) as rejected:
        await curated(llm)
    assert (rejected.value.stage, rejected.value.reason, rejected.value.retryable) == (stage, "timed out", True)


async def test_an_endpoint_that_takes_no_calls_is_no_fault_of_the_row() -> None:
    answers = Scripted(bad={"refill 0": ["x"] * TRIES})

    async def llm(call: Call) -> Reply:
        if key(call) == "refill 3":
            raise EndpointError("HTTP 401", 1, retryable=False)
        return await answers(call)

    with pytest.raises(EndpointError, match=r"^HTTP 401$"):
        await curated(llm)


def damaged(draw: random.Random, text: str) -> str:
    """A text with something wrong, which some checks may not mind."""
    at = draw.randrange(len(text) + 1)
    piece = draw.choice(["{2.1}", "<Path>", "</Parallel>", "7", '"', "\n", "]", "x", "12, ", "\ud800", "1: ", "```\n"])
    match draw.randrange(6):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + piece + text[at:]
        case 2:
            return text[:at] + text[at + draw.randrange(1, 20) :]
        case 3:
            return re.sub(r"\d", lambda found: draw.choice("0123456789"), text, count=draw.randrange(1, 4))
        case 4:
            words = text.split(" ")
            draw.shuffle(words)
            return " ".join(words)
        case _:
            return draw.choice(list(GOOD.values()))


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False), st.sampled_from([0.05, 0.2, 0.6]))
def test_any_answers_give_a_valid_row_or_none(draw: random.Random, share: float) -> None:
    ideal = IdealLLM(STRUCTURED)

    async def llm(call: Call) -> Reply:
        try:
            text = (await ideal(call)).text
        except AssertionError:  # Of other steps by a damaged answer came other blocks.
            text = json.dumps(TEXTS)
        text = damaged(draw, text) if draw.random() < share else text
        return Reply(text, 1, 1, 1, cached=False, cost=0.0, model="damaged")

    try:
        row, spent = asyncio.run(curated(llm, ideal.chain))
    except RowRejectedError as rejected:
        assert rejected.stage in STAGES
        assert "the last: " in rejected.reason
        return
    document = parse(row.chain)
    assert flatten_text(row.chain) == row.sequential
    assert check_numbering(document) == []
    assert check_outlines(document, QUESTION) == []
    assert check_content([(ideal.chain, row.sequential)]) == []
    assert max(spent.calls[stage] for stage in STAGES if stage != "refill") <= TRIES
