"""What vLLM's scheduler process reports every step: the engine's figures, and the segments that the guard refused."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from multiverse.engine.step_times import Point, StepTimes


@dataclass(slots=True)
class EngineStats:
    """Gauges of the last report: leases, blocks, exports, running, waiting. All others count from the start.

    free_blocks: None before the first report. host_blocks: what spilled leases take of host memory, in blocks.
    """

    leases: int = 0
    leased_blocks: int = 0
    host_blocks: int = 0
    lease_spills: int = 0
    lease_drops: int = 0
    leases_leaked: int = 0
    exports: int = 0
    exported_bytes: int = 0
    free_blocks: int | None = None
    running: int = 0
    waiting: int = 0
    preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    rebuilds: dict[str, int] = field(default_factory=dict)


class Reports:
    """Receives vLLM's statistics, in the loop of the engine's front end."""

    def __init__(self) -> None:
        self.stats = EngineStats()
        self._steps = StepTimes()
        self._refusals: dict[str, asyncio.Future[str]] = {}

    def logger(self, vllm_config: Any, engine_index: int = 0) -> StatLoggerBase:
        """The stat logger factory for vLLM."""
        return _StatLogger(self)

    def refusal(self, request: str) -> asyncio.Future[str]:
        """Resolves with the reason when the guard refuses ``request``. Forget it when the request is over."""
        self._refusals[request] = asyncio.get_running_loop().create_future()
        return self._refusals[request]

    def forget(self, request: str) -> None:
        self._refusals.pop(request, None)

    @property
    def steps(self) -> list[Point]:
        """What decode steps take lately: see `StepTimes.points`."""
        return self._steps.points()

    def take(self, scheduler: SchedulerStats | None, iteration: IterationStats | None = None) -> None:
        """Take in one step's statistics; wakes whoever waits for a refusal."""
        stats = self.stats
        if scheduler is None:
            return
        if iteration is not None and iteration.inter_token_latencies_iter and not iteration.time_to_first_tokens_iter:
            # By the scheduler's clock. A row that was held up has waited for longer than this step.
            self._steps.take(iteration.num_generation_tokens, min(iteration.inter_token_latencies_iter))
        stats.running, stats.waiting = scheduler.num_running_reqs, scheduler.num_waiting_reqs
        stats.prefix_cache_queries += scheduler.prefix_cache_stats.queries
        stats.prefix_cache_hits += scheduler.prefix_cache_stats.hits
        connector = scheduler.kv_connector_stats or {}
        for request, reason in connector.get("refused", ()):
            refusal = self._refusals.get(request)
            if refusal is not None and not refusal.done():
                refusal.set_result(reason)
        for name in (
            "leases",
            "leased_blocks",
            "host_blocks",
            "lease_spills",
            "lease_drops",
            "leases_leaked",
            "exports",
            "exported_bytes",
            "free_blocks",
            "preemptions",
        ):
            if name in connector:
                setattr(stats, name, connector[name])


class _StatLogger(StatLoggerBase):
    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        self._reports.take(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None:
        return
