"""What a service sent, taken for what its API promises: checked where it is read, so that an odd answer fails alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from runner.providers.errors import RETRY, CallError
from runner.text import excerpt

_COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(strict=True, ge=0, le=10**9)])
_WORDS: TypeAdapter[str | None] = TypeAdapter(Annotated[str, Field(strict=True)] | None)


@contextmanager
def shape_errors() -> Iterator[None]:
    """Raise CallError where an answer lacks what the API promises (HTML, say). For code that only reads an answer."""
    try:
        yield
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise _malformed(f"{found['input']!r}: {found['msg']}") from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _malformed(str(error)) from error


def token_count(value: Any) -> int:
    """Return a number of tokens; raises what `shape_errors` takes for a wrong shape."""
    return _COUNT.validate_python(value)


def optional_text(value: Any) -> str | None:
    """Return a text that may be absent; raises what `shape_errors` takes for a wrong shape."""
    return _WORDS.validate_python(value)


def _malformed(found: str) -> CallError:
    said = f"the answer is no object of the API ({excerpt(found)}): check the provider's address"
    return CallError("MalformedAnswer", said, RETRY)
