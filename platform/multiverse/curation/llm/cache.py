"""Answers kept on disk, so that no call is paid for twice.

A file per answer, renamed into place: whole or not there, no locks between processes, fit for network volumes too.
"""

import asyncio
import hashlib
import itertools
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import LLM, Call, Reply

logger = logging.getLogger(__name__)

_REPLY = TypeAdapter(Reply)
_numbers = itertools.count()


class Cache:
    """Answers of one model in a directory, which other processes and models may use too.

    model: all that decides what a call is answered, beside the call.
    """

    def __init__(self, directory: Path, model: str) -> None:
        self._directory = directory
        self._model = model

    def key(self, call: Call) -> str:
        """SHA-256 of model and call, hexadecimal. The order of a schema's properties counts: answers follow it."""
        return hashlib.sha256(json.dumps([self._model, asdict(call)]).encode()).hexdigest()

    def get(self, key: str) -> Reply | None:
        """The answer as it was put, marked as cached; None if there is none that can be read."""
        path = self._path(key)
        try:
            return replace(_REPLY.validate_json(path.read_bytes()), cached=True)
        except FileNotFoundError:
            return None
        except ValidationError:
            logger.warning("%s is damaged: the call is made again", path)
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Once this returns, every process finds the answer, whatever ends this one."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never read: a process that dies here leaves it behind.
        partial = path.with_name(f".{key}.{os.getpid()}.{next(_numbers)}.partial")
        partial.write_bytes(_REPLY.dump_json(reply))
        partial.replace(path)

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"


class Cached:
    """An `LLM` that asks ``llm`` only what the cache does not know, and at the same time only once. One event loop."""

    def __init__(self, llm: LLM, cache: Cache, accounting: Accounting) -> None:
        self._llm = llm
        self._cache = cache
        self._accounting = accounting
        self._asked: dict[str, asyncio.Task[Reply]] = {}

    async def __call__(self, call: Call) -> Reply:
        """Raises LLMError; an error is not kept."""
        key = self._cache.key(call)
        if (asked := self._asked.get(key)) is not None:
            reply = replace(await asyncio.shield(asked), cached=True)
        else:
            # A task of its own: that this caller goes must not take the answer from others, who paid for it.
            asked = self._asked[key] = asyncio.create_task(self._ask(key, call))
            asked.add_done_callback(lambda task: self._forget(key, task))
            reply = await asyncio.shield(asked)
        if reply.cached:
            self._accounting.of(call.stage).cached += 1
        return reply

    async def aclose(self) -> None:
        """Give up what nobody waits for any more."""
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, key: str, call: Call) -> Reply:
        if (known := await asyncio.to_thread(self._cache.get, key)) is not None:
            return known
        reply = await self._llm(call)
        await asyncio.to_thread(self._cache.put, key, reply)
        return reply

    def _forget(self, key: str, task: asyncio.Task[Reply]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits
