"""`VllmEngine`: runs segments on stock vLLM, and rebuilds KV that may not be computed as plain text.

segment --submit--> vLLM request --tokens--> deltas
             ^            |
             |      refused by the guard (KV of a closed block is missing)
             |            v
             +-- leases -- rebuild: prefix, each branch as a prefill-only request, join; innermost block first
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from multiverse.engine.config import EngineConfig
from multiverse.engine.connector import EXPORTED, RELEASE
from multiverse.engine.masks import Rules
from multiverse.engine.rebuild import Rebuilder
from multiverse.engine.references import KVReference
from multiverse.engine.reports import EngineStats, Reports
from multiverse.engine.resume import Resumption
from multiverse.engine.segment import Delta, Export, Finish, Fork, Placed, Sampling, Segment, TokenLogprob
from multiverse.engine.transfer import Adopted, Directions
from multiverse.engine.transfers import Transfers
from multiverse.engine.vllm_setup import start_vllm
from multiverse.models.manifest import Manifest
from multiverse.models.tokens import Tokens
from multiverse.structure.layout import layout

MAX_ATTEMPTS = 64
"""How often one segment may be refused before the engine says that its KV cache is too small."""

SHUTDOWN_SECONDS = 60.0


class EngineError(RuntimeError):
    """vLLM failed a segment, or the KV cache is too small for it."""


class VllmEngine:
    """A `SegmentEngine` over one vLLM instance. Make it with `start`, end it with `shutdown`.

    end_ids: ids that end a sequence. kv_tokens: size of the KV cache. max_model_len: tokens of one sequence, joined
    branches included.
    """

    def __init__(self, config: EngineConfig, llm: AsyncLLM, reports: Reports, transfers: Transfers) -> None:
        self.config = config
        self.manifest = Manifest.load(config.model)
        self.vocabulary = self.manifest.vocabulary()
        self.end_ids = Tokens.load(config.model).eos_ids
        self.max_model_len: int = llm.model_config.max_model_len
        cache = llm.vllm_config.cache_config
        self.block_size: int = cache.block_size
        self.kv_tokens: int = (cache.num_gpu_blocks or 0) * cache.block_size
        self.transfers = transfers
        self._llm = llm
        self._reports = reports
        self._rebuilder = Rebuilder(self, self.vocabulary)
        self._draining: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    @classmethod
    async def start(cls, config: EngineConfig) -> "VllmEngine":
        """Start vLLM and, unless switched off, run the self-test.

        Raises ValueError for settings the engine cannot work with, and SelfTestError.
        """
        reports, transfers = Reports(), Transfers(config)
        engine = cls(config, start_vllm(config, reports.logger, transfers.arena), reports, transfers)
        if config.self_test:
            from multiverse.engine.self_test import self_test

            try:
                await self_test(engine)
            except BaseException:
                engine.shutdown()
                raise
        return engine

    @property
    def stats(self) -> EngineStats:
        return self._reports.stats

    @property
    def figures(self) -> dict[str, Any]:
        """All of `EngineStats`, and what metrics need beside it. steps: see `multiverse.engine.step_times`."""
        return asdict(self.stats) | {
            "steps": self._reports.steps,
            "block_bytes": self.transfers.block_bytes,
            "kv_usage": 1 - self.free_tokens / self.kv_tokens,
        }

    @property
    def free_tokens(self) -> int:
        """Tokens of KV cache that nobody holds; before the first step nothing is reported, and nothing used."""
        blocks = self.stats.free_blocks
        return self.kv_tokens if blocks is None else blocks * self.block_size

    def shutdown(self) -> None:
        for task in self._draining:
            task.cancel()
        # vLLM kills what has not ended after this time, and what is killed leaves its shared memory behind.
        self._llm.shutdown(timeout=SHUTDOWN_SECONDS)
        self.transfers.close()

    async def check_health(self) -> None:
        """Raises vLLM's EngineDeadError if its processes are gone."""
        await self._llm.check_health()

    # ---- segments -------------------------------------------------------------------------------------------------

    async def run(self, segment: Segment) -> AsyncGenerator[Delta, None]:
        """Run one segment (see `SegmentEngine`). Raises EngineError if vLLM fails it."""
        if layout(self.vocabulary.kinds(segment.tokens)).guarded == len(segment.tokens) > 0:
            raise ValueError(
                f"segment {segment.id} ends with a branch that has siblings: nothing can be generated there"
            )
        progress = Resumption(segment)
        rebuilt: list[str] = []
        self.transfers.expect(segment.exports)
        try:
            found = [await self.transfers.adopt(*item) for item in segment.adopted]
            adopted = tuple(item for item in found if item is not None)
            current = segment
            for _ in range(MAX_ATTEMPTS):
                reason = None
                async with aclosing(self._attempt(current, adopted)) as attempt:
                    async for item in attempt:
                        if isinstance(item, str):
                            reason = item
                            break
                        if (delta := progress.take(item)) is not None:
                            yield delta
                        if item.finish is not None:
                            return
                if reason is None:
                    raise EngineError(f"segment {segment.id}: vLLM ended it without a reason")
                self.stats.rebuilds[reason] = self.stats.rebuilds.get(reason, 0) + 1
                await self.release(rebuilt)
                current = progress.attempt()
                sources, rebuilt = await self._rebuilder.rebuild(list(current.tokens), segment)
                current = replace(current, sources=tuple(sources), release=(*segment.release, *rebuilt))
        finally:
            if not progress.delivered or progress.delivered[-1] != segment.closer:
                self.transfers.give_up(segment.exports)
            if rebuilt:
                await self.release(rebuilt)
        raise EngineError(
            f"segment {segment.id}: the KV of its closed blocks was evicted {MAX_ATTEMPTS} times while it was rebuilt; "
            "the KV cache is too small for the running requests"
        )

    async def release(self, leases: Sequence[str]) -> None:
        """Give leases back. Of a segment that still runs, the lease will not be made."""
        if leases:
            self.transfers.forget(leases)
            params = Directions(segment=RELEASE, owner=0, release=tuple(leases)).to_params()
            await self._llm.notify_kv_transfer_request_rejected(f"{RELEASE}{next(self._numbers)}", params)

    def place(self, fork: Fork) -> Placed:
        return Placed(("",) * fork.width)

    def elsewhere(self, replica: str) -> str:
        return replica

    async def export(self, lease: str, start: int, like: Segment) -> KVReference | None:
        """Make the KV that a held lease has from token ``start`` on readable for other engines, for ``like``'s request.

        None where there is no such lease, or no room. To be released by the reference's id.
        """
        id = f"export-{next(self._numbers)}"
        segment = Segment(
            id,
            like.tokens[:1],
            Sampling(max_tokens=1, temperature=0.0),
            exports=(Export(id, lease, start),),
            priority=like.priority,
            cache_salt=like.cache_salt,
        )
        async for _ in self.run(segment):
            pass
        return await self.transfers.exported(id)

    async def _attempt(self, segment: Segment, adopted: tuple[Adopted, ...]) -> AsyncGenerator[Delta | str, None]:
        """One vLLM request for a segment: its deltas, or the reason for which the guard refused it."""
        key = f"{segment.id}@{next(self._numbers)}"
        refusal = self._reports.refusal(key)
        outputs = self._llm.generate(
            TokensPrompt(prompt_token_ids=list(segment.tokens), cache_salt=segment.cache_salt or None),
            self._params(segment, key, adopted),
            request_id=key,
            priority=segment.priority,
        )
        drained = False
        step: asyncio.Task[RequestOutput] | None = None
        try:
            count, text = 0, ""
            while True:
                step = asyncio.ensure_future(anext(outputs))
                await asyncio.wait((step, refusal), return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    yield refusal.result()
                    return
                try:
                    output = step.result()
                    completion = output.outputs[0]
                    self._take_exports(segment, output)
                except VLLMClientError as error:
                    raise ValueError(str(error)) from error
                step = None
                text += completion.text
                if completion.finish_reason in ("abort", "error"):
                    raise EngineError(f"segment {segment.id}: vLLM reports {completion.finish_reason!r}")
                delta = self._delta(segment, completion, text)
                count += len(delta.tokens)
                if segment.closer is not None and segment.closer in delta.tokens:
                    delta = replace(delta, finish="stop", forced=count >= segment.sampling.max_tokens)
                    self._drain(segment, outputs, key, refusal)
                    drained = True
                if delta.tokens or delta.finish is not None:
                    yield delta
                if delta.finish is not None:
                    return
        finally:
            if not drained:
                self._reports.forget(key)
                if step is not None:
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
                await outputs.aclose()

    def _take_exports(self, segment: Segment, output: RequestOutput) -> None:
        if segment.exports and output.kv_transfer_params:
            self.transfers.take(segment.exports, output.kv_transfer_params.get(EXPORTED, {}))

    def _drain(self, segment: Segment, outputs: Any, key: str, refusal: "asyncio.Future[str]") -> None:
        """Let a branch take its last step, which makes its closer's KV, without anybody waiting for it.

        If it is refused there (preempted, its prefix evicted) it is aborted; the join then rebuilds it.
        """

        async def rest() -> None:
            async for output in outputs:
                self._take_exports(segment, output)

        async def drain() -> None:
            last = asyncio.ensure_future(rest())
            try:
                await asyncio.wait((last, refusal), return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._reports.forget(key)
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)
                await outputs.aclose()
                self.transfers.give_up(segment.exports)

        task = asyncio.create_task(drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    def _delta(self, segment: Segment, completion: Any, text: str) -> Delta:
        tokens = list(completion.token_ids)
        logprobs = completion.logprobs
        finish: Finish | None = completion.finish_reason
        if segment.prefill_only:
            return Delta((), finish="stop")
        if segment.closer in tokens:
            tokens = tokens[: tokens.index(segment.closer) + 1]
        elif finish == "stop" and tokens and tokens[-1] in self.end_ids:
            tokens.pop()
        return Delta(
            tuple(tokens),
            tuple(itertools.starmap(_logprob, zip(tokens, logprobs, strict=False))) if logprobs is not None else None,
            finish,
            text=text if finish is not None and segment.sampling.stop else None,
        )

    def _params(self, segment: Segment, key: str, adopted: tuple[Adopted, ...]) -> SamplingParams:
        sampling = segment.sampling
        closes = segment.closer is not None
        leasing = (segment.closer,) if segment.closer is not None else ()
        directions = Directions(
            segment=key,
            owner=segment.priority,
            lease=segment.lease,
            leasing_ids=(*segment.stop_ids, *leasing),
            always_lease=segment.prefill_only,
            sources=segment.sources,
            release=segment.release,
            adopted=adopted,
            exports=segment.exports,
        )
        masked = (*segment.masked, *self.end_ids) if sampling.ignore_eos else segment.masked
        rules = Rules(masked, segment.closer, self.end_ids, sampling.max_tokens)
        constrained = sampling.regex or sampling.json_schema or sampling.json_object
        return SamplingParams(
            max_tokens=1 if segment.prefill_only else sampling.max_tokens + closes,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            logprobs=sampling.logprobs,
            min_tokens=sampling.min_tokens,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=sampling.logit_bias,
            stop=list(sampling.stop) or None,
            stop_token_ids=[*segment.stop_ids, *self.end_ids],
            structured_outputs=StructuredOutputsParams(
                regex=sampling.regex, json=sampling.json_schema, json_object=sampling.json_object or None
            )
            if constrained
            else None,
            detokenize=bool(sampling.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"kv_transfer_params": directions.to_params(), **rules.to_extra()},
        )


def _logprob(token: int, position: dict[int, Any]) -> TokenLogprob:
    top = tuple((id, entry.logprob) for id, entry in sorted(position.items(), key=lambda item: item[1].rank))
    return TokenLogprob(token, position[token].logprob, top)
