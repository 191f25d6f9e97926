"""Reads the answers of OpenAI's API, streamed or whole, into one shape. Nothing is an answer that did not end.

A stream that just stops raises nothing in the SDK, which needs no `[DONE]`: an answer without a finish reason is an
error.
Usage comes once per request, for all its answers together; it is split over them by the pieces that each was sent in.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.providers.base import CallError
from runner.records import FinishReason, Stopwatch

log = logging.getLogger(__name__)

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `request_input_tokens` are those of the whole request, whatever its number of prompts."""

    text: str
    finish_reason: FinishReason
    output_tokens: int
    request_input_tokens: int
    model: str | None
    system_fingerprint: str | None = None


@dataclass(slots=True)
class _Open:
    """An answer on its way."""

    pieces: list[str] = field(default_factory=list)
    finish: str | None = None


async def read_choices(
    response: Any, watch: Stopwatch, *, text: Callable[[Any, bool], str | None], streamed: bool, count: int
) -> list[Answer]:
    """Read `count` choices of a chat or completions request.

    Raises:
        CallError: the stream was cut, an answer has no end, or there is no usage.
    """
    answers = [_Open() for _ in range(count)]
    usage: Any = None
    model: str | None = None
    fingerprint: str | None = None
    async for chunk in _chunks(response, streamed):
        usage, model = getattr(chunk, "usage", None) or usage, getattr(chunk, "model", None) or model
        fingerprint = getattr(chunk, "system_fingerprint", None) or fingerprint
        for choice in chunk.choices:
            if choice.index >= count:
                raise CallError("UnexpectedChoice", f"the server sent answer {choice.index} of {count}")
            _take(answers[choice.index], text(choice, streamed), choice.finish_reason, watch if streamed else None)
    ends = [_finish(answer.finish) for answer in answers]
    if usage is None:
        raise CallError("UsageMissing", "the server's answer has no usage: its tokens cannot be counted")
    shares = share(usage.completion_tokens, [len(answer.pieces) for answer in answers])
    return [
        Answer(
            text="".join(answer.pieces), finish_reason=end, output_tokens=tokens,
            request_input_tokens=usage.prompt_tokens, model=model, system_fingerprint=fingerprint,
        )
        for answer, end, tokens in zip(answers, ends, shares, strict=True)
    ]  # fmt: skip


async def read_responses(response: Any, watch: Stopwatch, *, streamed: bool) -> list[Answer]:
    """Read the one answer of a responses request.

    Raises:
        CallError: the stream was cut, or the service reports an error in it.
    """
    final = None
    async for event in _chunks(response, streamed):
        if not streamed:
            final = event
        elif event.type == "response.output_text.delta" and event.delta:
            watch.first_token()
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            final = event.response
        elif event.type == "error":
            raise CallError(str(event.code or "StreamError"), str(event.message), retryable=True)
    if final is None:
        raise _cut()
    if final.status == "failed" or final.usage is None:
        error, said = final.error, f"the answer has status {final.status!r} and no text"
        raise CallError(str(error.code) if error else "ResponseFailed", error.message if error else said)
    reason = final.incomplete_details.reason if final.incomplete_details else "stop"
    usage = final.usage
    return [
        Answer(
            text=final.output_text, finish_reason=_finish(reason), output_tokens=usage.output_tokens,
            request_input_tokens=usage.input_tokens, model=final.model,
        )
    ]  # fmt: skip


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split a whole number by weights so that the parts add up to it (largest remainder)."""
    weights = [max(1, weight) for weight in weights] if any(weights) else [1] * len(weights)
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    for place in sorted(range(len(parts)), key=lambda place: parts[place] - exact[place])[: total - sum(parts)]:
        parts[place] += 1
    return parts


async def _chunks(response: Any, streamed: bool) -> AsyncIterator[Any]:
    if not streamed:
        yield response
        return
    empty = True
    async with response:
        async for chunk in response:
            empty = False
            yield chunk
    if empty:
        found = response.response.headers.get("content-type")
        said = f"no event in the answer, whose content type is {found!r}: check the provider's address"
        raise CallError("EmptyAnswer", said, retryable=True)


def _take(answer: _Open, piece: str | None, finish: str | None, watch: Stopwatch | None) -> None:
    if piece:
        if watch is not None:
            watch.first_token()
        answer.pieces.append(piece)
    answer.finish = finish or answer.finish


def _finish(reason: str | None) -> FinishReason:
    if reason is None:
        raise _cut()
    if reason not in _FINISH:
        log.warning("finish reason %r is not one we know", reason)
    return _FINISH.get(reason, "unknown")


def _cut() -> CallError:
    said = "the answer ended without a finish reason: the connection was cut"
    return CallError("StreamCut", said, retryable=True)
