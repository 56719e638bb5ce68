"""Measure the cells of a grid: each repeat of each cell is a record of its own, so that a run goes on where it ended.

    repeat 1: group 1 (prompts, sequence, per cell: structured, rows, second prefill), group 2, ...
    repeat 2: group 1 (prompts, per cell from last to first, sequence), ...

All that one ratio is made of is run in one go, and repeats of a cell lie far apart.
"""

import itertools
import json
import statistics
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass, replace
from math import ceil, log
from typing import Any

from multiverse.engine.measure_costs import longest_prefill, measure_costs
from multiverse.evaluation.comparison import banned_ids
from multiverse.evaluation.facts import run_facts
from multiverse.evaluation.speed.config import SpeedConfig
from multiverse.evaluation.speed.disturbance import Busy, others
from multiverse.evaluation.speed.grid import Cell, LeftOut, Plan, Room, Size, cells, plan
from multiverse.evaluation.speed.limit import limit
from multiverse.evaluation.speed.records import Record, read
from multiverse.evaluation.speed.runs import (
    Runner,
    Timed,
    running,
    sequential_seconds,
    step_seconds,
    structured_seconds,
)
from multiverse.evaluation.speed.script import Writer, Written
from multiverse.evaluation.speed.shape import rows_by_step
from multiverse.models.tokens import Tokens
from multiverse.storage import Folder, Prefix, open_folder
from multiverse.structure.layout import layout

PLAN = "plan.json"
TRACE_STEPS = 32
"""Steps for each number of rows that a chain's shape has."""
ONCE = 16
"""From this batch size on the second prefill, which takes many times as long as a join, is run once for each cell."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All of a run: its cells by id, and what was found."""

    config: SpeedConfig
    cells: dict[str, Cell]
    sizes: dict[str, Size]
    plan: Plan
    records: tuple[Record, ...]


def size_of(cell: Cell, written: Written, writer: Writer) -> Size:
    """What an answer of the cell's shape comes to, from where its time is taken on."""
    given, vocabulary = _given(cell, written), writer.tokens.vocabulary
    placed = layout(vocabulary.kinds(list(written.tokens)))
    branches = tuple(sum(span.end - span.start for span in block.spans) for block in placed.blocks)
    return Size(len(written.tokens) - given, rows_by_step(written.tokens, vocabulary, given), branches)


def _given(cell: Cell, written: Written) -> int:
    """Tokens of an answer that are there when the time begins: its first, or all up to the first fork."""
    return 1 if cell.trace else written.goal + 1


async def measure(config: SpeedConfig, say: Callable[[str], None] = print) -> Measured:
    """Measure what is not there yet, on an engine of its own. Raises as `measure_on` does."""
    _planned(config, open_folder(config.out))  # what the folder says against it comes before the engine's start
    async with running(config.engine_config(), config.seed) as runner:
        return await measure_on(runner, config, say)


async def measure_on(runner: Runner, config: SpeedConfig, say: Callable[[str], None]) -> Measured:
    """Raises ValueError for chains that cannot be used, and where the folder holds a run that cannot go on so."""
    folder = open_folder(config.out)
    every, sizes = _all_cells(config, runner.engine.tokens)
    planned = _planned(config, folder)
    records = {(record.cell, record.repeat): record for record in _records(folder, sizes)}
    # A second start has the same grid.
    chosen = planned or await _plan(config, folder, runner, every, sizes, records.keys())
    repeats = {cell: config.repeats_of(every[cell].batch) for cell in chosen.cells}
    runs = [
        (repeat, cell)
        for repeat in range(max(repeats.values(), default=0))
        for cell in chosen.cells
        if repeat < repeats[cell]
    ]
    missing = [run for run in runs if run[::-1] not in records]
    say(f"{len(chosen.cells)} cells, {len(chosen.left_out)} left out; {len(missing)} of {len(runs)} runs to go")
    commit, machine = _origin()
    for (repeat, _), ids in itertools.groupby(missing, lambda item: (item[0], every[item[1]].group)):
        group = [every[cell] for _, cell in ids]
        for record in await _group(runner, group, sizes, repeat):
            record = replace(record, commit=commit, machine=machine)
            folder.write(record.name, json.dumps(asdict(record)).encode())
            records[record.cell, record.repeat] = record
            say(str(record))
    return Measured(config, every, sizes, chosen, tuple(records.values()))


