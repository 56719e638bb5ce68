"""The grid: which cells there are, what they take, and which of them fit into the KV cache and the time."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from multiverse.engine.measure_costs import EngineCosts
from multiverse.evaluation.replay import whole_blocks
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.evaluation.speed.shape import Shape, even, of_chain
from multiverse.models.tokens import Tokens
from multiverse.structure.grammar import GrammarError, parse

TRACE_CONTEXT = 128
"""Tokens before an answer that has a chain's shape: its own text is what makes its context long."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement. context: tokens before the answer. x: parallelism asked for, None for a chain's shape, whose
    file's name ``trace`` is."""

    batch: int
    context: int
    shape: Shape
    x: float | None = None
    trace: str = ""

    @property
    def id(self) -> str:
        what = f"trace-{Path(self.trace).stem}" if self.trace else f"x{self.x:g}"
        return f"b{self.batch}-c{self.context}-{what}"

    @property
    def group(self) -> str:
        """Cells of one group share prompts and the run in sequence."""
        return f"b{self.batch}-c{self.context}" + (f"-{self.trace}" if self.trace else "")


@dataclass(frozen=True, slots=True)
class Size:
    """What a cell comes to. tokens: of an answer. steps: by rows, how many of its steps have them (`rows_by_step`).
    branches: by block, tokens of its branches together. seconds: of one repeat, apart from what its group shares."""

    tokens: int
    steps: dict[int, int]
    branches: tuple[int, ...]

    @property
    def rows(self) -> int:
        return max(self.steps)

    @property
    def critical_path(self) -> int:
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class LeftOut:
    cell: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """cells: to be measured, group by group. seconds: what those repeats of them should take that are not there yet,
    0 where their time has no bound."""

    cells: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """What the engine has: tokens of KV cache, tokens of a KV block, rows of a batch, tokens of a sequence."""

    kv_tokens: int
    block_size: int
    rows: int
    max_model_len: int


def cells(config: SpeedConfig, tokens: Tokens) -> list[Cell]:
    """All cells that the configuration names. Raises ValueError for a chain that cannot be used."""
    grid = [
        Cell(batch, context, even(x, config.branch_tokens), x)
        for batch in config.batches
        for context in config.contexts
        for x in config.parallelism
    ]
    return grid + [
        Cell(1, TRACE_CONTEXT, _shape(Path(path), tokens, config.trace_tokens), trace=Path(path).name)
        for path in config.traces
    ]


def _shape(path: Path, tokens: Tokens, limit: int) -> Shape:
    text = path.read_text(encoding="utf-8")
    try:
        parse(text)
        return of_chain(whole_blocks(tokens.encode_structured(text), tokens.vocabulary, limit), tokens.vocabulary)
    except (GrammarError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def does_not_fit(cell: Cell, size: Size, room: Room) -> str | None:
    """Why a cell cannot be run as one batch; None if it can."""
    rows, block = cell.batch * size.rows, room.block_size
    if rows > room.rows:
        return f"{rows} rows, the engine has {room.rows}"
    if (longest := cell.context + size.tokens + block) > room.max_model_len:
        return f"{longest} tokens in a sequence, the engine holds {room.max_model_len}"
    # Branches keep their KV until the join has a copy of it.
    held = cell.batch * (cell.context + size.rows * block + 2 * (size.tokens + block))
    return f"{held} tokens of KV, the cache holds {room.kv_tokens}" if held > room.kv_tokens else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of parts of a run, from what the engine takes (`multiverse.engine.measure_costs`)."""

    costs: EngineCosts

    def step(self, rows: int, context: int) -> float:
        steps = self.costs.steps
        above = next((n for n in range(1, len(steps)) if steps[n][0] >= rows), len(steps) - 1)
        (few, fast), (many, slow) = steps[above - 1], steps[above]
        return fast + (slow - fast) * (rows - few) / (many - few) + self.costs.step_context * rows * context

    def prefill(self, tokens: int) -> float:
        return self.costs.prefill_fixed + tokens * self.costs.prefill_token

    def group(self, cell: Cell, tokens: int) -> float:
        """What all cells of a group share: prompts, and the run in sequence of so many tokens."""
        return cell.batch * self.prefill(cell.context) + tokens * self.step(cell.batch, cell.context + tokens // 2)

    def cell(self, cell: Cell, size: Size) -> float:
        """The structured run, the rows for the limit, and the second prefill."""
        structured = sum(
            count * self.step(cell.batch * rows, cell.context + size.critical_path // 2)
            for rows, count in size.steps.items()
        )
        again = 0.0 if cell.trace else max(size.steps.values()) * self.step(cell.batch * size.rows, cell.context)
        return structured + again + cell.batch * self.prefill(sum(size.branches))


@dataclass(slots=True)
class _Group:
    first: Cell
    cells: list[Cell] = field(default_factory=list)
    seconds: float = 0.0


def plan(
    every: Sequence[Cell],
    sizes: dict[str, Size],
    room: Room,
    costs: EngineCosts | None,
    config: SpeedConfig,
    there: Set[tuple[str, int]] = frozenset(),
) -> Plan:
    """Which cells are measured: of those that fit, as many groups as the time holds.

    Batch 1 goes first, then each batch size at the shortest context, then chains, then what takes least.
    costs: for the time; not needed where that has no bound.
    there: cells with their repeats, from 0 on, that were measured before and take no time any more.
    """
    left_out = list[LeftOut]()
    groups: dict[str, _Group] = {}
    for cell in every:
        reason = does_not_fit(cell, sizes[cell.id], room)
        if reason is not None:
            left_out.append(LeftOut(cell.id, reason))
            continue
        groups.setdefault(cell.group, _Group(cell)).cells.append(cell)
    if config.minutes is None or costs is None:
        return Plan(tuple(cell.id for group in groups.values() for cell in group.cells), tuple(left_out))
    estimate = Estimate(costs)
    for group in groups.values():
        for repeat in range(config.repeats_of(group.first.batch)):
            if missing := [cell for cell in group.cells if (cell.id, repeat) not in there]:
                longest = max(sizes[cell.id].tokens for cell in missing)
                group.seconds += estimate.group(group.first, longest)
                group.seconds += sum(estimate.cell(cell, sizes[cell.id]) for cell in missing)
    shortest = min(config.contexts)

    def rank(group: _Group) -> tuple[int, float]:
        cell = group.first
        order = 2 if cell.trace else 0 if cell.batch == 1 else 1 if cell.context == shortest else 3
        return order, group.seconds

    chosen, left = list[Cell](), config.minutes * 60
    for group in sorted(groups.values(), key=rank):
        if group.seconds > left:
            reason = f"about {group.seconds:.0f} s with its group, {max(0.0, left):.0f} s were left"
            left_out += [LeftOut(cell.id, reason) for cell in group.cells]
            continue
        left -= group.seconds
        chosen += group.cells
    return Plan(tuple(cell.id for cell in chosen), tuple(left_out), config.minutes * 60 - left)
