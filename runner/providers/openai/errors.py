"""Policies for the errors of OpenAI's API, which come as an HTTP status or, after a 200, inside the stream."""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.providers.errors import (
    REFUSED,
    RETRY,
    THROTTLED,
    UNREACHABLE,
    UNSENDABLE,
    CallError,
    ErrorPolicy,
    causes,
    invalid_utf8,
    retry_after_s,
    too_many_open_files,
)
from runner.text import excerpt, first_line

if TYPE_CHECKING:
    import openai

_QUOTA = ErrorPolicy(fatal=True, advice="the quota is used up")
_KEY = ErrorPolicy(fatal=True, may_concern_one_prompt=True)
"""Without advice, which is the credential's, and depends on whether a key or an identity was refused."""
_RIGHTS = ErrorPolicy(
    fatal=True,
    may_concern_one_prompt=True,
    advice="the key has no right to this: check the project's or resource's permissions, and model.id",
)
_NO_MODEL = ErrorPolicy(
    fatal=True,
    may_concern_one_prompt=True,
    advice="there is no such model or address: check model.id and the provider's address",
)

_BY_CODE: Mapping[str, ErrorPolicy] = {
    "insufficient_quota": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "rate_limit_exceeded": THROTTLED,
    "rate_limit_error": THROTTLED,
    "server_error": RETRY,
    "internal_server_error": RETRY,
    "overloaded_error": RETRY,
    "request_timeout": RETRY,
    "invalid_api_key": _KEY,
    "model_not_found": _NO_MODEL,
    "context_length_exceeded": REFUSED,
    "content_filter": REFUSED,
    "invalid_prompt": REFUSED,
}
"""By an error's `code` or, failing that, its `type`. request_timeout: in a job's results, the answer took too long."""
_BY_STATUS: Mapping[int, ErrorPolicy] = {
    401: _KEY, 402: _QUOTA, 403: _RIGHTS, 404: _NO_MODEL, 408: RETRY, 409: RETRY, 429: THROTTLED,
}  # fmt: skip
_BY_TYPE: Mapping[str, ErrorPolicy] = {"invalid_request_error": REFUSED, "BadRequestError": REFUSED}
"""Read only where there is no status: over HTTP, the type of a wrong key is invalid_request_error too."""
_SHOULD_RETRY: Mapping[str, bool] = {"true": True, "false": False}
"""By the header x-should-retry, with which the service overrides the status."""


class StreamedError(Exception):
    """An error inside a response, after its 200: a part may have been generated, and be billed.

    Args:
        code: the service's code, if the error has one.
        message: the service's message.
        type: the service's type, if the error has one.
        default: the policy if neither code nor type is known.
    """

    def __init__(self, code: str | None, message: str, *, type: str | None = None, default: ErrorPolicy) -> None:
        super().__init__(message)
        self.code, self.type, self.default = code, type, default


