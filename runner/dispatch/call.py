"""One call through its attempts: what it asks for, when it began, how often it was sent."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runner.config.schema import GenerationParams
from runner.providers.errors import UNREACHABLE, CallError
from runner.types import ErrorInfo, Generated, Prompt, Stopwatch, Timing

_CHARACTERS_PER_TOKEN, _TOKENS_PER_MESSAGE = 4, 4
"""A rule of thumb for English, for limits per minute; what counts is the service's own count."""
_MAX_TEMPLATE_TOKENS = 32
"""More than a chat template adds to a message: its role, its marks, and a default system message."""


def estimate_tokens(prompt: Prompt) -> int:
    """Return about how many tokens a prompt has, without a tokenizer."""
    characters = sum(len(message.content) for message in prompt.messages)
    return characters // _CHARACTERS_PER_TOKEN + _TOKENS_PER_MESSAGE * len(prompt.messages)


def max_tokens(prompt: Prompt) -> int:
    """Return an upper bound of a prompt's tokens: a byte-level tokenizer makes at most one of a byte."""
    return sum(
        len(message.content.encode("utf-8", "surrogatepass")) + _MAX_TEMPLATE_TOKENS for message in prompt.messages
    )


class Call:
    """A call on its way to an answer, or to an error for each of its prompts.

    Attributes:
        tokens: what it takes of the tokens per minute, estimated.
        max_input_tokens: an upper bound of its input.
        max_output_tokens: an upper bound of its answers.
        throttled: how many of its attempts the service throttled.
        error: why it failed, once it has.
    """

    def __init__(self, prompts: Sequence[Prompt], params: GenerationParams, *, after: "Call | None" = None) -> None:
        self.prompts, self.params = prompts, params
        self.max_output_tokens = params.max_tokens * params.n * len(prompts)
        self.tokens = sum(map(estimate_tokens, prompts)) + self.max_output_tokens
        self.max_input_tokens = sum(map(max_tokens, prompts))
        self.throttled = 0
        self.throttled_at: float | None = None
        self.error: CallError | None = None
        self._attempts: int = after._attempts if after else 0
        self._watch: Stopwatch | None = after._watch if after else None
        self._started_at: datetime | None = after._started_at if after else None

    @property
    def name(self) -> str:
        """Ids of the prompts, for a log line."""
        return ", ".join(prompt.id for prompt in self.prompts)

    @property
    def throttled_s(self) -> float:
        """For how long the service has throttled this call."""
        return 0.0 if self.throttled_at is None else time.perf_counter() - self.throttled_at

    @property
    def may_be_split(self) -> bool:
        """Whether one of several prompts may be why the call failed: with any others it might not have."""
        if len(self.prompts) == 1 or self.error is None:
            return False
        return not (self.error.policy.throttled or self.error.policy.refuses_lists or self.error.type == UNREACHABLE)

    def halves(self) -> tuple["Call", "Call"]:
        """Return two calls for this one; their time and attempts continue its own."""
        middle = len(self.prompts) // 2
        first, second = self.prompts[:middle], self.prompts[middle:]
        return Call(first, self.params, after=self), Call(second, self.params, after=self)

    def start_attempt(self) -> None:
        """Count an attempt; the first starts the call's time."""
        self._attempts += 1
        if self._watch is None:
            self._watch = Stopwatch()
            self._started_at = self._watch.stop().started_at

    def count_throttled(self) -> None:
        """Count an attempt that the service throttled; the first starts the time for which it did."""
        self.throttled += 1
        if self.throttled_at is None:
            self.throttled_at = time.perf_counter()

    def completed(self, result: Generated) -> Generated:
        """Return the result with the time and the attempts since the call's first attempt."""
        return replace(result, attempts=self._attempts, timing=_since(self._started_at, result.timing))

    def failed(self, error: CallError, model_id: str) -> Sequence[Generated]:
        """Return the error for each prompt, with the time and the attempts since the call's first attempt."""
        self.error = error
        throttled = error.policy.throttled
        message = f"{error.message} (throttled for {self.throttled_s:.0f} s)" if throttled else error.message
        result = Generated(
            error=ErrorInfo(type=error.type, message=message, retryable=error.policy.retryable),
            timing=(self._watch or Stopwatch()).stop(),
            model=model_id,
            attempts=max(1, self._attempts),
        )
        return [result] * len(self.prompts)


def _since(started_at: datetime | None, timing: Timing) -> Timing:
    if started_at is None or started_at >= timing.started_at:
        return timing
    earlier_s = (timing.started_at - started_at).total_seconds()
    first_s = timing.time_to_first_token_s
    return Timing(
        started_at=started_at,
        latency_s=timing.latency_s + earlier_s,
        time_to_first_token_s=None if first_s is None else first_s + earlier_s,
    )
