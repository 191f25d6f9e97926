"""What the errors of OpenAI's SDK mean: which may pass, which concern one prompt, and which every further request."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runner.providers.base import UNREACHABLE, CallError

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
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise _status(error, model_id) from error
    except openai.APIConnectionError as error:
        raise _connection(error) from error
    except httpx2.HTTPError as error:  # in the middle of a stream the SDK lets it through
        raise CallError(type(error).__name__, _first_line(error), retryable=True) from error
    except (json.JSONDecodeError, UnicodeDecodeError, openai.APIError) as error:
        raise CallError(type(error).__name__, _first_line(error), retryable=True) from error
    except (AttributeError, TypeError) as error:  # an answer that is no object of the API: HTML, say
        raise CallError("MalformedAnswer", _first_line(error), retryable=True) from error


def _status(error: Any, model_id: str) -> CallError:
    status: int = error.status_code
    kind = type(error).__name__
    if error.code in _QUOTA or error.type in _QUOTA:
        return CallError(kind, f"{status} {error.code}: the quota is used up: {_said(error)}", fatal=True)
    if status in _FATAL:
        return CallError(kind, f"{status} for model.id={model_id!r}: {_FATAL[status]}. {_said(error)}", fatal=True)
    retryable = error.response.headers.get("x-should-retry") == "true" or status in _RETRYABLE or status >= 500
    return CallError(
        kind,
        f"{status}: {_said(error)}",
        retryable=retryable,
        throttled=status == 429,
        retry_after_s=_retry_after_s(error.response.headers),
    )


def _connection(error: Any) -> CallError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) or "certificate" in str(cause).lower():
            message = (
                f"TLS: {_first_line(cause)}: check the address's certificate (SSL_CERT_FILE names your own authority)"
            )
            return CallError("TLSError", message, fatal=True)
        cause = cause.__cause__ or cause.__context__
    reason = error.__cause__ or error
    message = (
        f"cannot reach {error.request.url.host}: {_first_line(reason)}: check the provider's address and the network"
    )
    return CallError(UNREACHABLE, message, retryable=True)


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
