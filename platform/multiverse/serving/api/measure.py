"""Requests, and what happens in them, to metrics."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from multiverse.engine.step_times import StepCurve
from multiverse.serving.access.access import Caller
from multiverse.serving.api.speedup import Gain, GainMeter, Load
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
from multiverse.telemetry import requests as metrics
from multiverse.telemetry.engines import REPLICAS, EngineMeter, FleetMeter, batch_label
from multiverse.telemetry.recorders import Recorder, Recorders


class ServerMeter:
    """What one server process measures. ``local`` shows all of it; ``exported`` has, beside this server's, the engines'
    own recorders, and gets what is this server's only."""

    def __init__(self, local: Recorder, exported: Sequence[Recorder] = ()) -> None:
        self.recorder = Recorders([local, *exported])
        self.load = Load()
        self._engines, self._fleet = EngineMeter(local), FleetMeter(self.recorder)
        self._running = 0
        self.recorder.set(metrics.REQUESTS_RUNNING, 0)
        self.recorder.set(metrics.ADMISSION_WAITING, 0)

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

    def rejected(self, reason: str, key: str | None = None) -> None:
        self.recorder.inc(metrics.REJECTIONS, reason=reason)
        if key is not None:
            self.recorder.inc(metrics.KEY_REJECTIONS, key=key, reason=reason)

    def admitted(self, seconds: float) -> None:
        """A request waited so long for its turn."""
        self.recorder.observe(metrics.ADMISSION_SECONDS, seconds)

    def begun(self, key: str | None, prompt_tokens: int) -> None:
        """An admitted request was in order."""
        if key is not None:
            self.recorder.inc(metrics.KEY_REQUESTS, key=key)
            self.recorder.inc(metrics.KEY_TOKENS, prompt_tokens, key=key, kind="prompt")

    def account(self, caller: Caller) -> None:
        """What the caller's key uses now, and its limits."""
        if caller.name is None:
            return
        self.recorder.set(metrics.KEY_RUNNING, caller.account.running, key=caller.name)
        for limit in ("concurrency", "tokens_per_minute", "max_width"):
            if (value := getattr(caller.account.limits, limit)) is not None:
                self.recorder.set(metrics.KEY_LIMIT, value, key=caller.name, limit=limit)

    @contextmanager
    def accounted(self, caller: Caller) -> Iterator[None]:
        """Around a request: shows that it is over."""
        try:
            yield
        finally:
            self.account(caller)

    def unreachable(self) -> None:
        """No engine tells how it is."""
        self.recorder.set(REPLICAS, 0)

    def engine(self, stats: Mapping[str, Any]) -> None:
        """Take in the engine's own figures."""
        self._engines.take(stats)
        self._fleet.take(stats)
        self.load.update(StepCurve.of(stats.get("steps", ())), stats.get("running", 0), stats.get("replicas", 1))


class RequestMeter:
    """What one request measures. End it with ``ended``, in any case."""

    def __init__(self, server: ServerMeter, mode: str, key: str | None) -> None:
        self._server = server
        self._recorder = server.recorder
        self._mode = mode
        self._key = key
        self._made = 0
        self._outcome = "cancelled"
        self._fell_back = False
        self._began = time.monotonic()
        self._gain = GainMeter(server.load)
        self.gain: Gain | None = None
        """What going parallel gained, known when the request has ended well."""
        self._last_branch: dict[int, float] = {}
        self._joining: dict[Place, float] = {}

    def event(self, event: Event) -> None:
        if isinstance(event, TokensAdded):
            if not self._made:
                self._recorder.observe(metrics.FIRST_TOKEN_SECONDS, time.monotonic() - self._began, mode=self._mode)
            self._made += len(event.tokens)
            self._gain.tokens(len(event.tokens), event.written)
        match event:
            case TokensAdded(place=place, written=False) if place in self._joining:
                self._recorder.observe(metrics.JOIN_SECONDS, time.monotonic() - self._joining.pop(place))
            case BlockForked():
                self._gain.branches(len(event.outlines) - 1)
                self._recorder.inc(metrics.FORKS)
                self._recorder.observe(metrics.FORK_WIDTH, len(event.outlines))
                self._recorder.observe(metrics.BLOCK_DEPTH, len(event.place) + 1)
            case BranchRetried():
                self._recorder.inc(metrics.BRANCHES_RETRIED, reason="late")
            case BranchFinished():
                self._recorder.observe(metrics.BRANCH_SECONDS, event.milliseconds / 1000)
                self._gain.branches(-1)
                self._last_branch[event.place[-1][0]] = time.monotonic()
            case BlockJoined():
                self._gain.branches(1)
                self._recorder.inc(metrics.JOINS)
                self._joining[event.place] = self._last_branch.pop(event.block)
            case FellBack() if not self._fell_back:
                self._fell_back = True
                self._recorder.inc(metrics.FALLBACKS, reason=event.reason)
            case Finished(result=result):
                self._outcome = result.finish
                self._recorder.inc(metrics.TOKENS, len(result.tokens), mode=self._mode)
                self._recorder.inc(metrics.CRITICAL_PATH_TOKENS, result.critical_path, mode=self._mode)
                self._recorder.observe(metrics.PARALLELISM, result.parallelism, mode=self._mode)
                self._speedup(result.critical_path)

    def _speedup(self, critical_path: int) -> None:
        self.gain = gain = self._gain.gain(critical_path)
        if gain is None:
            return
        labels = {"mode": self._mode, "batch": batch_label(gain.batch)}
        self._recorder.observe(metrics.SPEEDUP, gain.speedup, **labels)
        self._recorder.inc(metrics.SEQUENTIAL_SECONDS, gain.sequential, **labels)
        self._recorder.inc(metrics.GENERATION_SECONDS, gain.taken, **labels)
        self._recorder.inc(metrics.EXPECTED_SECONDS, gain.expected, **labels)

    def refused(self) -> None:
        """What it asks for cannot be had; the engine is well."""
        self._outcome = "refused"

    def failed(self) -> None:
        self._outcome = "error"

    def ended(self) -> None:
        self._gain.ended()
        self._recorder.inc(metrics.REQUESTS, mode=self._mode, outcome=self._outcome)
        self._recorder.observe(metrics.REQUEST_SECONDS, time.monotonic() - self._began, mode=self._mode)
        if self._key is not None:
            self._recorder.inc(metrics.KEY_TOKENS, self._made, key=self._key, kind="completion")
        self._server.ended()
