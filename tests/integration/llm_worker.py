"""A process that asks an LLM, started and killed by `test_llm_cache`: prints the answers as JSON, in order."""

import asyncio
import json
import sys

from multiverse.curation.llm.accounting import Accounting
from multiverse.curation.llm.calls import Call
from multiverse.curation.llm.client import open_llm
from multiverse.curation.llm.config import LLMConfig


def question(number: int) -> Call:
    return Call("test", ({"role": "user", "content": f"question {number}"},), None, 16)


async def main(config: LLMConfig, count: int) -> None:
    async with open_llm(config, Accounting()) as llm:
        replies = await asyncio.gather(*(llm(question(number)) for number in range(count)))
    print(json.dumps([reply.text for reply in replies]))


if __name__ == "__main__":
    asyncio.run(main(LLMConfig.model_validate_json(sys.argv[1]), int(sys.argv[2])))
