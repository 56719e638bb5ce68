"""What a run will come to, before its first call."""

from collections.abc import Mapping
from dataclasses import dataclass

from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.intake import Intake
from multiverse.curation.llm.accounting import Estimate, StageNeed, estimate

CHARACTERS_PER_TOKEN = 2.6
"""Of chains with mathematics, rather too few than too many: 2.6 to 3.4 in the chains that this was measured on."""
NUMBERED = 1.16
"""Tokens of a chain cut into numbered sentences, per token of the chain."""


@dataclass(frozen=True, slots=True)
class StageShare:
    """What a stage takes of a row's chain.

    prompt: tokens of the stage's own prompt. listing: tokens that it lists, answer: tokens of its answers; both per
    token of the chain. step: tokens of the chain that a call is about, in stages with a call per step; these calls do
    not stand in the conversation of those behind.
    """

    prompt: int
    listing: float
    answer: float
    step: int | None = None


SHARES: Mapping[str, Mapping[str, StageShare]] = {
    "anchored": {
        "steps": StageShare(430, NUMBERED, 0.053),
        "dependencies": StageShare(310, 0.085, 0.028),
        "texts": StageShare(400, 0.11, 0.118),
    },
    "rewrite": {
        "summary": StageShare(430, NUMBERED, 0.053),
        "groups": StageShare(200, 0.07, 0.009),
        "reformat": StageShare(330, 0.014, 0.063),
        "refill": StageShare(180, 1.0, 1.0, step=335),
        "map_reduce": StageShare(300, 0.21, 0.118),
    },
}
"""Of ideal answers on twelve real chains, in tokens of SmolLM2 (docs/curation.md)."""


def estimate_cost(config: CurateConfig, intake: Intake, share: float = 1.0) -> Estimate:
    """What ``share`` of the input will come to, if every row has blocks and no answer is repeated.

    Each stage reads all that was said before. What a model thinks before it answers is not included.
    """
    chain = intake.characters / CHARACTERS_PER_TOKEN / max(1, intake.rows)
    needs, before = [], 0.0
    for stage, takes in SHARES[config.stages.mode].items():
        calls = 1.0 if takes.step is None else max(1.0, chain / takes.step)
        asked, answer = calls * takes.prompt + chain * takes.listing, chain * takes.answer
        needs.append(StageNeed(stage, calls, calls * before + asked, answer))
        if takes.step is None:
            before += asked + answer
    return estimate(round(intake.rows * share), needs, config.llm.prices)
