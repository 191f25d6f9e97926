"""Reads responses of OpenAI's API, streamed or whole, into ChoiceResults.

The SDK raises nothing for a stream that is cut, because it needs no `[DONE]`: a choice without a finish reason is an
error. A request has one usage for all its choices; its output tokens are split by the chunks that each choice was sent
in, its reasoning tokens by the output tokens. Reasoning is not part of a choice's text but billed as output: its first
chunk is the first token.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from runner.providers.errors import REFUSED, RETRY, CallError
from runner.providers.openai.errors import StreamedError
from runner.providers.responses import optional_text, readable_usage, too_large
from runner.types import ChunkTimes, FinishReason, Usage

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
_FINAL_EVENTS = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceResult:
    """One choice of a response.

    Attributes:
        sent_reason: the finish reason in the service's words.
        output_tokens: the choice's share of the request's; None where the service counted nothing.
        reasoning_tokens: the choice's share of the request's; None where the service does not count them.
        request_usage: of the whole request, for all its prompts and choices; None where the service counted nothing.
        chunks: when the choice's chunks came; empty without a stream.
    """

    text: str
    finish_reason: FinishReason
    sent_reason: str | None
    output_tokens: int | None
    reasoning_tokens: int | None
    request_usage: Usage | None
    model: str | None
    chunks: ChunkTimes
    system_fingerprint: str | None = None


class ChoicesMissing(Exception):  # noqa: N818 - the sender decides whether `n` or the list is the reason
    """The service ended its response with fewer choices than were requested."""


@dataclass(slots=True, kw_only=True)
class _ChoiceAccumulator:
    """Collects the choices of a response from its chunks.

    Attributes:
        texts: by choice, the text of every chunk with output; "" is reasoning.
        chunks: by choice, when those chunks came.
        finish: by choice, the finish reason; None until it came.
    """

    texts: Sequence[list[str]]
    chunks: Sequence[ChunkTimes]
    finish: list[str | None]
    usage: Any = None
    model: Any = None
    fingerprint: Any = None

    @classmethod
    def of(cls, count: int) -> Self:
        """Return the accumulator of `count` choices."""
        return cls(texts=[[] for _ in range(count)], chunks=[ChunkTimes() for _ in range(count)], finish=[None] * count)

    def add(self, chunk: Any, text: Callable[[Any, bool], str | None], *, streamed: bool) -> None:
        """Add a chunk, or a whole response."""
        raise_error_in(chunk)
        self.usage = getattr(chunk, "usage", None) or self.usage
        self.model = getattr(chunk, "model", None) or self.model
        self.fingerprint = getattr(chunk, "system_fingerprint", None) or self.fingerprint
        for choice in chunk.choices:
            if not 0 <= choice.index < len(self.texts):
                raise CallError("UnexpectedChoice", f"the server sent answer {choice.index} of {len(self.texts)}")
            piece = text(choice, streamed)
            if piece or _has_reasoning(choice):
                if streamed:
                    self.chunks[choice.index].add(has_text=bool(piece))
                self.texts[choice.index].append(piece or "")
            if choice.finish_reason:
                self.finish[choice.index] = str(choice.finish_reason)
                self.chunks[choice.index].ended_at = time.perf_counter()

    def results(self, *, streamed: bool) -> list[ChoiceResult]:
        """Return the choices once the response has ended."""
        begun = sum(bool(texts or finish) for texts, finish in zip(self.texts, self.finish, strict=True))
        if self.usage is not None and 0 < begun < len(self.texts):
            raise ChoicesMissing(f"sent {begun} of {len(self.texts)} answers")
        is_whole = self.usage is not None or not streamed  # a stream's usage comes last
        reasons = [
            _finish_reason(finish, is_whole=is_whole and bool(texts))
            for finish, texts in zip(self.finish, self.texts, strict=True)
        ]
        total = _usage(self.usage, "prompt_tokens", "completion_tokens")
        shares: Sequence[int | None] = [None] * len(self.texts)
        reasoning: Sequence[int | None] = shares
        if total is not None:
            shares = parts = share(total.output_tokens, [len(texts) for texts in self.texts])
            if total.reasoning_tokens is not None:
                reasoning = share(total.reasoning_tokens, parts)
        return [
            ChoiceResult(
                text="".join(texts), finish_reason=reason, sent_reason=sent, output_tokens=tokens,
                reasoning_tokens=thought,
                request_usage=total, model=optional_text(self.model), chunks=chunks,
                system_fingerprint=optional_text(self.fingerprint),
            )
            for texts, reason, sent, tokens, thought, chunks in zip(
                self.texts, reasons, self.finish, shares, reasoning, self.chunks, strict=True
            )
        ]  # fmt: skip


def raise_error_in(body: Any) -> None:
    """Raise the error that a server has sent with status 200, and with its words.

    Raises:
        StreamedError: the body has an error instead of an answer.
    """
    error = getattr(body, "error", None)
    if error is None or getattr(body, "choices", None) or getattr(body, "output", None):
        return
    code, type_, message = (
        error.get(name) if isinstance(error, Mapping) else getattr(error, name, None)
        for name in ("code", "type", "message")
    )
    raise StreamedError(
        None if code is None else str(code),
        str(message or error),
        type=None if type_ is None else str(type_),
        default=REFUSED,
    )


async def read_choices(
    chunks: AsyncIterator[Any], count: int, *, text: Callable[[Any, bool], str | None]
) -> list[ChoiceResult]:
    """Read the choices of a streamed chat or completions request.

    Args:
        chunks: those of the stream.
        count: how many choices were requested.
        text: returns the text of a choice, given whether the choice is a chunk's.

    Raises:
        CallError: the stream was cut, or has more chunks than `max_chunks`.
        StreamedError: the response is an error.
        ChoicesMissing: the service ended its stream, and some choices never began.
    """
    choices = _ChoiceAccumulator.of(count)
    async for chunk in chunks:
        choices.add(chunk, text, streamed=True)
    return choices.results(streamed=True)


def whole_choices(response: Any, count: int, *, text: Callable[[Any, bool], str | None]) -> list[ChoiceResult]:
    """Read the choices of a whole chat or completions response; arguments and errors are those of `read_choices`."""
    choices = _ChoiceAccumulator.of(count)
    choices.add(response, text, streamed=False)
    return choices.results(streamed=False)


async def read_response(events: AsyncIterator[Any], _count: int) -> list[ChoiceResult]:
    """Read the one choice of a streamed responses request; the arguments are those of `read_choices`.

    Raises:
        CallError: the stream was cut, or has more chunks than `max_chunks`.
        StreamedError: the response is an error.
    """
    chunks, final = ChunkTimes(), None
    async for event in events:
        if event.type.endswith(".delta") and event.delta:
            chunks.add(has_text=not event.type.startswith("response.reasoning"))
        elif event.type in _FINAL_EVENTS:
            final = event.response
        elif event.type == "error":
            raise StreamedError(event.code, str(event.message), default=RETRY)
    if final is None:
        raise _cut()
    return [_response_result(final, chunks)]


def whole_response(response: Any, _count: int) -> list[ChoiceResult]:
    """Read the one choice of a whole responses response; the errors are those of `read_response`."""
    return [_response_result(response, ChunkTimes())]


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split a whole number by weights so that the parts add up to the number (largest remainder)."""
    weights = [max(1, weight) for weight in weights] if any(weights) else [1] * len(weights)
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def _response_result(final: Any, chunks: ChunkTimes) -> ChoiceResult:
    raise_error_in(final)
    if final.status == "failed":
        raise CallError("ResponseFailed", f"the answer has status {final.status!r} and no text")
    reason = final.incomplete_details.reason if final.incomplete_details else "stop"
    total = _usage(final.usage, "input_tokens", "output_tokens")
    output_tokens, reasoning_tokens = (total.output_tokens, total.reasoning_tokens) if total else (None, None)
    return ChoiceResult(
        text=final.output_text, finish_reason=_finish_reason(reason, is_whole=True), sent_reason=reason,
        output_tokens=output_tokens, reasoning_tokens=reasoning_tokens, request_usage=total,
        model=optional_text(final.model), chunks=chunks,
    )  # fmt: skip


