"""What the errors of Bedrock and boto3 mean: which may pass, which concern one prompt, and which every further request.

Codes are those of AWS's "Troubleshooting Amazon Bedrock API Error Codes".
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.providers.base import UNREACHABLE, CallError, retry_after_s

GENERATING = "bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream, and the account access to the model"
LISTING = "bedrock:ListFoundationModels and bedrock:ListInferenceProfiles"
"""The rights that a call needs."""


@contextlib.contextmanager
def call_errors(where: str, *, rights: str) -> Iterator[None]:
    """Turn whatever boto3 raises into a CallError.

    Args:
        where: names model and region, for errors that are about them.
        rights: what the caller must be allowed, for those that say it is not.
    """
    import urllib3
    from botocore import eventstream, exceptions, parsers

    unreadable = (eventstream.ParserError, parsers.ResponseParserError, json.JSONDecodeError)
    try:
        yield
    except exceptions.ClientError as error:  # also what came inside a stream
        raise _verdict(error.response, where, rights) from error
    except (exceptions.BotoCoreError, urllib3.exceptions.HTTPError) as error:
        raise _transport_error(error) from error
    except unreadable as error:
        raise CallError("UnreadableAnswer", first_line(error), retryable=True) from error


def _transport_error(error: Exception) -> CallError:
    """Say whether the service could be reached; botocore leaves errors within a stream to urllib3."""
    import urllib3
    from botocore import exceptions as sdk

    kind, message = type(error).__name__, first_line(error)
    if isinstance(error, sdk.SSLError):
        return CallError(kind, f"{message}: check provider.endpoint_url and AWS_CA_BUNDLE", fatal=True, unbilled=True)
    if isinstance(error, sdk.ConnectionError):
        return CallError(
            UNREACHABLE, f"{message}: check provider.region and the network", retryable=True, unbilled=True
        )
    if isinstance(error, sdk.HTTPClientError | urllib3.exceptions.HTTPError):
        return CallError(kind, message, retryable=True)
    unusable = (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.TokenRetrievalError,
        sdk.SSOError,
        sdk.NoRegionError,
        sdk.InvalidEndpointConfigurationError,
    )
    return CallError(kind, message, fatal=isinstance(error, unusable), unbilled=True)


def first_line(error: Exception) -> str:
    """Return what an error says first."""
    return str(error).partition("\n")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Treatment:
    """What an error code means. `quoted` is False where the service's words hold parts of the signature."""

    retryable: bool = False
    throttled: bool = False
    fatal: bool = False
    quoted: bool = True
    advice: str = ""


_AGAIN = _Treatment(retryable=True)
_BUSY = _Treatment(retryable=True, throttled=True)
_CREDENTIALS = _Treatment(
    fatal=True,
    quoted=False,
    advice="AWS does not accept the credentials: check AWS_PROFILE or provider.profile, AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_BEARER_TOKEN_BEDROCK, and this machine's clock",
)
_EXPIRED = _Treatment(
    fatal=True, quoted=False, advice="the AWS session has expired: sign in again (aws sso login) or renew the token"
)
_NO_ACCESS = _Treatment(
    fatal=True,
    advice="the AWS user or role (AWS_PROFILE or provider.profile) needs {rights}",
)
_NO_MODEL = _Treatment(
    fatal=True,
    advice="set model.id to one that provider.region has; many models are reached through an inference profile only "
    "(model.id=us.MODEL, eu.MODEL, apac.MODEL, global.MODEL)",
)
_QUOTA = _Treatment(fatal=True, advice="ask for a higher quota (AWS Service Quotas), or use another region or model")

_BY_CODE: Mapping[str, _Treatment] = {
    "Throttling": _BUSY,
    "TooManyRequests": _BUSY,
    "ServiceUnavailable": _AGAIN,
    "ModelNotReady": _AGAIN,
    "ModelTimeout": _AGAIN,
    "ModelStreamError": _AGAIN,
    "InternalServer": _AGAIN,
    "ServiceQuotaExceeded": _QUOTA,
    "AccessDenied": _NO_ACCESS,
    "UnrecognizedClient": _CREDENTIALS,
    "InvalidSignature": _CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "ResourceNotFound": _NO_MODEL,
}
_BY_STATUS: Mapping[int, _Treatment] = {401: _CREDENTIALS, 403: _CREDENTIALS, 404: _NO_MODEL, 408: _AGAIN, 429: _BUSY}
_DAILY = re.compile(r"\bper day\b|\bdaily\b", re.IGNORECASE)
"""How a throttled call says that waiting helps tomorrow only."""
_WRONG_MODEL = re.compile(r"model identifier is invalid|on-demand throughput", re.IGNORECASE)


def _verdict(response: Mapping[str, Any], where: str, rights: str) -> CallError:
    """Return what a refusal means.

    Args:
        response: botocore's `ClientError.response`; an error inside a stream has no status and no headers.
        where, rights: as in `call_errors`.
    """
    code, message = response["Error"].get("Code", ""), response["Error"].get("Message", "").partition("\n")[0]
    metadata = response.get("ResponseMetadata", {})
    kind = (code[:1].upper() + code[1:]) or "Refused"
    found = _treatment(kind, message, metadata.get("HTTPStatusCode", 0))
    said = [message] if message and found.quoted else []
    return CallError(
        kind,
        ": ".join([*said, f"{where}: {found.advice.format(rights=rights)}"] if found.advice else said)
        or "the service said no more",
        retryable=found.retryable,
        fatal=found.fatal,
        throttled=found.throttled,
        unbilled="HTTPStatusCode" in metadata,
        retry_after_s=retry_after_s(metadata.get("HTTPHeaders", {})),
    )


def _treatment(kind: str, message: str, status: int) -> _Treatment:
    if kind == "ValidationException":
        return _NO_MODEL if _WRONG_MODEL.search(message) else _Treatment()
    if _DAILY.search(message) and kind.startswith(("Throttling", "TooManyRequests")):
        return _QUOTA
    by_status = _AGAIN if status >= 500 else _BY_STATUS.get(status, _Treatment())
    return _BY_CODE.get(kind.removesuffix("Exception"), by_status)
