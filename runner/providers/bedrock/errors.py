"""Policies for the errors of Bedrock and boto3.

Source of the codes: AWS, "Troubleshooting Amazon Bedrock API Error Codes".
"""

import contextlib
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from runner.providers.errors import (
    REFUSED,
    RETRY,
    THROTTLED,
    UNREACHABLE,
    CallError,
    ErrorPolicy,
    causes,
    retry_after_s,
    too_many_open_files,
)
from runner.text import first_line

GENERATING = "bedrock:InvokeModel and bedrock:InvokeModelWithResponseStream, and the account access to the model"
LISTING = "bedrock:ListFoundationModels and bedrock:ListInferenceProfiles"
"""What the AWS user or role must be allowed for a call."""


@contextlib.contextmanager
def call_errors(where: str, *, rights: str) -> Iterator[None]:
    """Raise a CallError for whatever boto3 raises.

    Args:
        where: the model and the region, for messages.
        rights: what the AWS user or role must be allowed, for messages.
    """
    import urllib3
    from botocore import eventstream, exceptions, parsers

    unreadable = (eventstream.ParserError, parsers.ResponseParserError, json.JSONDecodeError, UnicodeDecodeError)
    try:
        yield
    except exceptions.ClientError as error:  # also what came inside a stream
        raise _refusal(error.response, where, rights) from error
    except (exceptions.BotoCoreError, urllib3.exceptions.HTTPError) as error:
        raise _transport_error(error) from error
    except unreadable as error:
        raise CallError("UnreadableAnswer", first_line(error), RETRY) from error


def _transport_error(error: Exception) -> CallError:
    """Return the error of a call that the service did not answer; within a stream, urllib3 raises it."""
    import urllib3
    from botocore import exceptions as sdk

    type_, message = type(error).__name__, first_line(error)
    if open_files := too_many_open_files(error):
        return open_files
    if isinstance(error, sdk.SSLError) and not _is_certificate(error):
        return CallError(UNREACHABLE, f"{message}: check provider.endpoint_url and the network", _UNSENT_RETRY)
    if isinstance(error, sdk.SSLError):
        return CallError(type_, f"{message}: check provider.endpoint_url and AWS_CA_BUNDLE", _UNSENT_FATAL)
    if isinstance(error, sdk.ConnectionError):
        return CallError(UNREACHABLE, f"{message}: check provider.region and the network", _UNSENT_RETRY)
    if isinstance(error, sdk.HTTPClientError | urllib3.exceptions.HTTPError):
        return CallError(type_, message, RETRY)
    unusable = (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.TokenRetrievalError,
        sdk.SSOError,
        sdk.NoRegionError,
        sdk.InvalidEndpointConfigurationError,
    )
    return CallError(type_, message, _UNSENT_FATAL if isinstance(error, unusable) else _UNSENT)


def _is_certificate(error: Exception) -> bool:
    """Return whether a certificate was not accepted; urllib3 names a wrong host only in its message."""
    return any(
        isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause)
        for cause in causes(error)
    )


_UNSENT = ErrorPolicy(not_billed=True)
_UNSENT_FATAL = ErrorPolicy(fatal=True, not_billed=True)
_UNSENT_RETRY = ErrorPolicy(retryable=True, not_billed=True)
_CREDENTIALS = ErrorPolicy(
    fatal=True,
    quotes_service=False,
    advice="AWS does not accept the credentials: check AWS_PROFILE or provider.profile, AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_BEARER_TOKEN_BEDROCK, and this machine's clock",
)
_EXPIRED = ErrorPolicy(
    fatal=True,
    quotes_service=False,
    advice="the AWS session has expired: sign in again (aws sso login) or renew the token",
)
_NO_ACCESS = ErrorPolicy(
    fatal=True,
    may_concern_one_prompt=True,
    advice="the AWS user or role (AWS_PROFILE or provider.profile) needs {rights}",
)
_NO_MODEL = ErrorPolicy(
    fatal=True,
    may_concern_one_prompt=True,
    advice="set model.id to one that provider.region has; many models are reached through an inference profile only "
    "(model.id=us.MODEL, eu.MODEL, apac.MODEL, global.MODEL)",
)
_QUOTA = ErrorPolicy(fatal=True, advice="ask for a higher quota (AWS Service Quotas), or use another region or model")

_BY_CODE: Mapping[str, ErrorPolicy] = {
    "Throttling": THROTTLED,
    "TooManyRequests": THROTTLED,
    "ServiceUnavailable": RETRY,
    "ModelNotReady": RETRY,
    "ModelTimeout": RETRY,
    "ModelStreamError": RETRY,
    "InternalServer": RETRY,
    "ServiceQuotaExceeded": _QUOTA,
    "AccessDenied": _NO_ACCESS,
    "UnrecognizedClient": _CREDENTIALS,
    "InvalidSignature": _CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "ResourceNotFound": _NO_MODEL,
}
_BY_STATUS: Mapping[int, ErrorPolicy] = {
    401: replace(_CREDENTIALS, may_concern_one_prompt=True),
    403: replace(_CREDENTIALS, may_concern_one_prompt=True),
    404: _NO_MODEL,
    408: RETRY,
    429: THROTTLED,
}
_DAILY = re.compile(r"\bper day\b|\bdaily\b", re.IGNORECASE)
"""In the message of a throttled call: the quota of a day is used up, so that a retry does not help today."""
_WRONG_MODEL = re.compile(r"model identifier is invalid|on-demand throughput", re.IGNORECASE)


def _refusal(response: Mapping[str, Any], where: str, rights: str) -> CallError:
    """Return the CallError for an error response.

    Args:
        response: botocore's `ClientError.response`; an error inside a stream has no status and no headers.
        where: as in `call_errors`.
        rights: as in `call_errors`.
    """
    code, text = response["Error"].get("Code", ""), response["Error"].get("Message", "").strip()
    message = first_line(text) if text else ""
    metadata = response.get("ResponseMetadata", {})
    type_ = (code[:1].upper() + code[1:]) or "Refused"
    policy = _policy(type_, message, metadata.get("HTTPStatusCode", 0))
    parts = [message] if message and policy.quotes_service else []
    if policy.advice:
        parts.append(f"{where}: {policy.advice.format(rights=rights)}")
    return CallError(
        type_,
        ": ".join(parts) or "the service gave no reason",
        replace(policy, not_billed="HTTPStatusCode" in metadata),
        retry_after_s=retry_after_s(metadata.get("HTTPHeaders", {})),
    )


def _policy(type_: str, message: str, status: int) -> ErrorPolicy:
    if type_ == "ValidationException":
        return _NO_MODEL if _WRONG_MODEL.search(message) else REFUSED
    if _DAILY.search(message) and type_.startswith(("Throttling", "TooManyRequests")):
        return _QUOTA
    by_status = RETRY if status >= 500 else _BY_STATUS.get(status, REFUSED)
    return _BY_CODE.get(type_.removesuffix("Exception"), by_status)
