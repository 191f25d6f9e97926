"""Prompts, answers and outcomes as frozen values. Knows nothing of providers or files."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
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
        """The conversation as one text, a paragraph per message; of one message, its content."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one prompt and one answer.

    Attributes:
        input_tokens: the prompt's tokens, without padding.
        output_tokens: tokens up to and including the answer's first end-of-sequence token, as hosted services bill.
        cached_input_tokens: those of `input_tokens` that the service read from its cache, which have another price.
        cache_written_tokens: those of `input_tokens` that the service wrote to its cache, which have another price.
        reasoning_tokens: those of `output_tokens` that are no part of the text; None where the service does not count
            them.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_written_tokens: int = 0
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a prompt was sent, and how long its user waited, in seconds.

    In a static batch in this process the durations are the batch's: the prompt's user waits for the whole batch.

    Attributes:
        started_at: when the first attempt left.
        latency_s: from the first attempt to the end of the answer, retries included; None for a prompt of a batch job,
            where the service says when the job ended and not when the answer did.
        time_to_first_token_s: from the first attempt to the first new token, of reasoning or of text; None where the
            service cannot stream.
        time_to_first_answer_token_s: the same to the first token of the text; None unless reasoning came before it.
        queued_s: from when the batch mode wanted to send until the first attempt left (own limits, shared pauses); None
            for a call inside this process. `queued_s + latency_s` is what a user waits.
        last_attempt_latency_s: of the last attempt alone; None where there was one.
        chunk_gaps_s: seconds between one chunk of an answer with new tokens and the next; those of a prompt's n answers
            stand one answer after another. Empty without a stream.
    """

    started_at: datetime
    latency_s: float | None
    time_to_first_token_s: float | None = None
    time_to_first_answer_token_s: float | None = None
    queued_s: float | None = None
    last_attempt_latency_s: float | None = None
    chunk_gaps_s: tuple[float, ...] = ()

    @property
    def elapsed_s(self) -> float:
        """`latency_s`; 0 where there is none."""
        return self.latency_s or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """Why a prompt failed; `retryable` is whether sending it again may help."""

    type: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one prompt, as a provider read it.

    Attributes:
        usage: None where the service counted nothing.
        token_ids: the new tokens up to and including the end, as many as `usage.output_tokens`; None where the provider
            does not have them.
        system_fingerprint: what the service says of the system that answered; None where it says nothing.
        timing: of this answer, where a prompt's answers end at different times; None where it is the prompt's.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage | None
    token_ids: tuple[int, ...] | None = None
    system_fingerprint: str | None = None
    timing: Timing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a provider generated for one prompt: its answers, or why it has none.

    Attributes:
        model: the model that answered; the requested one where there is an error.
        timing: of the call that had the prompt; in a streamed list of prompts, up to the prompt's own end.
        answers: `n` answers in the order of their choice; none where there is an error.
        error: why the prompt has no answer.
        attempts: how many requests were sent for it; 1 for a call inside this process.
        lost_answers: those of the attempts without an answer that the service may bill all the same.
    """

    model: str
    timing: Timing
    answers: tuple[Answer, ...] = ()
    error: ErrorInfo | None = None
    attempts: int = 1
    lost_answers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer to one prompt. `choice` counts the answers of a prompt from 0.

    `usage` is None where the service counted nothing: the text is kept, and may have been billed.
    """

    prompt_id: str
    text: str
    finish_reason: FinishReason
    usage: Usage | None
    timing: Timing
    model: str
    choice: int = 0
    attempts: int = 1
    lost_answers: int = 0
    batch: int = 0
    segment: int = 0
    token_ids: tuple[int, ...] | None = None
    system_fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A prompt that has no answer, and why. Data, never an empty text."""

    prompt_id: str
    error: ErrorInfo
    timing: Timing
    model: str
    choice: int = 0
    attempts: int = 1
    lost_answers: int = 0
    batch: int = 0
    segment: int = 0


Outcome = Completion | Failure


@dataclass(slots=True, kw_only=True)
class ChunkTimes:
    """When the chunks of one answer's stream came, by `time.perf_counter`.

    Attributes:
        tokens_at: of every chunk with new tokens, of reasoning or of text.
        text_at: of the first chunk with text.
        ended_at: of the answer's finish reason.
    """

    tokens_at: list[float] = field(default_factory=list)
    text_at: float | None = None
    ended_at: float | None = None

    def add(self, *, has_text: bool) -> None:
        """Record that a chunk with new tokens came now."""
        now = time.perf_counter()
        self.tokens_at.append(now)
        if has_text and self.text_at is None:
            self.text_at = now

    @property
    def gaps_s(self) -> Iterator[float]:
        """Seconds between one chunk and the next, to the microsecond."""
        return (round(later - earlier, 6) for earlier, later in pairwise(self.tokens_at))


class Stopwatch:
    """Measures the time of one prompt or batch with the monotonic clock.

    The wall clock is read once per process, so that a change of that clock during a run changes no difference between
    two `started_at`.
    """

    _WALL = datetime.now(UTC)
    _MONOTONIC = time.perf_counter()

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first_token: float | None = None

    @property
    def started_at(self) -> datetime:
        """When the stopwatch was started."""
        return self._WALL + timedelta(seconds=self._start - self._MONOTONIC)

    def first_token(self) -> None:
        """Record the time of the first new token; later calls change nothing."""
        if self._first_token is None:
            self._first_token = time.perf_counter()

    def stop(self) -> Timing:
        """Return the timing up to now."""
        first_token = self._first_token
        return Timing(
            started_at=self.started_at,
            latency_s=time.perf_counter() - self._start,
            time_to_first_token_s=None if first_token is None else first_token - self._start,
        )

    def stop_stream(self, answers: Sequence[ChunkTimes], *, ended_at: float | None = None) -> Timing:
        """Return the timing of one prompt's streamed answers.

        Args:
            answers: the chunks of each of the prompt's answers.
            ended_at: the end, by `time.perf_counter`; None is now.
        """
        ended_at = time.perf_counter() if ended_at is None else ended_at
        tokens_at = min((answer.tokens_at[0] for answer in answers if answer.tokens_at), default=None)
        text_at = min((answer.text_at for answer in answers if answer.text_at is not None), default=None)
        return Timing(
            started_at=self.started_at,
            latency_s=ended_at - self._start,
            time_to_first_token_s=None if tokens_at is None else tokens_at - self._start,
            time_to_first_answer_token_s=None if text_at is None or text_at == tokens_at else text_at - self._start,
            chunk_gaps_s=tuple(gap_s for answer in answers for gap_s in answer.gaps_s),
        )