def _origin() -> tuple[str, str]:
    """The commit, and the machine with what is installed on it, in words."""
    facts = run_facts()
    code, machine = facts["code"], facts["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    commit = str(code["commit"] or "")[:12] + (" with changes" if code["changed"] else "")
    return commit, f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {versions}"


def measured_so_far(config: SpeedConfig) -> Measured:
    """What is there of a run, without an engine. Raises ValueError where its folder holds none of this grid."""
    folder = open_folder(config.out)
    chosen = _planned(config, folder)
    if chosen is None:
        raise ValueError(f"{folder.uri} holds no run of this grid: measure it first")
    every, sizes = _all_cells(config, Tokens.load(config.engine_config().model))
    return Measured(config, every, sizes, chosen, tuple(_records(folder, sizes)))


def _all_cells(config: SpeedConfig, tokens: Tokens) -> tuple[dict[str, Cell], dict[str, Size]]:
    """Every cell of the configuration by its id, and what each comes to."""
    every = {cell.id: cell for cell in cells(config, tokens)}
    writer = Writer(tokens, config.seed)
    return every, {id: size_of(cell, writer.answer(cell.shape), writer) for id, cell in every.items()}


def _planned(config: SpeedConfig, folder: Folder | Prefix) -> Plan | None:
    """The plan that is there, None where it is of another grid. Raises ValueError where its records are of no use."""
    if PLAN not in folder.names():
        return None
    found = _read_plan(folder)
    if found["essence"] != config.essence():
        raise ValueError(f"{folder.uri} holds a run of another model, engine or length: choose another folder")
    if found["config"] != config.described():
        return None
    return Plan(tuple(found["cells"]), tuple(LeftOut(**item) for item in found["left_out"]), found["seconds"])


def _read_plan(folder: Folder | Prefix) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.read(PLAN))
        _ = found["essence"], found["config"], found["cells"], found["left_out"], found["seconds"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{PLAN} in {folder.uri} is damaged ({error!r}): remove it, and the grid is planned anew"
        ) from error
    return found


def check_grid(config: SpeedConfig, folder: Folder | Prefix) -> None:
    """Raises ValueError where the folder holds a run of other cells than the configuration's."""
    if PLAN not in folder.names():
        return
    theirs, ours = _read_plan(folder)["config"], config.described()
    if any(theirs.get(name) != ours[name] for name in ("batches", "parallelism", "contexts", "traces")):
        raise ValueError(f"{folder.uri} holds a run of another grid: choose another folder")


def _records(folder: Folder | Prefix, sizes: dict[str, Size]) -> list[Record]:
    """Raises ValueError for those of a chain that has another shape by now."""
    found = read(folder)
    for record in found:
        if record.cell in sizes and record.tokens != sizes[record.cell].tokens:
            raise ValueError(
                f"{record.name} in {folder.uri} is of {record.tokens} tokens, {record.cell} has others by now"
            )
    return found


async def _plan(
    config: SpeedConfig,
    folder: Folder | Prefix,
    runner: Runner,
    every: dict[str, Cell],
    sizes: dict[str, Size],
    there: Set[tuple[str, int]],
) -> Plan:
    """A new plan, by what the engine takes."""
    engine, asked = runner.engine.segments, config.engine
    room = Room(engine.kv_tokens, engine.block_size, asked.max_num_seqs, engine.max_model_len)
    costs = None
    if config.minutes is not None:
        # Up to the most rows that any cell has, or a little more: a step of many rows takes long.
        most = max(min(asked.max_num_seqs, cell.batch * sizes[id].rows) for id, cell in every.items())
        batches = tuple(4**n for n in range(max(1, ceil(log(most, 4))) + 1))
        banned = banned_ids(engine.manifest, engine.end_ids)
        longest = longest_prefill(engine.max_model_len)
        costs = await measure_costs(engine, engine.vocabulary.ordinary_ids, banned, batches, longest, runner.clock)
    made = plan(list(every.values()), sizes, room, costs, config, there)
    kept = {"essence": config.essence(), "config": config.described(), **asdict(made)}
    folder.write(PLAN, json.dumps(kept, indent=1).encode())
    return made


