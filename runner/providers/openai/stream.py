"""Reads responses of OpenAI's API, streamed or whole, into ChoiceResults.

The SDK raises nothing for a stream that is cut, because it needs no `[DONE]`: a choice without a finish reason is an
error. A request has one usage for all its choices; its output tokens are split by the chunks that each choice was sent
in, its reasoning tokens by the output tokens. Reasoning is not part of a choice's text but billed as output: its first
chunk is the first token.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.providers.errors import REFUSED, RETRY, CallError
from runner.providers.openai.errors import StreamedError
from runner.providers.responses import optional_text, token_count
from runner.types import ChunkTimes, FinishReason, Usage

log = logging.getLogger(__name__)

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
        output_tokens: the choice's share of the request's.
        reasoning_tokens: the choice's share of the request's; None where the service does not count them.
        request_usage: of the whole request, for all its prompts and choices.
        chunks: when the choice's chunks came; empty without a stream.
    """

    text: str
    finish_reason: FinishReason
    output_tokens: int
    reasoning_tokens: int | None
    request_usage: Usage
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

    def add(self, chunk: Any, text: Callable[[Any, bool], str | None], *, streamed: bool) -> None:
        """Add a chunk, or a whole response."""
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
                self.finish[choice.index] = choice.finish_reason
                self.chunks[choice.index].ended_at = time.perf_counter()

    def results(self) -> list[ChoiceResult]:
        """Return the choices once the response has ended."""
        begun = sum(bool(texts or finish) for texts, finish in zip(self.texts, self.finish, strict=True))
        if self.usage is not None and 0 < begun < len(self.texts):
            raise ChoicesMissing(f"sent {begun} of {len(self.texts)} answers")
        reasons = [_finish_reason(finish) for finish in self.finish]
        if self.usage is None:
            raise CallError("UsageMissing", "the server's answer has no usage: its tokens cannot be counted")
        total = _usage(
            self.usage.prompt_tokens, self.usage.completion_tokens,
            getattr(self.usage, "prompt_tokens_details", None), getattr(self.usage, "completion_tokens_details", None),
        )  # fmt: skip
        shares = share(total.output_tokens, [len(texts) for texts in self.texts])
        reasoning: Sequence[int | None] = [None] * len(shares)
        if total.reasoning_tokens is not None:
            reasoning = share(total.reasoning_tokens, shares)
        return [
            ChoiceResult(
                text="".join(texts), finish_reason=reason, output_tokens=tokens, reasoning_tokens=thought,
                request_usage=total, model=optional_text(self.model), chunks=chunks,
                system_fingerprint=optional_text(self.fingerprint),
            )
            for texts, reason, tokens, thought, chunks in zip(
                self.texts, reasons, shares, reasoning, self.chunks, strict=True
            )
        ]  # fmt: skip


async def read_choices(
    response: Any, streamed: bool, count: int, *, text: Callable[[Any, bool], str | None]
) -> list[ChoiceResult]:
    """Read the choices of a chat or completions request.

    Args:
        response: the SDK's stream of chunks, or its whole response.
        streamed: whether the response is a stream.
        count: how many choices were requested.
        text: returns the text of a choice, given whether the choice is a chunk's.

    Raises:
        CallError: the stream was cut, a choice has no finish reason, or there is no usage.
        ChoicesMissing: the service ended its stream, and some choices never began.
    """
    choices = _ChoiceAccumulator(
        texts=[[] for _ in range(count)], chunks=[ChunkTimes() for _ in range(count)], finish=[None] * count
    )
    async for chunk in _chunks(response, streamed):
        choices.add(chunk, text, streamed=streamed)
    return choices.results()


async def read_response(response: Any, streamed: bool, _count: int) -> list[ChoiceResult]:
    """Read the one choice of a responses request; the arguments are those of `read_choices`.

    Raises:
        CallError: the stream was cut, or the response has no usage.
        StreamedError: the response is an error.
    """
    chunks = ChunkTimes()
    if not streamed:
        return [_response_result(response, chunks)]
    final = None
    async for event in _chunks(response, streamed):
        if event.type.endswith(".delta") and event.delta:
            chunks.add(has_text=not event.type.startswith("response.reasoning"))
        elif event.type in _FINAL_EVENTS:
            final = event.response
        elif event.type == "error":
            raise StreamedError(event.code, str(event.message), default=RETRY)
    if final is None:
        raise _cut()
    return [_response_result(final, chunks)]


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
    if final.status == "failed" and final.error:
        raise StreamedError(str(final.error.code), str(final.error.message), default=REFUSED)
    if final.status == "failed" or final.usage is None:
        raise CallError("ResponseFailed", f"the answer has status {final.status!r} and no text")
    reason = final.incomplete_details.reason if final.incomplete_details else "stop"
    total = _usage(
        final.usage.input_tokens, final.usage.output_tokens,
        getattr(final.usage, "input_tokens_details", None), getattr(final.usage, "output_tokens_details", None),
    )  # fmt: skip
    return ChoiceResult(
        text=final.output_text, finish_reason=_finish_reason(reason), output_tokens=total.output_tokens,
        reasoning_tokens=total.reasoning_tokens, request_usage=total, model=optional_text(final.model), chunks=chunks,
    )  # fmt: skip


def _usage(input_tokens: Any, output_tokens: Any, input_details: Any, output_details: Any) -> Usage:
    """Return a request's usage; not every server counts the tokens of its cache, or of reasoning."""
    reasoning_tokens = getattr(output_details, "reasoning_tokens", None)
    return Usage(
        input_tokens=token_count(input_tokens),
        output_tokens=token_count(output_tokens),
        cached_input_tokens=token_count(getattr(input_details, "cached_tokens", None) or 0),
        cache_written_tokens=token_count(getattr(input_details, "cache_write_tokens", None) or 0),
        reasoning_tokens=None if reasoning_tokens is None else token_count(reasoning_tokens),
    )


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
        content_type = response.response.headers.get("content-type")
        message = f"no event in the answer, whose content type is {content_type!r}: check the provider's address"
        raise CallError("EmptyAnswer", message, RETRY)


def _has_reasoning(choice: Any) -> bool:
    """Return whether a chunk's choice has reasoning; servers have two names for that field, OpenAI has none."""
    delta = getattr(choice, "delta", None)
    return bool(getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None))


def _finish_reason(reason: str | None) -> FinishReason:
    if reason is None:
        raise _cut()
    if reason not in _FINISH_REASONS:
        log.warning("finish reason %r is not known", reason)
    return _FINISH_REASONS.get(reason, "unknown")


def _cut() -> CallError:
    message = "the answer ended without a finish reason: the connection was cut"
    return CallError("StreamCut", message, RETRY)
