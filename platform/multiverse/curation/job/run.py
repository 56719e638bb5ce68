"""The run: input, estimate, Ray Data over the parts, the data card."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multiverse.config import ConfigError
from multiverse.curation.job.config import CurateConfig
from multiverse.curation.job.estimate import estimate_cost
from multiverse.curation.job.intake import Intake, take_in
from multiverse.curation.job.records import DEAD, from_lines, read_done, to_lines
from multiverse.curation.job.worker import PARTS_AT_ONCE, Report, Worker
from multiverse.curation.llm.accounting import Accounting, Estimate, Figures
from multiverse.curation.llm.calls import EndpointError
from multiverse.storage import Folder, Prefix, open_folder


@dataclass(frozen=True, slots=True)
class Summary:
    """curated + dead = rows of the source that were not left out. accounting: of this run's calls."""

    rows: int
    curated: int
    dead: int
    out: str
    accounting: Accounting


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the parts: rows that are done, of how many; this run's calls so far."""

    done: int
    rows: int
    curated: int
    figures: Figures


def plan(config: CurateConfig) -> tuple[Intake, Estimate]:
    """Take the input in, and estimate what is left to do. Raises as `take_in`, and ConfigError above ``max_cost``."""
    folder = open_folder(config.out)
    intake = take_in(config, folder)
    left = estimate_cost(config, intake, len(pending(folder, intake)) / intake.parts if intake.parts else 0.0)
    if config.max_cost is not None and left.cost > config.max_cost:
        raise ConfigError(f"the estimate, {left.cost:.2f}, is above max_cost, which is {config.max_cost:.2f}")
    return intake, left


def pending(folder: Folder | Prefix, intake: Intake) -> list[int]:
    """Parts that are not done, or in which dead letters may do better this time."""
    done = read_done(folder)
    return [part for part in range(intake.parts) if part not in done or done[part].retryable]


def curate(config: CurateConfig, tell: Callable[[Progress], None] = lambda _: None) -> Summary:
    """Work on what is pending, on the Ray cluster that this process is connected to, and write the data card.

    Raises as `plan`, and EndpointError if the LLM takes no calls; what is done by then stays.
    """
    from multiverse.curation.job.card import write_card

    folder = open_folder(config.out)
    intake, _ = plan(config)
    accounts: dict[str, Accounting] = {}
    before = read_done(folder)
    left = pending(folder, intake)
    counted = {part: (done.curated, done.dead) for part, done in before.items() if part not in left}
    for report in _reports(config, left):
        if report.refused:
            raise EndpointError(report.refused, 0, retryable=False)
        counted[report.part] = (report.curated, report.dead)
        account = Accounting.of_stages(report.accounting)
        # Reports of one worker may come in another order than they were made.
        accounts[report.worker] = max(account, accounts.get(report.worker, account), key=lambda one: one.total.calls)
        curated, dead = (sum(column) for column in zip(*counted.values(), strict=True))
        tell(Progress(curated + dead, intake.rows, curated, Accounting.merge(accounts.values()).total))
    _gather_dead(folder, intake)
    write_card(config, folder, intake)
    done = read_done(folder).values()
    curated = sum(one.curated for one in done)
    rejected = sum(intake.rejected.values())
    dead = rejected + sum(one.dead for one in done)
    return Summary(intake.rows + rejected, curated, dead, config.out, Accounting.merge(accounts.values()))


def _reports(config: CurateConfig, parts: list[int]) -> Iterator[Report]:
    """What workers say of the parts, as they end."""
    import ray

    if not parts:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    count = min(config.workers.count, len(parts))
    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=count,
            max_tasks_in_flight_per_actor=PARTS_AT_ONCE,
            max_concurrent_calls_per_actor=PARTS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        fn_constructor_args=(config.model_dump(mode="json"), count),
        num_cpus=config.workers.cpus,
        num_gpus=config.workers.gpus or None,
    )
    for row in dataset.iter_rows():
        yield Report(**json.loads(row["report"]))


def _gather_dead(folder: Folder | Prefix, intake: Intake) -> None:
    """All dead letters in one file."""
    names = sorted(name for name in folder.names() if name.startswith(f"{DEAD}/"))
    letters = [letter for name in names for letter in from_lines(folder.read(name))]
    folder.write("dead-letters.jsonl", to_lines(letters))
