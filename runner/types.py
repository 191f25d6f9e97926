"""Prompts and outcomes: frozen values that know nothing of providers or files."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "tool_calls", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One input: a conversation that ends before the answer. A plain text is one user message."""

    id: str
    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The whole conversation as a reader would see it; of a plain text prompt, the text."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one prompt and one answer: the prompt's own, never a padded width.

    `output_tokens` ends at, and counts, the row's first end-of-sequence token, as hosted services bill it. Of
    `input_tokens`, a service may say which ones it read from its cache, and which ones it wrote to it: both have prices
    of their own.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_written_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a prompt was sent, and how long its user waited. Seconds.

    In a static batch both durations are the batch's: that is what the prompt's user waits.
    `time_to_first_token_s` is None where the service cannot stream.
    """

    started_at: datetime
    latency_s: float
    time_to_first_token_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """Why a prompt failed; `retryable` says whether asking again may help."""

    type: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one prompt, as a provider read it."""

    text: str
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a provider generated for one prompt: its answers, or why it has none.

    Attributes:
        model: which model answered, or was asked.
        timing: that of the call that the prompt was in.
        answers: `n` answers in the order of their choice; none where there is an error.
        error: why the prompt has no answer.
        attempts: how many requests it took; calls inside this process take one.
    """

    model: str
    timing: Timing
    answers: tuple[Answer, ...] = ()
    error: ErrorInfo | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer to one prompt. `choice` counts the answers of a prompt from 0."""

    prompt_id: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    model: str
    choice: int = 0
    attempts: int = 1
    batch: int = 0
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A prompt that has no answer, and why. Data, never an empty text."""

    prompt_id: str
    error: ErrorInfo
    timing: Timing
    model: str
    choice: int = 0
    attempts: int = 1
    batch: int = 0
    segment: int = 0


Outcome = Completion | Failure


class Stopwatch:
    """Reads one prompt's or batch's timing off the monotonic clock.

    The wall clock is read once per process, so that a clock change during a run moves no `started_at` against another.
    """

    _WALL = datetime.now(UTC)
    _MONOTONIC = time.perf_counter()

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first_token: float | None = None

    def first_token(self) -> None:
        """Note the first new token; later calls change nothing."""
        if self._first_token is None:
            self._first_token = time.perf_counter()

    def stop(self) -> Timing:
        """Return the timing up to now."""
        first = self._first_token
        return Timing(
            started_at=self._WALL + timedelta(seconds=self._start - self._MONOTONIC),
            latency_s=time.perf_counter() - self._start,
            time_to_first_token_s=None if first is None else first - self._start,
        )
