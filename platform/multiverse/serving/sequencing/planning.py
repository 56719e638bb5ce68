"""``force`` mode: the engine opens a block, its outlines written under a grammar, so any model can go parallel."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import resources

import yaml

from multiverse.engine.segment import Segment
from multiverse.serving.events import FinishReason
from multiverse.serving.sequencing.blocks import grow, run_block
from multiverse.serving.sequencing.pieces import Outline, encode
from multiverse.serving.sequencing.region import Region
from multiverse.serving.sequencing.seeds import derived_seed
from multiverse.serving.sequencing.segments import prefill, sample
from multiverse.serving.sequencing.session import Session

CONCLUSION_TOKENS = 64
"""The most an untrained model writes behind the join: it does not know that a conclusion ends."""
TOKENS_PER_LINE = 40
_WORD = r"[^<\s]{1,20}"
# Whole words, so that no bound cuts one; two of them and no digit first, so that a line says something.
_LINE = rf"[^<\s0-9][^<\s]{{0,19}}( {_WORD}){{1,9}}"
PLAN_PENALTY = 0.5
"""Presence penalty while planning: small models like to repeat a line."""


def plan_regex(width: int | None, max_width: int) -> str:
    """Numbered lines ``1: some words``: exactly ``width``, or 2 to ``max_width`` where the model stops by itself."""
    least, most = (width, width) if width is not None else (2, max(2, max_width))
    lines = [rf"{number}: {_LINE}" for number in range(1, most + 1)]
    optional = ""
    for line in reversed(lines[least:]):
        optional = rf"(\n{line}{optional})?"
    return r"\n".join(lines[:least]) + optional


def parse_plan(text: str, complete: bool, width: int | None) -> tuple[Outline, ...]:
    """The outlines of a plan; none if it does not hold the lines asked for. Not ``complete``: its last line is cut."""
    lines = text.strip().split("\n")
    if not complete:
        lines.pop()
    outlines = []
    for number, line in enumerate(lines, start=1):
        label, _, words = line.partition(": ")
        if label != str(number) or not words.strip() or "<" in words:
            return ()
        # The words are the branch's heading; behind the first branch on a line of their own, tags or no tags.
        gap = "" if number == 1 else "\n\n"
        outlines.append(Outline(line, f"{number}:", f" {gap}**{words.strip()}**:"))
    return tuple(outlines) if len(outlines) == width or (width is None and len(outlines) >= 2) else ()


async def run_forced(root: Region) -> FinishReason:
    """Open a block at the top, run it, and conclude; without a plan go on sequentially."""
    session = root.session
    outlines = await _plan(session)
    if not outlines:
        root.fall_back("no_plan")
        return await grow(root)
    if not root.affords(goal := encode(session.codec, _goal(outlines)), outlines):
        root.fall_back("no_room")
        return await grow(root)
    root.write(goal)
    # The branches start from this KV; without it each of them would compute it.
    await prefill(root)
    if not await run_block(root, outlines):
        return root.end("length", outlines)
    return await grow(root) if session.limits.trained else await _conclude(root)


async def _plan(session: Session) -> tuple[Outline, ...]:
    """Have the outlines written. Their tokens are no part of the answer."""
    request, codec = session.request, session.codec
    width, most = request.parallel.width, max(2, request.parallel.max_width)
    tokens = codec.chat(plan_messages(request.question.strip()))
    max_tokens = TOKENS_PER_LINE * (width or most)
    if len(tokens) + max_tokens > session.limits.max_model_len:
        return ()
    segment = Segment(
        id=session.segment_id(),
        tokens=tuple(tokens),
        sampling=replace(
            request.sampling,
            max_tokens=max_tokens,
            temperature=0.0,
            seed=derived_seed(request.sampling.seed, (), 0, "plan"),
            logprobs=None,
            ignore_eos=False,
            presence_penalty=PLAN_PENALTY,
            regex=plan_regex(width, most),
        ),
        masked=tuple(sorted(codec.vocabulary.tag_ids.values())),
        priority=request.arrival,
        cache_salt=request.cache_salt,
    )
    written: list[int] = []
    complete = False
    stream = session.open(segment)
    try:
        async with session.row():
            async for delta in stream:
                written += delta.tokens
                complete = delta.finish == "stop"
    finally:
        await stream.aclose()
    return parse_plan(codec.decode(written), complete, width)


def _goal(outlines: Sequence[Outline]) -> list[str]:
    pieces = ["<Parallel>", "\n", "<Goal>", "\n"]
    for outline in outlines:
        pieces += ["<Outline>", "\n", outline.text, "\n", "</Outline>", "\n"]
    return [*pieces, "</Goal>"]


async def _conclude(root: Region) -> FinishReason:
    """Let an untrained model write a conclusion of bounded length, and end there."""
    room = root.room
    if room < 1:
        return root.end("length")
    step = await sample(root, min(room, CONCLUSION_TOKENS), stop="</Conclusion>")
    short = step.kind == "cut" or (step.kind == "length" and room <= CONCLUSION_TOKENS)
    return root.end("length" if short else "stop")


def plan_messages(question: str) -> list[dict[str, str]]:
    """A conversation in which other tasks were split into parts before."""
    instruction, turns = _examples()
    asked = [(task, "\n".join(f"{number}: {part}" for number, part in enumerate(parts, 1))) for task, parts in turns]
    messages = []
    for task, lines in asked:
        messages += [
            {"role": "user", "content": f"Task: {task}\n{instruction}."},
            {"role": "assistant", "content": lines},
        ]
    return [*messages, {"role": "user", "content": f"Task: {question}\n{instruction}."}]


@cache
def _examples() -> tuple[str, tuple[tuple[str, tuple[str, ...]], ...]]:
    text = resources.files("multiverse.serving.sequencing").joinpath("plan_examples.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    return values["instruction"], tuple((turn["task"], tuple(turn["parts"])) for turn in values["examples"])
