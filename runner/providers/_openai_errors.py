"""What the errors of OpenAI's SDK mean: which may pass, which concern one prompt, and which every further request."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runner.providers.base import UNREACHABLE, UNSENDABLE, CallError, no_utf8

_FATAL: Mapping[int, str] = {
    401: "the key is not accepted: check the environment variable that provider.api_key_env names",
    403: "the key has no right to this: check the project's or resource's permissions, and model.id",
    404: "there is no such model or address: check model.id and the provider's address",
}
_RETRYABLE = frozenset({408, 409, 429})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


@contextmanager
def call_errors(model_id: str) -> Iterator[None]:
    """Raise CallError for whatever the SDK, or the connection under it, raises."""
    import aiohttp
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise _status(error, model_id) from error
    except openai.APIConnectionError as error:
        raise _connection(error) from error
    except (httpx2.HTTPError, openai.APIError) as error:  # in the middle of a stream the SDK lets the first through
        raise CallError(type(error).__name__, _first_line(error), retryable=True) from error
    except UnicodeEncodeError as error:
        raise CallError(UNSENDABLE, no_utf8(error), unbilled=True) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CallError(
            type(error).__name__, f"the answer is not JSON: {_first_line(error)}", retryable=True
        ) from error
    except aiohttp.ClientError as error:  # an answer that is not HTTP: the SDK's client lets it through
        raise CallError(type(error).__name__, "the answer is not HTTP", retryable=True) from error


@contextmanager
def shape_errors() -> Iterator[None]:
    """Raise CallError where an answer lacks what the API promises (HTML, say). For code that only reads an answer."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        said = f"the answer is no object of the API ({_first_line(error)}): check the provider's address"
        raise CallError("MalformedAnswer", said, retryable=True) from error


def _status(error: Any, model_id: str) -> CallError:
    status: int = error.status_code
    kind = type(error).__name__
    if error.code in _QUOTA or error.type in _QUOTA:
        return CallError(
            kind, f"{status} {error.code}: the quota is used up: {_said(error)}", fatal=True, unbilled=True
        )
    if status in _FATAL:
        return CallError(
            kind, f"{status} for model.id={model_id!r}: {_FATAL[status]}. {_said(error)}", fatal=True, unbilled=True
        )
    retryable = error.response.headers.get("x-should-retry") == "true" or status in _RETRYABLE or status >= 500
    return CallError(
        kind,
        f"{status}: {_said(error)}",
        retryable=retryable,
        throttled=status == 429,
        unbilled=True,
        retry_after_s=_retry_after_s(error.response.headers),
    )


def _connection(error: Any) -> CallError:
    host = error.request.url.host
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) or "certificate" in str(cause).lower():
            message = (
                f"TLS: {_first_line(cause)}: check the address's certificate (SSL_CERT_FILE names your own authority)"
            )
            return CallError("TLSError", message, fatal=True, unbilled=True)
        if _was_reached(cause):
            said = f"{host} closed the connection before its answer was whole"
            return CallError("ConnectionLost", said, retryable=True)
    message = (
        f"cannot reach {host}: {_first_line(error.__cause__ or error)}: check the provider's address and the network"
    )
    return CallError(UNREACHABLE, message, retryable=True, unbilled=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _was_reached(error: BaseException) -> bool:
    """Return whether a connection was there, and was lost: that may be a single prompt's doing."""
    import aiohttp

    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)
    return isinstance(error, lost) and not isinstance(error, aiohttp.ClientConnectorError)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the service asked to wait, in seconds; the milliseconds header is the finer one."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return None


def _said(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or _first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:500]
