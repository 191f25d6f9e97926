"""What the errors of OpenAI's API mean: which may pass, which concern one prompt, and which every further request.

One table serves them all, whether an error comes as an HTTP status or, after a 200, inside the stream.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runner.providers.base import UNREACHABLE, UNSENDABLE, CallError, no_utf8, quoted, retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What an error means for this request and the next; `advice` is what a person can do about a fatal one."""

    retryable: bool = False
    throttled: bool = False
    fatal: bool = False
    advice: str = ""


_REFUSED = _Meaning()
_AGAIN = _Meaning(retryable=True)
_BUSY = _Meaning(retryable=True, throttled=True)
_QUOTA = _Meaning(fatal=True, advice="the quota is used up")
_KEY = _Meaning(fatal=True)
"""Its advice is the provider's, which knows what it proves itself with."""
_RIGHTS = _Meaning(
    fatal=True, advice="the key has no right to this: check the project's or resource's permissions, and model.id"
)
_NO_MODEL = _Meaning(fatal=True, advice="there is no such model or address: check model.id and the provider's address")

_BY_CODE: Mapping[str, _Meaning] = {
    "insufficient_quota": _QUOTA,
    "billing_hard_limit_reached": _QUOTA,
    "billing_not_active": _QUOTA,
    "rate_limit_exceeded": _BUSY,
    "rate_limit_error": _BUSY,
    "server_error": _AGAIN,
    "internal_server_error": _AGAIN,
    "overloaded_error": _AGAIN,
    "invalid_api_key": _KEY,
    "model_not_found": _NO_MODEL,
    "context_length_exceeded": _REFUSED,
    "content_filter": _REFUSED,
    "invalid_prompt": _REFUSED,
}
"""By an error's `code` or, failing that, its `type`."""
_BY_STATUS: Mapping[int, _Meaning] = {
    401: _KEY, 402: _QUOTA, 403: _RIGHTS, 404: _NO_MODEL, 408: _AGAIN, 409: _AGAIN, 429: _BUSY,
}  # fmt: skip
_BY_TYPE: Mapping[str, _Meaning] = {"invalid_request_error": _REFUSED, "BadRequestError": _REFUSED}
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
        raise CallError(UNSENDABLE, no_utf8(error), unbilled=True) from error
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
    return CallError(type(error).__name__, said, retryable=True)


def _status(error: Any, model_id: str, key_advice: str) -> CallError:
    meaning = _meaning(_word(error.code), _word(error.type), error.status_code) or _REFUSED
    headers = error.response.headers
    asked = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    label = f"{error.status_code} {error.code}" if meaning.fatal and error.code else str(error.status_code)
    return CallError(
        type(error).__name__,
        _message(meaning, label, _said(error), model_id, key_advice),
        retryable=(meaning.retryable if asked is None else asked) and not meaning.fatal,
        fatal=meaning.fatal,
        throttled=meaning.throttled,
        unbilled=True,
        retry_after_s=retry_after_s(headers),
    )


def _streamed(error: StreamedError, model_id: str, key_advice: str) -> CallError:
    known = _meaning(error.code, error.type, None)
    meaning = known or (_AGAIN if error.passing else _REFUSED)
    named = error.type if error.code is None or error.code.isdigit() else error.code
    return CallError(
        named or "StreamError",
        _message(meaning, error.code or "", quoted(str(error)), model_id, key_advice),
        retryable=meaning.retryable,
        fatal=meaning.fatal,
        throttled=meaning.throttled,
    )


def _meaning(code: str | None, type_: str | None, status: int | None) -> _Meaning | None:
    """Return what an error means; None where neither code, status nor type is known. Some servers' code is a status."""
    known = next((_BY_CODE[word] for word in (code, type_) if word and word in _BY_CODE), None)
    if known is not None:
        return known
    if status is None and code is not None and code.isdigit():
        status = int(code)
    if status is None:
        return _BY_TYPE.get(type_ or "")
    return _AGAIN if status >= 500 else _BY_STATUS.get(status, _REFUSED)


def _word(value: Any) -> str | None:
    """Return an error's code or type as the text it should be; some servers send a number."""
    return None if value is None else str(value)


def _message(meaning: _Meaning, label: str, said: str, model_id: str, key_advice: str) -> str:
    if not meaning.fatal:
        return f"{label}: {said}" if label else said
    return f"{label} for model.id={model_id!r}: {meaning.advice or key_advice}. {said}".strip()


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


def _said(error: Any) -> str:
    """Return the server's own words: OpenAI's `message`, others' `detail` or `error`, or a body that is plain text."""
    body = error.body
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    if not body:
        return _first_line(error)
    return quoted(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))


def _first_line(error: BaseException) -> str:
    return quoted((str(error).strip() or type(error).__name__).partition("\n")[0])
