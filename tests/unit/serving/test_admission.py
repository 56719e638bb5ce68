"""The queue before the engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multiverse.serving.access.admission import Admission, AdmissionLimits, Pressure
from multiverse.serving.access.refusals import Overloaded


class Scene:
    """Requests by name; ``log`` has them in the order in which they were admitted."""

    def __init__(self, max_running: int = 1, max_waiting: int = 8, **limits: float) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self.refused: dict[str, Overloaded] = {}
        self.admission = Admission(
            AdmissionLimits(max_running, max_waiting, **limits),  # type: ignore[arg-type]
            lambda: self.now,
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def arrive(self, *names: str, weight: int = 1) -> None:
        """``a2``: a request of tenant a."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._request(name, weight))
            await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settle()

    async def cancel(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await settle()

    async def _request(self, name: str, weight: int) -> None:
        try:
            async with self.admission.admit(name[0], weight):
                self.log.append(name)
                await self._ends[name].wait()
        except Overloaded as error:
            self.refused[name] = error

    async def finish(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        assert (self.admission.running, self.admission.waiting) == (0, 0)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def scene(max_running: int = 1, max_waiting: int = 8, **limits: float) -> AsyncIterator[Scene]:
    """Ends with nothing running and nothing waiting, or the test fails."""
    made = Scene(max_running, max_waiting, **limits)
    yield made
    await made.finish()


async def test_requests_run_up_to_the_cap_and_the_rest_waits() -> None:
    async with scene(max_running=2) as s:
        await s.arrive("a1", "a2", "a3")
        assert (s.log, s.admission.running, s.admission.waiting) == (["a1", "a2"], 2, 1)
        await s.end("a2")
        assert s.log == ["a1", "a2", "a3"]


async def test_one_tenant_is_served_in_the_order_of_arrival() -> None:
    async with scene() as s:
        await s.arrive("a1", "a2", "a3")
        await s.end("a1", "a2")
        assert s.log == ["a1", "a2", "a3"]


async def test_tenants_take_turns() -> None:
    async with scene() as s:
        await s.arrive("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        await s.end("a1", "a2", "b1", "c1", "a3", "b2")
        assert s.log == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_newcomer_does_not_overtake() -> None:
    async with scene(max_running=2) as s:
        await s.arrive("a1")
        await s.arrive("a2", weight=2)
        await s.arrive("b1")
        assert s.log == ["a1"]
        await s.end("a1", "a2")
        assert s.log == ["a1", "a2", "b1"]


async def test_request_heavier_than_the_cap_runs_alone() -> None:
    async with scene(max_running=2) as s:
        await s.arrive("a1", weight=5)
        await s.arrive("a2")
        assert (s.log, s.admission.running) == (["a1"], 2)
        await s.end("a1")
        assert s.log == ["a1", "a2"]


async def test_full_queue_refuses() -> None:
    async with scene(max_waiting=2) as s:
        await s.arrive("a1", "a2", "a3", "a4")
        refused = s.refused["a4"]
        assert (refused.reason, refused.message) == (
            "queue_full",
            "the server has no room: 1 generations are running and 2 requests are waiting",
        )
        await s.end("a1", "a2")
        assert s.log == ["a1", "a2", "a3"]


async def test_no_queue_at_all() -> None:
    async with scene(max_waiting=0) as s:
        await s.arrive("a1", "b1")
        assert (s.log, list(s.refused)) == (["a1"], ["b1"])


async def test_tenant_that_fills_the_queue_makes_room_for_another() -> None:
    async with scene(max_waiting=3) as s:
        await s.arrive("a1", "a2", "a3", "a4", "b1")
        assert list(s.refused) == ["a4"]
        await s.arrive("b2", "c1")
        assert list(s.refused) == ["a4", "b2", "a3"]
        await s.end("a1", "a2", "b1")
        assert s.log == ["a1", "a2", "b1", "c1"]


async def test_retry_after_is_what_the_queue_took_lately() -> None:
    async with scene(max_running=2, max_waiting=3) as s:
        await s.arrive("a1")
        s.now = 6.0
        await s.end("a1")
        await s.arrive("a2")
        s.now = 16.0
        await s.end("a2")
        await s.arrive("a3", "a4", "a5", "a6", "a7", "a8")
        assert s.refused["a8"].retry_after == 16.0  # a mean of 8 s, three before it and itself, two at a time


async def test_retry_after_is_a_second_before_anything_was_measured() -> None:
    async with scene(max_waiting=0) as s:
        await s.arrive("a1", "a2")
        assert s.refused["a2"].retry_after == 1.0


async def test_retry_after_is_at_most_five_minutes() -> None:
    async with scene(max_waiting=0) as s:
        await s.arrive("a1")
        s.now = 5000.0
        await s.end("a1")
        await s.arrive("a2", "a3")
        assert s.refused["a3"].retry_after == 300.0


async def test_cancelled_waiter_leaves_the_queue() -> None:
    async with scene(max_waiting=1) as s:
        await s.arrive("a1", "a2")
        await s.cancel("a2")
        assert s.admission.waiting == 0
        await s.arrive("a3")
        await s.end("a1")
        assert s.log == ["a1", "a3"]


async def test_cancelled_heavy_waiter_lets_the_next_one_in() -> None:
    async with scene(max_running=2) as s:
        await s.arrive("a1")
        await s.arrive("a2", weight=2)
        await s.arrive("b1")
        await s.cancel("a2")
        assert s.log == ["a1", "b1"]


async def test_cancelled_request_gives_its_place_back() -> None:
    async with scene() as s:
        await s.arrive("a1", "a2")
        await s.cancel("a1")
        assert s.log == ["a1", "a2"]


async def test_waiter_cancelled_in_the_moment_it_is_admitted_gives_its_place_back() -> None:
    async with scene() as s:
        await s.arrive("a1", "a2", "a3")
        s._ends["a1"].set()
        while s.admission.waiting == 2:
            await asyncio.sleep(0)
        await s.cancel("a2")
        assert s.log == ["a1", "a3"]


async def test_waiter_cancelled_before_its_turn_is_passed_over() -> None:
    async with scene() as s:
        await s.arrive("a1", "a2", "a3")
        await s.cancel("a1", "a2")
        assert s.log == ["a1", "a3"]


async def test_full_kv_cache_holds_new_requests() -> None:
    async with scene(max_running=8, kv_high_water=0.9) as s:
        await s.arrive("a1")
        s.admission.update(Pressure(0.9))
        await s.arrive("a2")
        assert s.log == ["a1"]
        s.admission.update(Pressure(0.4))
        await settle()
        assert s.log == ["a1", "a2"]


async def test_full_kv_cache_is_the_reason_of_a_full_queue() -> None:
    async with scene(max_running=8, max_waiting=0) as s:
        await s.arrive("a1")
        s.admission.update(Pressure(0.95))
        await s.arrive("a2")
        assert (s.refused["a2"].reason, s.refused["a2"].message) == (
            "kv",
            "the server has no room: the KV cache is full and 0 requests are waiting",
        )


async def test_figures_of_a_time_before_hold_nobody_when_nothing_runs() -> None:
    async with scene(max_running=8) as s:
        s.admission.update(Pressure(1.0, 99))
        await s.arrive("a1")
        assert s.log == ["a1"]


async def test_requests_admitted_since_the_figures_count_like_the_mean() -> None:
    async with scene(max_running=8, kv_high_water=0.9) as s:
        await s.arrive("a1", "a2")
        s.admission.update(Pressure(0.5))
        await s.arrive("a3", "a4", "a5")
        assert s.log == ["a1", "a2", "a3", "a4"]  # 0.5, 0.75, 1.0


async def test_rows_that_wait_in_the_engine_hold_new_requests() -> None:
    async with scene(max_running=8, max_waiting_rows=4) as s:
        await s.arrive("a1")
        s.admission.update(Pressure(0.1, 4))
        await s.arrive("a2")
        assert s.log == ["a1"]
        s.admission.update(Pressure(0.1, 3))
        await settle()
        assert s.log == ["a1", "a2"]
