"""A row's questions to the LLM, one behind the other, each asked again with the checker's message if need be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from multiverse.curation.chain.replies import PlanError
from multiverse.curation.llm.calls import LLM, Call, EndpointError, LLMError
from multiverse.curation.stages.outcome import RowRejectedError, Spent
from multiverse.curation.stages.prompts import Prompts

Answer = TypeVar("Answer")
_LONGEST_REASON = 600


@dataclass(frozen=True, slots=True)
class Asking:
    """How stages ask. tries: answers asked for before a row is given up. max_tokens: of an answer."""

    tries: int = 3
    max_tokens: int = 4096
    temperature: float | None = 0.0


class Conversation:
    """One row's. Each question stands behind those before and their accepted answers, so that all calls of a row begin
    alike, which endpoints that cache prefixes compute (and charge) once.

    ``spent`` grows with every answer, refused ones included.
    """

    def __init__(self, llm: LLM, prompts: Prompts, asking: Asking, spent: Spent) -> None:
        self._llm = llm
        self._prompts = prompts
        self._asking = asking
        self.spent = spent
        self._messages: tuple[dict[str, str], ...] = (_message("system", prompts.fill("system")),)

    async def ask(
        self,
        stage: str,
        question: str,
        read: Callable[[str], Answer],
        schema: dict[str, Any] | None = None,
        keep: bool = True,
        refused: tuple[str, str] | None = None,
    ) -> Answer:
        """What ``read`` makes of the answer. keep: later questions stand behind this one.

        refused: an answer to the same question that came before, and the reason why another is asked for.
        read: raises PlanError for an answer that cannot be used; the LLM is shown its message and asked again.
        Raises RowRejectedError if no answer can be used or the LLM gives none, EndpointError if it takes no calls.
        """
        asked = (*self._messages, _message("user", question))
        messages, reason = asked if refused is None else self._again(asked, *refused), ""
        for _ in range(self._asking.tries):
            call = Call(stage, messages, schema, self._asking.max_tokens, self._asking.temperature)
            try:
                reply = await self._llm(call)
            except EndpointError:
                raise
            except LLMError as error:
                raise RowRejectedError(stage, str(error), error.retryable) from error
            self.spent.add(stage, reply)
            try:
                answer = read(reply.text)
            except PlanError as error:
                reason = str(error)[:_LONGEST_REASON]
                messages = self._again(asked, reply.text, reason)
                continue
            if keep:
                self._messages = (*asked, _message("assistant", reply.text))
            return answer
        raise RowRejectedError(stage, f"no answer could be used in {self._asking.tries} tries; the last: {reason}")

    def _again(self, asked: tuple[dict[str, str], ...], answer: str, reason: str) -> tuple[dict[str, str], ...]:
        refusal = self._prompts.fill("refused", reason=reason)
        return (*asked, _message("assistant", answer), _message("user", refusal))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
