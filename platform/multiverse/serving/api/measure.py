"""Requests, and what happens in them, to metrics."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from multiverse.serving.events import (
    BlockForked,
    BlockJoined,
    BranchFinished,
    BranchRetried,
    Event,
    FellBack,
    Finished,
    Place,
    TokensAdded,
)
from multiverse.telemetry import metrics
from multiverse.telemetry.metrics import Metric, Recorder


class Recorders:
    """Several recorders as one."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = recorders

    def inc(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.inc(metric, amount, **labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.set(metric, value, **labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        for recorder in self._recorders:
            recorder.observe(metric, value, **labels)


class ServerMeter:
    """What one server process measures."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._running = 0
        self._counted: dict[tuple[Metric, tuple[str, ...]], float] = {}
        recorder.set(metrics.REQUESTS_RUNNING, 0)
        recorder.set(metrics.ADMISSION_WAITING, 0)

    def started(self, mode: str, key: str | None = None) -> "RequestMeter":
        """``key``: the name of the caller's key, if it has one."""
        self._running += 1
        self.recorder.set(metrics.REQUESTS_RUNNING, self._running)
        return RequestMeter(self, mode, key)

    def ended(self) -> None:
        self._running -= 1
        self.recorder.set(metrics.REQUESTS_RUNNING, self._running)

    def waiting(self, requests: int) -> None:
        self.recorder.set(metrics.ADMISSION_WAITING, requests)

    def rejected(self, reason: str) -> None:
        self.recorder.inc(metrics.REJECTIONS, reason=reason)

    def admitted(self, key: str | None, prompt_tokens: int) -> None:
        if key is not None:
            self.recorder.inc(metrics.KEY_REQUESTS, key=key)
            self.recorder.inc(metrics.KEY_TOKENS, prompt_tokens, key=key, kind="prompt")

    def engine(self, stats: Mapping[str, Any]) -> None:
        """Take in the engine's own figures. Its counters run from its start; what is new is added."""
        self.recorder.set(metrics.LEASES, stats.get("leases", 0))
        self.recorder.set(metrics.LEASED_BLOCKS, stats.get("leased_blocks", 0))
        self._count(metrics.LEASE_SPILLS, stats.get("lease_spills", 0))
        self._count(metrics.LEASE_DROPS, stats.get("lease_drops", 0))
        self._count(metrics.LEASES_LEAKED, stats.get("leases_leaked", 0))
        for reason, total in stats.get("rebuilds", {}).items():
            self._count(metrics.REBUILDS, total, reason=reason)
        self.recorder.set(metrics.REPLICAS, stats.get("replicas", 1))
        self.recorder.set(metrics.SEGMENTS_WAITING, stats.get("queued_segments", 0))
        self._count(metrics.REPLICAS_LOST, stats.get("replicas_lost", 0))
        self._count(metrics.BRANCHES_RETRIED, stats.get("branches_resumed", 0), reason="lost")
        for distance, total in stats.get("kv_moved_bytes", {}).items():
            self._count(metrics.KV_MOVED, total, distance=distance)
        for outcome, total in stats.get("placements", {}).items():
            self._count(metrics.PLACEMENTS, total, policy=stats["placement"], outcome=outcome)

    def _count(self, metric: Metric, total: float, **labels: str) -> None:
        key = (metric, tuple(labels.values()))
        self.recorder.inc(metric, max(0.0, total - self._counted.get(key, 0.0)), **labels)
        self._counted[key] = total


class RequestMeter:
    """What one request measures. End it with ``ended``, in any case."""

    def __init__(self, server: ServerMeter, mode: str, key: str | None) -> None:
        self._server = server
        self._recorder = server.recorder
        self._mode = mode
        self._key = key
        self._made = 0
        self._outcome = "cancelled"
        self._last_branch: dict[int, float] = {}
        self._joining: dict[Place, float] = {}

    def event(self, event: Event) -> None:
        if isinstance(event, TokensAdded):
            self._made += len(event.tokens)
        match event:
            case TokensAdded(place=place, written=False) if place in self._joining:
                self._recorder.observe(metrics.JOIN_SECONDS, time.monotonic() - self._joining.pop(place))
            case BlockForked():
                self._recorder.inc(metrics.FORKS)
                self._recorder.observe(metrics.FORK_WIDTH, len(event.outlines))
                self._recorder.observe(metrics.BLOCK_DEPTH, len(event.place) + 1)
            case BranchRetried():
                self._recorder.inc(metrics.BRANCHES_RETRIED, reason="late")
            case BranchFinished():
                self._recorder.observe(metrics.BRANCH_SECONDS, event.milliseconds / 1000)
                self._last_branch[event.place[-1][0]] = time.monotonic()
            case BlockJoined():
                self._recorder.inc(metrics.JOINS)
                self._joining[event.place] = self._last_branch.pop(event.block)
            case FellBack():
                self._recorder.inc(metrics.FALLBACKS, reason=event.reason)
            case Finished(result=result):
                self._outcome = result.finish
                self._recorder.inc(metrics.TOKENS, len(result.tokens), mode=self._mode)
                self._recorder.inc(metrics.CRITICAL_PATH_TOKENS, result.critical_path, mode=self._mode)
                self._recorder.observe(metrics.PARALLELISM, result.parallelism, mode=self._mode)

    def failed(self) -> None:
        self._outcome = "error"

    def ended(self) -> None:
        self._recorder.inc(metrics.REQUESTS, mode=self._mode, outcome=self._outcome)
        if self._key is not None:
            self._recorder.inc(metrics.KEY_TOKENS, self._made, key=self._key, kind="completion")
        self._server.ended()
