"""What the errors of OpenAI's API mean: which may pass, which concern one prompt, and which every further request.

One table serves them all, whether an error comes as an HTTP status or, after a 200, inside the stream.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from runner.providers.errors import (
    REFUSED,
    RETRY,
    THROTTLED,
    UNREACHABLE,
    UNSENDABLE,
    CallError,
    ErrorPolicy,
    invalid_utf8,
    retry_after_s,
)
from runner.text import excerpt

_QUOTA = ErrorPolicy(fatal=True, advice="the quota is used up")
_KEY = ErrorPolicy(fatal=True)
"""Its advice is the provider's, which knows what it proves itself with."""
_RIGHTS = ErrorPolicy(
    fatal=True, advice="the key has no right to this: check the project's or resource's permissions, and model.id"
)
_NO_MODEL = ErrorPolicy(
    fatal=True, advice="there is no such model or address: check model.id and the provider's address"
)

_UNSENT = ErrorPolicy(not_billed=True)
_BY_CODE: Mapping[str, ErrorPolicy] = {
    "insufficient_quota": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "rate_limit_exceeded": THROTTLED,
    "rate_limit_error": THROTTLED,
    "server_error": RETRY,
    "internal_server_error": RETRY,
    "overloaded_error": RETRY,
    "invalid_api_key": _KEY,
    "model_not_found": _NO_MODEL,
    "context_length_exceeded": REFUSED,
    "content_filter": REFUSED,
    "invalid_prompt": REFUSED,
}
"""By an error's `code` or, failing that, its `type`."""
_BY_STATUS: Mapping[int, ErrorPolicy] = {
    401: _KEY, 402: _QUOTA, 403: _RIGHTS, 404: _NO_MODEL, 408: RETRY, 409: RETRY, 429: THROTTLED,
}  # fmt: skip
_BY_TYPE: Mapping[str, ErrorPolicy] = {"invalid_request_error": REFUSED, "BadRequestError": REFUSED}
"""Types that say something only where there is no status: over HTTP a wrong key is an invalid_request_error too."""


class StreamedError(Exception):
    """An error that came inside an answer, after its 200: the answer may have been generated in part, and be billed.

    Args:
        code: the service's, if it gave one.
        message: its words.
        passing: whether an error that is not known may pass.
    """

    def __init__(self, code: str | None, message: str, *, type_: str | None = None, passing: bool) -> None:
        super().__init__(message)
        self.code, self.type, self.passing = code, type_, passing


@contextmanager
def call_errors(model_id: str, *, key_advice: str) -> Iterator[None]:
    """Raise CallError for whatever the SDK, or the connection under it, raises.

    Args:
        model_id: for errors that no request to the model can get past.
        key_advice: what to do where the service does not accept who is asking.
    """
    import aiohttp
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise _status(error, model_id, key_advice) from error
    except openai.APIConnectionError as error:
        raise _connection(error) from error
    except StreamedError as error:
        raise _streamed(error, model_id, key_advice) from error
    except openai.APIError as error:  # what the SDK finds in a chat or completions stream
        found = StreamedError(_word(error.code), _said(error), type_=_word(error.type), passing=True)
        raise _streamed(found, model_id, key_advice) from error
    except UnicodeEncodeError as error:
        raise CallError(UNSENDABLE, invalid_utf8(error), _UNSENT) from error
    except (httpx2.HTTPError, aiohttp.ClientError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> CallError:
    """Say what came instead of an answer. In the middle of a stream, the SDK lets its client's own errors through."""
    import aiohttp
    import httpx2

    said = _first_line(error)
    if isinstance(error, aiohttp.ClientError):
        said = "the answer is not HTTP"
    elif not isinstance(error, httpx2.HTTPError):
        said = f"the answer is not JSON: {said}"
    return CallError(type(error).__name__, said, RETRY)


def _status(error: Any, model_id: str, key_advice: str) -> CallError:
    policy = _policy(_word(error.code), _word(error.type), error.status_code) or REFUSED
    headers = error.response.headers
    asked = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    label = f"{error.status_code} {error.code}" if policy.fatal and error.code else str(error.status_code)
    return CallError(
        type(error).__name__,
        _message(policy, label, _said(error), model_id, key_advice),
        replace(policy, retryable=(policy.retryable if asked is None else asked) and not policy.fatal, not_billed=True),
        retry_after_s=retry_after_s(headers),
    )


def _streamed(error: StreamedError, model_id: str, key_advice: str) -> CallError:
    known = _policy(error.code, error.type, None)
    policy = known or (RETRY if error.passing else REFUSED)
    named = error.type if error.code is None or error.code.isdigit() else error.code
    return CallError(
        named or "StreamError",
        _message(policy, error.code or "", excerpt(str(error)), model_id, key_advice),
        policy,
    )


def _policy(code: str | None, type_: str | None, status: int | None) -> ErrorPolicy | None:
    """Return what an error means; None where neither code, status nor type is known. Some servers' code is a status."""
    known = next((_BY_CODE[word] for word in (code, type_) if word and word in _BY_CODE), None)
    if known is not None:
        return known
    if status is None and code is not None and code.isdigit():
        status = int(code)
    if status is None:
        return _BY_TYPE.get(type_ or "")
    return RETRY if status >= 500 else _BY_STATUS.get(status, REFUSED)


def _word(value: Any) -> str | None:
    """Return an error's code or type as the text it should be; some servers send a number."""
    return None if value is None else str(value)


def _message(policy: ErrorPolicy, label: str, said: str, model_id: str, key_advice: str) -> str:
    if not policy.fatal:
        return f"{label}: {said}" if label else said
    return f"{label} for model.id={model_id!r}: {policy.advice or key_advice}. {said}".strip()


def _connection(error: Any) -> CallError:
    host = error.request.url.host
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) or "certificate" in str(cause).lower():
            message = (
                f"TLS: {_first_line(cause)}: check the address's certificate (SSL_CERT_FILE names your own authority)"
            )
            return CallError("TLSError", message, ErrorPolicy(fatal=True, not_billed=True))
        if _was_reached(cause):
            said = f"{host} closed the connection before its answer was whole"
            return CallError("ConnectionLost", said, RETRY)
    message = (
        f"cannot reach {host}: {_first_line(error.__cause__ or error)}: check the provider's address and the network"
    )
    return CallError(UNREACHABLE, message, ErrorPolicy(retryable=True, not_billed=True))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _was_reached(error: BaseException) -> bool:
    """Return whether a connection was there, and was lost: that may be a single prompt's doing."""
    import aiohttp

    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)
    return isinstance(error, lost) and not isinstance(error, aiohttp.ClientConnectorError)


def _said(error: Any) -> str:
    """Return the server's own words: OpenAI's `message`, others' `detail` or `error`, or a body that is plain text."""
    body = error.body
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    if not body:
        return _first_line(error)
    return excerpt(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))


def _first_line(error: BaseException) -> str:
    return excerpt((str(error).strip() or type(error).__name__).partition("\n")[0])
