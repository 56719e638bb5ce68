"""A model on an engine of this process."""

import asyncio
import itertools
import time
from types import TracebackType
from typing import Any, Self

from multiverse.engine.segment import Sampling
from multiverse.evaluation.accuracy.asking import (
    FORCED_STOP,
    AnswerError,
    Ask,
    Response,
    TargetError,
    closing,
    opens_thinking,
)
from multiverse.evaluation.accuracy.config import EngineTarget
from multiverse.serving.events import Finished, Result
from multiverse.serving.request import GenerationRequest, ParallelOptions
from multiverse.serving.whole import WholeEngine

_PROMPT_END = 16
"""Tokens of a prompt's end in which a tag is looked for that opens thinking."""


class EngineResponder:
    """A `Responder`. engine: one that runs already and is left running; default: its own."""

    def __init__(self, target: EngineTarget, engine: WholeEngine | None = None) -> None:
        self._target = target
        self._given = engine
        self._own: Any = None
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        if self._given is None:
            self._own = await start_engine(self._target)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._own is not None:
            await self._own.shutdown()
            self._own = None

    @property
    def _engine(self) -> WholeEngine:
        return self._own if self._given is None else self._given

    @property
    def mode(self) -> str:
        """What is asked for: without a mode of its own, what the checkpoint is trained for."""
        return self._target.mode or ("auto" if self._engine.manifest.trained else "off")

    async def answer(self, ask: Ask) -> Response:
        engine = self._engine
        begun = time.perf_counter()
        try:
            prompt = tuple(engine.tokens.chat(self._target.messages(ask.question)))
        except ValueError as error:
            raise TargetError(f"{self._target.model}: {error}") from error
        room = engine.limits.max_model_len - len(prompt)
        cue = 0 if ask.budget is None else ask.answer_tokens + len(engine.tokens.encode_plain(closing("", "math"))) + 16
        if room - cue < 1:
            raise AnswerError(f"the prompt has {len(prompt)} tokens: the context has no room behind it", False)
        # A budget is in positions: tokens do not limit it, or branches would not count as they should.
        most = room - cue if ask.max_tokens is None or ask.budget is not None else min(ask.max_tokens, room)
        prompted = engine.tokens.decode(prompt[-_PROMPT_END:])
        result = await self._generate(ask, prompt, most, self.mode, ask.budget, ())
        answered = [id for id in result.tokens if id not in engine.tokens.eos_ids]
        text = engine.tokens.decode(answered)
        response = Response(
            text=text,
            finish=result.finish,
            tokens=len(result.tokens),
            critical_path=result.critical_path,
            seconds=time.perf_counter() - begun,
            blocks=len(result.blocks),
            width=len(result.blocks[0].branches) if result.blocks else 0,
            fallbacks=result.fallbacks,
        )
        # Where the budget cut branches only, the answer came to its end, as a sequential one does before its budget.
        if ask.budget is None or result.ended:
            return response
        return await self._forced(ask, prompt + tuple(answered), response, begun, thinking=opens_thinking(prompted))

    async def _forced(
        self, ask: Ask, tokens: tuple[int, ...], so_far: Response, begun: float, thinking: bool
    ) -> Response:
        """The answer, behind thinking that its budget ended. thinking: whether the prompt had opened it."""
        engine, end = self._engine, closing(so_far.text, ask.graded_by, thinking)
        written = engine.tokens.encode_plain(end)
        result = await self._generate(ask, (*tokens, *written), ask.answer_tokens, "off", None, (FORCED_STOP,))
        tail = engine.tokens.decode([id for id in result.tokens if id not in engine.tokens.eos_ids])
        if result.stop_text is not None:
            tail = result.stop_text
        added = len(written) + len(result.tokens)
        return Response(
            text=f"{so_far.text}{end}{tail}",
            finish="budget",
            tokens=(so_far.tokens or 0) + added,
            critical_path=(so_far.critical_path or 0) + added,
            seconds=time.perf_counter() - begun,
            blocks=so_far.blocks,
            width=so_far.width,
            fallbacks=so_far.fallbacks,
            forced=True,
        )

    async def _generate(
        self,
        ask: Ask,
        prompt: tuple[int, ...],
        max_tokens: int,
        mode: str,
        positions: int | None,
        stop: tuple[str, ...],
    ) -> Result:
        number, target = next(self._numbers), self._target
        greedy = ask.temperature == 0
        request = GenerationRequest(
            id=f"{ask.suite}-{number}",
            prompt=prompt,
            sampling=Sampling(
                max_tokens,
                temperature=ask.temperature,
                top_p=1.0 if greedy else ask.top_p,
                seed=None if greedy else ask.seed,
                stop=stop,
            ),
            parallel=ParallelOptions(
                mode=mode,  # type: ignore[arg-type]
                max_width=target.max_width,
                max_depth=target.max_depth,
                max_positions=positions,
            ),
            question=ask.question,
            arrival=number,
            cache_salt="evaluation off" if mode == "off" else "evaluation",
            seen="nothing",
        )
        result: Result | None = None
        try:
            async for event in self._engine.generate(request):
                if isinstance(event, Finished):
                    result = event.result
        except RuntimeError as error:  # vLLM's and the sequencer's own errors; an engine that is gone stops the run
            await self._check(error)
            raise AnswerError(f"{type(error).__name__}: {error}") from error
        if result is None:
            raise AnswerError("the engine ended the request without a result")
        return result

    async def _check(self, error: Exception) -> None:
        """Raises TargetError if the engine is dead."""
        stats = getattr(self._engine, "stats", None)
        if stats is not None:
            try:
                await stats()
            except Exception as dead:
                raise TargetError(f"the engine of {self._target.model} is gone: {dead or error}") from error


async def start_engine(target: EngineTarget) -> Any:
    """The engine of a model, in this process. Prepares the model first if it is not. Raises ValueError."""
    from multiverse.config import AppConfig
    from multiverse.serving.local import MultiverseEngine

    config = AppConfig(model=target.model, engine=target.engine)
    return await MultiverseEngine.start(await asyncio.to_thread(config.engine_config))
