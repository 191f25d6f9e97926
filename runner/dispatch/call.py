"""One call and its attempts: its tokens, the wait for its first attempt, the throttled attempts and lost answers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from runner.config.schema import GenerationParams
from runner.providers.errors import UNREACHABLE, CallError
from runner.types import ErrorInfo, Generated, Prompt, Stopwatch, Timing

_CHARACTERS_PER_TOKEN, _TOKENS_PER_MESSAGE = 4, 4
"""A rule of thumb for English, good enough for limits per minute: the service enforces its own count."""
_MAX_TEMPLATE_TOKENS = 32
"""An upper bound of what a chat template adds to a message: role, separators, a default system message."""


def estimate_tokens(prompt: Prompt) -> int:
    """Return an estimate of a prompt's tokens, made without a tokenizer."""
    characters = sum(len(message.content) for message in prompt.messages)
    return characters // _CHARACTERS_PER_TOKEN + _TOKENS_PER_MESSAGE * len(prompt.messages)


def max_input_tokens(prompt: Prompt) -> int:
    """Return an upper bound of a prompt's tokens: a byte-level tokenizer makes at most one token of a byte."""
    return sum(
        len(message.content.encode("utf-8", "surrogatepass")) + _MAX_TEMPLATE_TOKENS for message in prompt.messages
    )


class Call:
    """A call on its way to an answer, or to an error for each of its prompts. It is queued once it was made.

    Args:
        prompts: one prompt, or a list for a service that takes lists.
        params: how to generate.
        clock: seconds, on the clock by which waits are measured.
        previous: the call of which this one is a half: time, attempts and lost answers continue.

    Attributes:
        estimated_tokens: what an attempt takes from the tokens per minute.
        max_input_tokens: an upper bound of the input tokens.
        max_output_tokens: an upper bound of the output tokens.
        throttled_attempts: how many attempts the service throttled.
        throttled_at: when the service first throttled an attempt, by `clock`.
        lost_answers: how many attempts have no answer, and may be billed all the same.
        error: why the last attempt failed; None while an attempt is in flight, and once one was answered.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        params: GenerationParams,
        *,
        clock: Callable[[], float] = time.perf_counter,
        previous: "Call | None" = None,
    ) -> None:
        self.prompts, self.params = prompts, params
        self.max_output_tokens = params.max_tokens * params.n * len(prompts)
        self.estimated_tokens = sum(map(estimate_tokens, prompts)) + self.max_output_tokens
        self.max_input_tokens = sum(map(max_input_tokens, prompts))
        self.throttled_attempts = 0
        self.throttled_at: float | None = None
        self.error: CallError | None = previous.error if previous else None
        self.lost_answers: int = previous.lost_answers if previous else 0
        self._clock = clock
        self._attempts: int = previous._attempts if previous else 0
        self._first_attempt: Stopwatch | None = previous._first_attempt if previous else None
        self._last_attempt: Stopwatch | None = self._first_attempt
        self._queued_at: float = previous._queued_at if previous else clock()
        self._queued_s: float | None = previous._queued_s if previous else None

    @property
    def throttled_s(self) -> float:
        """For how long the service has throttled this call."""
        return 0.0 if self.throttled_at is None else self._clock() - self.throttled_at

    @property
    def may_be_split(self) -> bool:
        """Whether one of several prompts may be the reason why the call failed."""
        if len(self.prompts) == 1 or self.error is None:
            return False
        return not (self.error.policy.throttled or self.error.policy.refuses_lists or self.error.type == UNREACHABLE)

    def halves(self) -> tuple["Call", "Call"]:
        """Return two calls with half of the prompts each, which continue this call's time and attempts."""
        middle = len(self.prompts) // 2
        first, second = (
            Call(prompts, self.params, clock=self._clock, previous=self)
            for prompts in (self.prompts[:middle], self.prompts[middle:])
        )
        return first, second

    def start_attempt(self) -> None:
        """Count an attempt; the first ends the call's time in the queue."""
        self._attempts += 1
        self.error = None
        self._last_attempt = Stopwatch()
        if self._first_attempt is None:
            self._first_attempt = self._last_attempt
            self._queued_s = self._clock() - self._queued_at

    def fail_attempt(self, error: CallError) -> None:
        """Count why an attempt has no answer; the first throttled attempt starts `throttled_s`."""
        self.error = error
        if not error.policy.not_billed:
            self.lost_answers += 1
        if error.policy.throttled:
            self.throttled_attempts += 1
            if self.throttled_at is None:
                self.throttled_at = self._clock()

    def completed(self, result: Generated) -> Generated:
        """Return the result with the time and the attempts since the call's first attempt, and its lost answers."""
        return replace(
            result,
            attempts=self._attempts,
            lost_answers=self.lost_answers,
            timing=self._whole(result.timing),
        )

    def failed(self, error: CallError, model_id: str) -> Sequence[Generated]:
        """Return the error for each prompt, with the time and the attempts since the call's first attempt."""
        throttled = error.policy.throttled
        message = f"{error.message} (throttled for {self.throttled_s:.0f} s)" if throttled else error.message
        result = Generated(
            error=ErrorInfo(type=error.type, message=message, retryable=error.policy.retryable),
            timing=self._whole((self._last_attempt or Stopwatch()).stop()),
            model=model_id,
            attempts=max(1, self._attempts),
            lost_answers=self.lost_answers,
        )
        return [result] * len(self.prompts)

    def _whole(self, timing: Timing) -> Timing:
        """Return the last attempt's timing as counted from the first attempt's start."""
        first = self._first_attempt
        started_at = timing.started_at if first is None else first.started_at
        earlier_s = (timing.started_at - started_at).total_seconds()
        return Timing(
            started_at=started_at,
            latency_s=timing.elapsed_s + earlier_s,
            time_to_first_token_s=_later(timing.time_to_first_token_s, earlier_s),
            time_to_first_answer_token_s=_later(timing.time_to_first_answer_token_s, earlier_s),
            queued_s=self._queued_s,
            last_attempt_latency_s=timing.latency_s if self._attempts > 1 else None,
            chunk_gaps_s=timing.chunk_gaps_s,
        )


def _later(seconds: float | None, earlier_s: float) -> float | None:
    return None if seconds is None else seconds + earlier_s