async def _group(runner: Runner, group: Sequence[Cell], sizes: dict[str, Size], repeat: int) -> list[Record]:
    """One repeat of cells that share prompts and the run in sequence."""
    first, begun = group[0], Busy.now()
    # One token behind a KV block's border: all but that one are in the cache.
    block = runner.engine.segments.block_size
    length = max(1, first.context // block) * block + 1
    prompts = [runner.write.text(length) for _ in range(first.batch)]
    await runner.cache(prompts)
    tokens, sequence = max(sizes[cell.id].tokens for cell in group), None
    if repeat % 2 == 0:
        sequence = await runner.plain(prompts, tokens + 1)
    parts = []
    for cell in group if repeat % 2 == 0 else reversed(group):
        parts.append((cell, await _cell(runner, prompts, cell, sizes[cell.id], repeat)))
    if sequence is None:
        sequence = await runner.plain(prompts, tokens + 1)
    share = others(begun, Busy.now())
    return [_record(cell, sizes[cell.id], repeat, part, sequence, share) for cell, part in parts]


@dataclass(frozen=True, slots=True)
class _Part:
    """What is measured for one cell alone. curve: without the rows of the batch in sequence, where those tell."""

    seconds: float
    fork: float
    branch_step: float
    join: float
    second_prefill: float | None
    curve: dict[int, float]


async def _cell(runner: Runner, prompts: Sequence[list[int]], cell: Cell, size: Size, repeat: int) -> _Part:
    written = runner.write.answer(cell.shape)
    # The goal is part of the context, so that all cells of a group fork behind as many tokens.
    cut = prompts if cell.trace else [prompt[: len(prompt) - _given(cell, written)] for prompt in prompts]
    runs = await runner.structured(cut, written)
    curve = await (_chain_curve(runner, size) if cell.trace else _curve(runner, prompts, cell, size))
    again = None
    if cell.batch < ONCE or repeat == 0:
        again = sum([await runner.prefill(prompts, tokens) for tokens in size.branches])
    return _Part(
        structured_seconds(runs, from_fork=not cell.trace),
        statistics.median(sum(run.forks) for run in runs),
        statistics.median(_per_step(run) for run in runs),
        statistics.median(sum(run.joins) for run in runs),
        again,
        curve,
    )


def _per_step(run: Timed) -> float:
    return sum(seconds for seconds, _ in run.branches) / max(1, sum(steps for _, steps in run.branches))


async def _curve(runner: Runner, prompts: Sequence[list[int]], cell: Cell, size: Size) -> dict[int, float]:
    """As many plain requests as branches run at once, behind the same prompts and as long."""
    if size.rows == 1:
        return {}
    steps = size.steps[size.rows]
    rows = await runner.plain([prompt for prompt in prompts for _ in range(size.rows)], steps)
    return {cell.batch * size.rows: step_seconds(rows, steps)}


async def _chain_curve(runner: Runner, size: Size) -> dict[int, float]:
    """For all rows that the shape has, at the middle of its context."""
    block = runner.engine.segments.block_size
    prompt = runner.write.text((size.tokens // 2) // block * block + 1)
    await runner.cache([prompt])
    curve = {}
    for rows in sorted({1, *size.steps}):
        curve[rows] = step_seconds(await runner.plain([prompt] * rows, TRACE_STEPS), TRACE_STEPS)
    return curve


def _record(cell: Cell, size: Size, repeat: int, part: _Part, sequence: Sequence[Timed], share: float) -> Record:
    curve = dict(part.curve)
    if cell.batch not in curve:
        curve[cell.batch] = step_seconds(sequence, min(size.tokens, size.critical_path))
    return Record(
        cell=cell.id,
        repeat=repeat,
        tokens=size.tokens,
        x=size.tokens / size.critical_path,
        structured_s=part.seconds,
        sequential_s=sequential_seconds(sequence, size.tokens),
        limit=limit(size.steps, cell.batch, curve),
        curve=dict(sorted(curve.items())),
        fork_s=part.fork,
        branch_step_s=part.branch_step,
        join_s=part.join,
        second_prefill_s=part.second_prefill,
        others=share,
    )
