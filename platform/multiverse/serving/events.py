"""What happens to a request while it is generated, in the order it happens."""

from dataclasses import dataclass
from typing import Literal

from multiverse.engine.segment import TokenLogprob

Place = tuple[tuple[int, int], ...]
"""Where in the tree: (block, branch) per depth, from 1; blocks numbered per request as they fork. () = top."""

FinishReason = Literal["stop", "length"]
BranchFinish = Literal["stop", "length", "given_up", "timeout", "dropped"]
"""timeout: it took too long, and was closed where it was. given_up, dropped: it is an empty path, because the budget
held no more, or because the answer's time was up before the client had seen anything of it."""


@dataclass(frozen=True, slots=True)
class TokensAdded:
    """Tokens appended at ``place``. ``written``: by the engine, not sampled (then ``logprobs`` is None)."""

    place: Place
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None
    written: bool = False


@dataclass(frozen=True, slots=True)
class BlockForked:
    """``place`` split into branches; block ``block`` has one branch per outline.

    replicas: where each branch runs, if there are several.
    """

    place: Place
    block: int
    outlines: tuple[str, ...]
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BranchRetried:
    """A branch took too long and goes on, on another replica if there is one."""

    place: Place


@dataclass(frozen=True, slots=True)
class BranchEmptied:
    """All that was told of the branch and of the blocks in it is void: it begins again, as an empty path."""

    place: Place


@dataclass(frozen=True, slots=True)
class BranchFinished:
    place: Place
    finish: BranchFinish
    tokens: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class BlockJoined:
    """Block ``block`` of ``place`` met again; ``milliseconds`` from its fork to here."""

    place: Place
    block: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class FellBack:
    """Malformed structure: ``place`` goes on sequentially."""

    place: Place
    reason: str


@dataclass(frozen=True, slots=True)
class Branch:
    outline: str
    tokens: tuple[int, ...]
    finish: BranchFinish
    milliseconds: float
    blocks: tuple["Block", ...] = ()
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    id: int
    branches: tuple[Branch, ...]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """tokens: the whole answer in reading order. critical_path counts its positions; x = tokens / critical_path."""

    tokens: tuple[int, ...]
    finish: FinishReason
    critical_path: int
    parallelism: float
    blocks: tuple[Block, ...] = ()
    fallbacks: tuple[str, ...] = ()
    stop_text: str | None = None
    """With stop strings (sequential requests only): the answer's text, cut before the stop string."""
    branches_cut: bool = False
    """``finish`` is "length" because a limit of the request ended a branch; the answer itself came to its own end."""

    @property
    def ended(self) -> bool:
        """Whether the answer came to its own end, whatever ended its branches."""
        return self.finish == "stop" or self.branches_cut


@dataclass(frozen=True, slots=True)
class Finished:
    result: Result


Event = TokensAdded | BlockForked | BranchRetried | BranchEmptied | BranchFinished | BlockJoined | FellBack | Finished
"""A request's events end with exactly one ``Finished``, unless it is cancelled or fails."""

__all__ = [
    "Block",
    "BlockForked",
    "BlockJoined",
    "Branch",
    "BranchEmptied",
    "BranchFinished",
    "BranchRetried",
    "Event",
    "FellBack",
    "FinishReason",
    "Finished",
    "Place",
    "Result",
    "TokensAdded",
]
