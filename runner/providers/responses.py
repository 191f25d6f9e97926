"""Checks responses while they are read, so that a malformed response fails its own call only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from runner.providers.errors import RETRY, CallError
from runner.text import excerpt
from runner.types import Usage

_MIN_ANSWER_BYTES = 1 << 20
"""What any answer may have: a list of models, an error's page, the prompt repeated."""
_BYTES_PER_TOKEN = 4096
"""Ten times what services send: an event of 100 to 400 bytes a token, with log probabilities 2,000."""
_MIN_CHUNKS, _CHUNKS_PER_TOKEN = 1024, 16
"""A token has at most a chunk; some servers send a chunk a character, and empty ones to keep a connection alive."""

max_bytes_to_read: ContextVar[int] = ContextVar("max_bytes_to_read", default=_MIN_ANSWER_BYTES)
"""For the HTTP client, which reads a response before anybody else sees it: see `bounded_answer`."""

token_count: Callable[[Any], int] = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=10**9)]).validate_python
"""Returns a number of tokens unchanged. Any other value raises ValidationError, which `shape_errors` handles."""


def readable_usage(
    *,
    input_tokens: Any,
    output_tokens: Any,
    cached_input_tokens: Any = 0,
    cache_written_tokens: Any = 0,
    reasoning_tokens: Any = None,
) -> Usage:
    """Return checked token counts. What is counted as cached is at most the input, and reasoning at most the output.

    Raises:
        ValidationError: a count is no number of tokens.
    """
    total, output = token_count(input_tokens), token_count(output_tokens)
    cached = min(token_count(cached_input_tokens), total)
    return Usage(
        input_tokens=total,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_written_tokens=min(token_count(cache_written_tokens), total - cached),
        reasoning_tokens=None if reasoning_tokens is None else min(token_count(reasoning_tokens), output),
    )


def optional_text(value: object) -> str | None:
    """Return a text unchanged; None for any other value, which makes no answer worthless."""
    return value if isinstance(value, str) else None


def too_large(what: str) -> CallError:
    """Return the error of an answer that has more than was asked for."""
    return CallError("AnswerTooLarge", f"the answer has {what}, which generation.max_tokens cannot need: not read on")


def max_answer_bytes(tokens: int) -> int:
    """Return how many bytes an answer of so many tokens may have, an event of a stream for each token included."""
    return _MIN_ANSWER_BYTES + _BYTES_PER_TOKEN * tokens


@contextmanager
def bounded_answer(tokens: int) -> Iterator[None]:
    """Bound the bytes of every response that is read inside the block to those of an answer of so many tokens."""
    with bounded_bytes(max_answer_bytes(tokens)):
        yield


@contextmanager
def bounded_bytes(max_bytes: int) -> Iterator[None]:
    """Bound the bytes of every response that begins inside the block."""
    token = max_bytes_to_read.set(max_bytes)
    try:
        yield
    finally:
        max_bytes_to_read.reset(token)


def max_answer_chunks(tokens: int) -> int:
    """Return how many chunks a stream of so many tokens may have, those without a token included."""
    return _MIN_CHUNKS + _CHUNKS_PER_TOKEN * tokens


@contextmanager
def shape_errors() -> Iterator[None]:
    """Raise CallError where a response lacks what the API promises (HTML, say). For code that only reads a response."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _malformed(f"{first['input']!r}: {first['msg']}") from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _malformed(str(error)) from error


def _malformed(reason: str) -> CallError:
    message = f"the answer is no object of the API ({excerpt(reason)}): check the provider's address"
    return CallError("MalformedAnswer", message, RETRY)