def _usage(counts: Any, input_name: str, output_name: str) -> Usage | None:
    """Return a request's usage; not every server counts the tokens of its cache, or of reasoning.

    None where the server counts nothing, or what cannot be read: the text is there and paid for.
    """
    if counts is None:
        return None
    input_details, output_details = (getattr(counts, f"{name}_details", None) for name in (input_name, output_name))
    reasoning_tokens = getattr(output_details, "reasoning_tokens", None)
    try:
        return readable_usage(
            input_tokens=getattr(counts, input_name, None),
            output_tokens=getattr(counts, output_name, None),
            cached_input_tokens=getattr(input_details, "cached_tokens", None) or 0,
            cache_written_tokens=getattr(input_details, "cache_write_tokens", None) or 0,
            reasoning_tokens=reasoning_tokens,
        )
    except ValidationError:
        return None


async def chunks_of(response: Any, max_chunks: int) -> AsyncIterator[Any]:
    """Yield the chunks of the SDK's stream.

    Raises:
        CallError: there is none, or more than `max_chunks`.
    """
    count = 0
    async with response:
        async for chunk in response:
            count += 1
            if count > max_chunks:
                raise too_large(f"more than {max_chunks:,} chunks")
            yield chunk
    if not count:
        raise empty_answer(response)


def empty_answer(stream: Any) -> CallError:
    """Return the error of an answer without an event, and without anything else."""
    content_type = stream.response.headers.get("content-type")
    message = f"no event in the answer, whose content type is {content_type!r}: check the provider's address"
    return CallError("EmptyAnswer", message, RETRY)


def _has_reasoning(choice: Any) -> bool:
    """Return whether a chunk's choice has reasoning; servers have two names for that field, OpenAI has none."""
    delta = getattr(choice, "delta", None)
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _finish_reason(reason: str | None, *, is_whole: bool) -> FinishReason:
    """Return the finish reason; one that is not there, of an answer that is not known to be whole, is a cut."""
    if reason is None and not is_whole:
        raise _cut()
    return _FINISH_REASONS.get(str(reason), "unknown")


def _cut() -> CallError:
    message = "the answer ended without a finish reason: the connection was cut"
    return CallError("StreamCut", message, RETRY)
