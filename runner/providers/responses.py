"""Checks responses while they are read, so that a malformed response fails its own call only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from runner.providers.errors import RETRY, CallError
from runner.text import excerpt

token_count: Callable[[Any], int] = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=10**9)]).validate_python
"""Returns a number of tokens unchanged. Any other value raises ValidationError, which `shape_errors` handles."""
optional_text: Callable[[Any], str | None] = TypeAdapter(Annotated[str, Field(strict=True)] | None).validate_python
"""Returns a text or None unchanged. Any other value raises ValidationError, which `shape_errors` handles."""


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
