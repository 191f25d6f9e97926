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
CREATING = "bedrock:CreateModelInvocationJob, and iam:PassRole for provider.job.role_arn"
JOBS = "bedrock:GetModelInvocationJob, bedrock:ListModelInvocationJobs and bedrock:StopModelInvocationJob"
STORING = "s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket for provider.job.s3_input and s3_output"
"""What the AWS user or role must be allowed for a call."""


@contextlib.contextmanager
def call_errors(where: str, *, rights: str, policies: Mapping[str, ErrorPolicy]) -> Iterator[None]:
    """Raise a CallError for whatever boto3 raises.

    Args:
        where: the model and the region, for messages.
        rights: what the AWS user or role must be allowed, for messages.
        policies: what the call's own errors mean, by code without "Exception".
    """
    import urllib3
    from botocore import eventstream, exceptions, parsers

    unreadable = (eventstream.ParserError, parsers.ResponseParserError, json.JSONDecodeError, UnicodeDecodeError)
    try:
        yield
    except exceptions.ClientError as error:  # also what came inside a stream
        raise _refusal(error.response, where, rights, policies) from error
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
    if isinstance(error, sdk.HTTPClientError | sdk.IncompleteReadError | urllib3.exceptions.HTTPError):
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
ON_CREATE: Mapping[str, ErrorPolicy] = {
    "ServiceQuotaExceeded": replace(
        THROTTLED, advice="the account has as many jobs as its quota (Service Quotas) allows"
    ),
    "Validation": ErrorPolicy(
        fatal=True,
        advice="check provider.job.role_arn (bedrock.amazonaws.com may assume it; it reads provider.job.s3_input and "
        "writes provider.job.s3_output, which are in provider.region), and that batch inference takes model.id there",
    ),
    "ResourceNotFound": ErrorPolicy(
        fatal=True, advice="check provider.job.role_arn, provider.job.s3_input, provider.job.s3_output and model.id"
    ),
}
_NO_BUCKET = ErrorPolicy(
    fatal=True,
    advice="create the bucket in provider.region, or correct provider.job.s3_input and s3_output",
)
IN_STORAGE: Mapping[str, ErrorPolicy] = {"NoSuchBucket": _NO_BUCKET, "NoSuchKey": REFUSED}
"""What errors mean where a job is created, and of requests to S3."""
_DAILY = re.compile(r"\bper day\b|\bdaily\b", re.IGNORECASE)
"""In the message of a throttled call: the quota of a day is used up, so that a retry does not help today."""
_WRONG_MODEL = re.compile(r"model identifier is invalid|on-demand throughput", re.IGNORECASE)


def _refusal(response: Mapping[str, Any], where: str, rights: str, policies: Mapping[str, ErrorPolicy]) -> CallError:
    """Return the CallError for an error response.

    Args:
        response: botocore's `ClientError.response`; an error inside a stream has no status and no headers.
        where: as in `call_errors`.
        rights: as in `call_errors`.
        policies: as in `call_errors`.
    """
    code, text = response["Error"].get("Code", ""), response["Error"].get("Message", "").strip()
    message = first_line(text) if text else ""
    metadata = response.get("ResponseMetadata", {})
    type_ = (code[:1].upper() + code[1:]) or "Refused"
    policy = _policy(type_, message, metadata.get("HTTPStatusCode", 0), policies)
    parts = [message] if message and policy.quotes_service else []
    if policy.advice:
        parts.append(f"{where}: {policy.advice.format(rights=rights)}")
    return CallError(
        type_,
        ": ".join(parts) or "the service gave no reason",
        replace(policy, not_billed="HTTPStatusCode" in metadata),
        retry_after_s=retry_after_s(metadata.get("HTTPHeaders", {})),
    )


def record_policy(code: str, message: str) -> ErrorPolicy:
    """Return what the error of a batch job's record means. Its code is an HTTP status, or the name of an error."""
    return _policy(code, message, int(code) if re.fullmatch("[1-5][0-9]{2}", code) else 0, {})


def _policy(type_: str, message: str, status: int, policies: Mapping[str, ErrorPolicy]) -> ErrorPolicy:
    name = type_.removesuffix("Exception")
    if name == "Validation" and _WRONG_MODEL.search(message):
        return _NO_MODEL
    if name == "Validation":
        return policies.get(name, REFUSED)
    if _DAILY.search(message) and name.startswith(("Throttling", "TooManyRequests")):
        return _QUOTA
    by_status = RETRY if status >= 500 else _BY_STATUS.get(status, REFUSED)
    return policies.get(name) or _BY_CODE.get(name, by_status)
