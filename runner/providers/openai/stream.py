"""Reads the answers of OpenAI's API, streamed or whole, into one shape. Nothing is an answer that did not end.

A stream that just stops raises nothing in the SDK, which needs no `[DONE]`: an answer without a finish reason is an
error.
Usage comes once per request, for all its answers together; it is split over them by the pieces that each was sent in.
What a model reasons is no text of the answer, but the service counts it as output: it is a first token as any other.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.providers.errors import RETRY, CallError
from runner.providers.openai.errors import StreamedError
from runner.providers.responses import optional_text, token_count
from runner.types import FinishReason, Stopwatch, Usage

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
class ChoiceResult:
    """One answer. `request` is the usage of the whole request, whatever its number of prompts and answers."""

    text: str
    finish_reason: FinishReason
    output_tokens: int
    request: Usage
    model: str | None
    system_fingerprint: str | None = None


@dataclass(slots=True)
class _Open:
    """An answer on its way."""

    texts: list[str] = field(default_factory=list)
    pieces: int = 0
    finish: str | None = None

    @property
    def began(self) -> bool:
        return self.pieces > 0 or self.finish is not None


async def read_choices(
    response: Any, watch: Stopwatch, *, text: Callable[[Any, bool], str | None], streamed: bool, count: int
) -> list[ChoiceResult]:
    """Read `count` choices of a chat or completions request.

    Raises:
        CallError: the stream was cut, an answer has no end, or there is no usage.
        AnswersMissing: the service ended its stream, and some answers never began.
    """
    answers = [_Open() for _ in range(count)]
    usage: Any = None
    model: str | None = None
    fingerprint: str | None = None
    async for chunk in _chunks(response, streamed):
        usage, model = getattr(chunk, "usage", None) or usage, getattr(chunk, "model", None) or model
        fingerprint = getattr(chunk, "system_fingerprint", None) or fingerprint
        for choice in chunk.choices:
            if not 0 <= choice.index < count:
                raise CallError("UnexpectedChoice", f"the server sent answer {choice.index} of {count}")
            words = text(choice, streamed)
            _take(answers[choice.index], words, _reasons(choice), choice.finish_reason, watch if streamed else None)
    began = sum(answer.began for answer in answers)
    if usage is not None and 0 < began < count:
        raise AnswersMissing(began, count)
    ends = [_finish(answer.finish) for answer in answers]
    if usage is None:
        raise CallError("UsageMissing", "the server's answer has no usage: its tokens cannot be token_count")
    total = _usage(usage.prompt_tokens, usage.completion_tokens, getattr(usage, "prompt_tokens_details", None))
    shares = share(total.output_tokens, [answer.pieces for answer in answers])
    return [
        ChoiceResult(
            text="".join(answer.texts), finish_reason=end, output_tokens=tokens, request=total,
            model=optional_text(model), system_fingerprint=optional_text(fingerprint),
        )
        for answer, end, tokens in zip(answers, ends, shares, strict=True)
    ]  # fmt: skip


class AnswersMissing(Exception):  # noqa: N818 - what it means is for the caller to say, who knows what was asked for
    """The service sent fewer answers than were asked for, and says that this is all."""

    def __init__(self, sent: int, asked: int) -> None:
        super().__init__(f"sent {sent} of {asked} answers")


async def read_responses(response: Any, watch: Stopwatch, *, streamed: bool) -> list[ChoiceResult]:
    """Read the one answer of a responses request.

    Raises:
        CallError: the stream was cut, or the answer has no usage.
        StreamedError: the service reports an error in it.
    """
    final = None
    async for event in _chunks(response, streamed):
        if not streamed:
            final = event
        elif event.type.endswith(".delta") and event.delta:
            watch.first_token()
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            final = event.response
        elif event.type == "error":
            raise StreamedError(event.code, str(event.message), passing=True)
    if final is None:
        raise _cut()
    return [_response_answer(final)]


def _response_answer(final: Any) -> ChoiceResult:
    if final.status == "failed" and final.error:
        raise StreamedError(str(final.error.code), str(final.error.message), passing=False)
    if final.status == "failed" or final.usage is None:
        raise CallError("ResponseFailed", f"the answer has status {final.status!r} and no text")
    reason = final.incomplete_details.reason if final.incomplete_details else "stop"
    details = getattr(final.usage, "input_tokens_details", None)
    total = _usage(final.usage.input_tokens, final.usage.output_tokens, details)
    return ChoiceResult(
        text=final.output_text, finish_reason=_finish(reason), output_tokens=total.output_tokens, request=total,
        model=optional_text(final.model),
    )  # fmt: skip


def _usage(input_tokens: Any, output_tokens: Any, details: Any) -> Usage:
    """Return what the service token_count; not every server says what its cache did."""
    return Usage(
        input_tokens=token_count(input_tokens),
        output_tokens=token_count(output_tokens),
        cached_input_tokens=token_count(getattr(details, "cached_tokens", None) or 0),
        cache_written_tokens=token_count(getattr(details, "cache_write_tokens", None) or 0),
    )


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
        raise CallError("EmptyAnswer", said, RETRY)


def _reasons(choice: Any) -> bool:
    """Return whether a choice of a stream brings a piece of reasoning; servers have two names for it, OpenAI none."""
    delta = getattr(choice, "delta", None)
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _take(answer: _Open, text: str | None, reasons: bool, finish: str | None, watch: Stopwatch | None) -> None:
    if text or reasons:
        if watch is not None:
            watch.first_token()
        answer.pieces += 1
        answer.texts.append(text or "")
    answer.finish = finish or answer.finish


def _finish(reason: str | None) -> FinishReason:
    if reason is None:
        raise _cut()
    if reason not in _FINISH:
        log.warning("finish reason %r is not one we know", reason)
    return _FINISH.get(reason, "unknown")


def _cut() -> CallError:
    said = "the answer ended without a finish reason: the connection was cut"
    return CallError("StreamCut", said, RETRY)
