"""Errors of calls to a service, and what each means for its call and for the following ones."""

import errno
import importlib.util
import logging
import math
import resource
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from runner.config.secrets import redact
from runner.errors import MissingPackageError

log = logging.getLogger(__name__)

UNREACHABLE = "ConnectionError"
"""The type of a CallError where no connection to the service's address can be made."""
UNSENDABLE = "UnsendablePrompt"
"""The type of an error where the prompt's text cannot be sent or tokenized."""

REPEATED = "prompt %s: the answer's text repeats the key: outcomes.jsonl keeps texts as they are: do not pass it on"
"""The warning where a text has a secret of this process."""


def require_packages(provider: str, *packages: str) -> None:
    """Import no package, but make sure that each is installed.

    Args:
        provider: its name, which is also that of the extra with its packages.
        packages: names to import.

    Raises:
        MissingPackageError: a package is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError.for_extra(f"provider={provider}", package=package, extra=provider)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPolicy:
    """What an error means for this request and for others.

    Attributes:
        retryable: sending the request again may help.
        throttled: the service accepts no further request for a while, of this call or of any other.
        fatal: no other request will be answered either, until a person changes something: see `advice`.
        may_concern_one_prompt: once others were answered, a fatal error may be the answer to this prompt alone
            (moderation, a firewall).
        not_billed: nothing was generated: the service was not reached, or answered with an error. The answer of any
            other failed call may have been generated, and may be billed.
        refuses_lists: the service takes no list of prompts in one request, whatever the prompts.
        advice: what a person can do.
        quotes_service: messages may repeat the service's message; some of those hold parts of a signature.
    """

    retryable: bool = False
    throttled: bool = False
    fatal: bool = False
    may_concern_one_prompt: bool = False
    not_billed: bool = False
    refuses_lists: bool = False
    advice: str = ""
    quotes_service: bool = True


REFUSED = ErrorPolicy()
RETRY = ErrorPolicy(retryable=True)
THROTTLED = ErrorPolicy(retryable=True, throttled=True)
FATAL = ErrorPolicy(fatal=True)


class CallError(Exception):
    """A call to a service has no answer.

    Args:
        type: the SDK's or the service's name for the error.
        message: the service's message, or the reason why there is none; without secrets.
        policy: what the error means.
        retry_after_s: the wait that the service requested; None if it requested none.
    """

    def __init__(
        self, type: str, message: str, policy: ErrorPolicy = REFUSED, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{type}: {message}")
        self.type, self.message, self.policy, self.retry_after_s = type, message, policy, retry_after_s


@contextmanager
def redact_errors(secrets: Collection[str]) -> Iterator[None]:
    """Redact secrets in every CallError: messages are written to disk, and some services repeat a request's headers."""
    try:
        yield
    except CallError as error:
        type_, message = redact(error.type, secrets), redact(error.message, secrets)
        raise CallError(type_, message, error.policy, retry_after_s=error.retry_after_s) from None


def warn_of_plain_http(address: str) -> None:
    """Warn where credentials and prompts are sent to another machine without encryption."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "http" and not (host == "localhost" or host == "::1" or host.startswith("127.")):
        log.warning(
            "credentials and prompts are sent to %s over plain http, where others can read them: use https", host
        )


def invalid_utf8(error: UnicodeEncodeError) -> str:
    """Return why a prompt cannot be sent to a service or tokenized."""
    surrogate = f"U+{ord(error.object[error.start]):04X}"
    return f"the prompt has a lone surrogate ({surrogate}), which cannot be written as UTF-8: correct its text"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def too_many_open_files(error: BaseException) -> CallError | None:
    """Return the CallError where an error's cause is this process's limit of open files; None for any other cause."""
    if not any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in causes(error)):
        return None
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    message = (
        f"this process may have {max_files} files open, and all are: lower batch.size, or raise the limit (ulimit -n)"
    )
    return CallError("TooManyOpenFiles", message, ErrorPolicy(retryable=True, not_billed=True))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a service requested in the headers `retry-after-ms` or `retry-after`; None without them."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            wait_s = float(headers[name]) * unit_s
            if math.isfinite(wait_s) and wait_s >= 0:
                return wait_s
    with suppress(KeyError, ValueError, TypeError, OverflowError):  # a year of 0 or 10000, a time zone of days
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None
