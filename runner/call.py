"""One call through its attempts: what it asks for, when it began, how often it was sent. Knows not when it may be."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runner.config import GenerationParams
from runner.providers.base import UNREACHABLE, CallError
from runner.records import ErrorInfo, Failure, Outcome, Prompt, Stopwatch, Timing

_CHARACTERS_A_TOKEN, _TOKENS_A_MESSAGE = 4, 4
"""A rule of thumb for English, for limits per minute; what counts is the service's own count."""
_MOST_TEMPLATE_TOKENS = 32
"""More than a chat template adds to a message: its role, its marks, and a default system message."""


def estimate_tokens(prompt: Prompt) -> int:
    """Return about how many tokens a prompt is, without a tokenizer."""
    characters = sum(len(message.content) for message in prompt.messages)
    return characters // _CHARACTERS_A_TOKEN + _TOKENS_A_MESSAGE * len(prompt.messages)


def most_tokens(prompt: Prompt) -> int:
    """Return what a prompt's tokens will not pass: a byte-level tokenizer makes at most one of a byte."""
    return sum(
        len(message.content.encode("utf-8", "surrogatepass")) + _MOST_TEMPLATE_TOKENS for message in prompt.messages
    )


class Call:
    """A call on its way to an answer, or to the failure of each of its prompts.

    Attributes:
        tokens: what it takes of the tokens per minute, estimated.
        most_input_tokens: what its input will not pass.
        output_tokens: the most that its answers can have.
        throttled: how many of its attempts the service throttled.
        error: why it failed, once it has.
    """

    def __init__(self, prompts: Sequence[Prompt], params: GenerationParams, *, after: "Call | None" = None) -> None:
        self.prompts, self.params = prompts, params
        self.output_tokens = params.max_tokens * params.n * len(prompts)
        self.tokens = sum(map(estimate_tokens, prompts)) + self.output_tokens
        self.most_input_tokens = sum(map(most_tokens, prompts))
        self.throttled = 0
        self.throttled_at: float | None = None
        self.error: CallError | None = None
        self._attempts: int = after._attempts if after else 0
        self._watch: Stopwatch | None = after._watch if after else None
        self._began: datetime | None = after._began if after else None

    @property
    def name(self) -> str:
        """Which prompts these are, for a log line."""
        return ", ".join(prompt.id for prompt in self.prompts)

    @property
    def throttled_s(self) -> float:
        """For how long the service has throttled this call."""
        return 0.0 if self.throttled_at is None else time.perf_counter() - self.throttled_at

    @property
    def may_be_one_prompts_fault(self) -> bool:
        """Whether the call failed, held several prompts, and would not have failed with any others too."""
        return (
            len(self.prompts) > 1
            and self.error is not None
            and not (self.error.throttled or self.error.refuses_lists or self.error.kind == UNREACHABLE)
        )

    def halves(self) -> tuple["Call", "Call"]:
        """Return two calls for this one; their time and attempts go on from its."""
        middle = len(self.prompts) // 2
        first, second = self.prompts[:middle], self.prompts[middle:]
        return Call(first, self.params, after=self), Call(second, self.params, after=self)

    def begin_attempt(self) -> None:
        """Count an attempt; the first begins the call's time."""
        self._attempts += 1
        if self._watch is None:
            self._watch = Stopwatch()
            self._began = self._watch.stop().started_at

    def note_throttled(self) -> None:
        """Count an attempt that the service throttled; the first begins the time for which it did."""
        self.throttled += 1
        if self.throttled_at is None:
            self.throttled_at = time.perf_counter()

    def completed(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the time and the attempts since the call's first attempt."""
        return replace(outcome, attempts=self._attempts, timing=_since(self._began, outcome.timing))

    def failures(self, error: CallError, model_id: str) -> Sequence[Failure]:
        """Return a failure per prompt, with the time and the attempts since the call's first attempt."""
        self.error = error
        timing = (self._watch or Stopwatch()).stop()
        message = f"{error.message} (throttled for {self.throttled_s:.0f} s)" if error.throttled else error.message
        return [
            Failure(
                prompt_id=prompt.id,
                error=ErrorInfo(type=error.kind, message=message, retryable=error.retryable),
                timing=timing,
                model=model_id,
                attempts=max(1, self._attempts),
            )
            for prompt in self.prompts
        ]


def _since(began: datetime | None, timing: Timing) -> Timing:
    if began is None or began >= timing.started_at:
        return timing
    earlier_s = (timing.started_at - began).total_seconds()
    first_s = timing.time_to_first_token_s
    return Timing(
        started_at=began,
        latency_s=timing.latency_s + earlier_s,
        time_to_first_token_s=None if first_s is None else first_s + earlier_s,
    )
