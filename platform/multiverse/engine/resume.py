"""Going on with a segment whose engine request is lost, behind the tokens that were delivered already."""

from dataclasses import replace

from multiverse.engine.segment import Delta, Sampling, Segment


class Diverged(RuntimeError):
    """A segment that had to start again wrote other tokens than those that were delivered."""


def follows_output(sampling: Sampling) -> bool:
    """Whether the next token depends on more than the tokens before it: on which of them are output."""
    return bool(
        sampling.stop
        or sampling.regex
        or sampling.json_schema
        or sampling.json_object
        or sampling.min_tokens
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.repetition_penalty != 1
    )


class Resumption:
    """One segment over any number of attempts.

    Most segments go on: the delivered tokens become part of the prompt. Those that follow their output start again,
    and the tokens that were delivered are left out; with a seed these are the same, and where they are not, Diverged
    is raised.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.delivered: list[int] = []
        self._again = follows_output(segment.sampling)
        self._skip: list[int] = []

    def attempt(self) -> Segment:
        """What to run now."""
        done = len(self.delivered)
        if self._again:
            self._skip = list(self.delivered)
            return self.segment
        return replace(
            self.segment,
            tokens=(*self.segment.tokens, *self.delivered),
            sampling=replace(self.segment.sampling, max_tokens=self.segment.sampling.max_tokens - done),
        )

    def take(self, delta: Delta) -> Delta | None:
        """What of an attempt's delta is new; None if nothing is."""
        repeated = min(len(self._skip), len(delta.tokens))
        if repeated:
            if list(delta.tokens[:repeated]) != self._skip[:repeated]:
                raise Diverged(f"segment {self.segment.id} was started again and wrote other tokens than before")
            del self._skip[:repeated]
            logprobs = delta.logprobs[repeated:] if delta.logprobs is not None else None
            delta = replace(delta, tokens=delta.tokens[repeated:], logprobs=logprobs)
            if not delta.tokens and delta.finish is None:
                return None
        self.delivered += delta.tokens
        return delta