@contextmanager
def call_errors(model_id: str, *, key_advice: str) -> Iterator[None]:
    """Raise CallError for whatever the SDK, or the connection under it, raises.

    Args:
        model_id: named in the message of a fatal error.
        key_advice: added to the message where the service does not accept the credential.
    """
    import aiohttp
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise _from_status(error, model_id, key_advice) from error
    except openai.APIConnectionError as error:
        raise _from_connection(error) from error
    except StreamedError as error:
        raise _from_stream(error, model_id, key_advice) from error
    except openai.APIError as error:  # what the SDK finds in a chat or completions stream
        streamed = StreamedError(_as_text(error.code), _message(error), type=_as_text(error.type), default=RETRY)
        raise _from_stream(streamed, model_id, key_advice) from error
    except UnicodeEncodeError as error:
        raise CallError(UNSENDABLE, invalid_utf8(error), ErrorPolicy(not_billed=True)) from error
    except (httpx2.HTTPError, aiohttp.ClientError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> CallError:
    """Return the error of an unreadable response. Within a stream, the SDK raises the errors of its HTTP client."""
    import aiohttp
    import httpx2

    message = excerpt(first_line(error))
    if isinstance(error, aiohttp.ClientError):
        message = "the answer is not HTTP"
    elif not isinstance(error, httpx2.HTTPError):
        message = f"the answer is not JSON: {message}"
    return CallError(type(error).__name__, message, RETRY)


def error_of_result(status: int | None, error: object) -> CallError:
    """Return the error of a batch job's result that is no answer.

    Args:
        status: what the request would have been answered with; None where it was not answered.
        error: the error's JSON.
    """
    fields = error if isinstance(error, Mapping) else {}
    code, type_ = _as_text(fields.get("code")), _as_text(fields.get("type"))
    status = status if status is not None and status >= 100 else None  # 0 comes where the service lost the request
    policy = _policy(code, type_, status) or RETRY
    message = fields.get("message") or error or "the service gives no reason"
    name = code or type_ or ("NoAnswer" if status is None else f"Status{status}")
    return CallError(name, excerpt(str(message)), replace(policy, not_billed=status is not None))


def _from_status(error: "openai.APIStatusError", model_id: str, key_advice: str) -> CallError:
    policy = _policy(_as_text(error.code), _as_text(error.type), error.status_code) or REFUSED
    headers = error.response.headers
    retryable = _SHOULD_RETRY.get(headers.get("x-should-retry", ""), policy.retryable) and not policy.fatal
    label = f"{error.status_code} {error.code}" if policy.fatal and error.code else str(error.status_code)
    return CallError(
        type(error).__name__,
        _explain(policy, label, _message(error), model_id, key_advice),
        replace(policy, retryable=retryable, not_billed=True),
        retry_after_s=retry_after_s(headers),
    )


def _from_stream(error: StreamedError, model_id: str, key_advice: str) -> CallError:
    policy = _policy(error.code, error.type, None) or error.default
    name = error.type if error.code is None or error.code.isdigit() else error.code
    message = _explain(policy, error.code or "", excerpt(str(error)), model_id, key_advice)
    return CallError(name or "StreamError", message, policy)


def _policy(code: str | None, type_: str | None, status: int | None) -> ErrorPolicy | None:
    """Return what an error means; None where neither code, status nor type is known. Some servers' code is a status."""
    if policy := _BY_CODE.get(code or "") or _BY_CODE.get(type_ or ""):
        return policy
    if status is None and code is not None and code.isdigit():
        status = int(code)
    if status is None:
        return _BY_TYPE.get(type_ or "")
    return RETRY if status >= 500 else _BY_STATUS.get(status, REFUSED)


def _as_text(value: object) -> str | None:
    """Return an error's code or type as the text that the API promises; some servers send a number."""
    return None if value is None else str(value)


def _explain(policy: ErrorPolicy, label: str, message: str, model_id: str, key_advice: str) -> str:
    if not policy.fatal:
        return f"{label}: {message}" if label else message
    return f"{label} for model.id={model_id!r}: {policy.advice or key_advice}. {message}".strip()


def _from_connection(error: "openai.APIConnectionError") -> CallError:
    """Return the error of a refused certificate, of a lost connection (one prompt may be why), or of no connection."""
    if open_files := too_many_open_files(error):
        return open_files
    host = error.request.url.host
    for cause in causes(error):
        if isinstance(cause, CallError):
            return cause
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = excerpt(first_line(cause))
            message = f"TLS: {reason}: check the address's certificate (SSL_CERT_FILE names your own authority)"
            return CallError("TLSError", message, ErrorPolicy(fatal=True, not_billed=True))
        if lost := _lost_connection(cause, host):
            return lost
    reason = excerpt(first_line(error.__cause__ or error))
    message = f"cannot reach {host}: {reason}: check the provider's address and the network"
    return CallError(UNREACHABLE, message, ErrorPolicy(retryable=True, not_billed=True))


def _lost_connection(cause: BaseException, host: str) -> CallError | None:
    """Return the error of a connection that ended, or went silent, after it was made; None for any other cause."""
    import aiohttp
    import httpx2

    of_asynchronous_client = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)
    of_blocking_client = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
    if isinstance(cause, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return CallError("Timeout", f"{host} did not answer in time", RETRY)
    if isinstance(cause, aiohttp.ClientConnectorError):
        return None
    if isinstance(cause, of_asynchronous_client + of_blocking_client):
        return CallError("ConnectionLost", f"{host} closed the connection before its answer was whole", RETRY)
    return None


def _message(error: "openai.APIError") -> str:
    """Return the service's message: OpenAI's `message`, others' `detail` or `error`, or a body that is plain text."""
    body = error.body
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    if not body:
        return excerpt(first_line(error))
    return excerpt(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))
