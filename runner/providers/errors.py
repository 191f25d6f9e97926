"""Errors of calls to a service, and what each means for its call and for the following ones."""

import importlib.util
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from runner.config.secrets import redact
from runner.errors import MissingPackageError

UNREACHABLE = "ConnectionError"
"""The type of a CallError where no connection to the service's address can be made."""
UNSENDABLE = "UnsendablePrompt"
"""The type of an error where the prompt's text cannot be sent or tokenized."""


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
        not_billed: nothing was generated: the service was not reached, or answered with an error. The answer of any
            other failed call may have been generated, and may be billed.
        refuses_lists: the service takes no list of prompts in one request, whatever the prompts.
        advice: what a person can do.
        quotes_service: messages may repeat the service's message; some of those hold parts of a signature.
    """

    retryable: bool = False
    throttled: bool = False
    fatal: bool = False
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


def invalid_utf8(error: UnicodeEncodeError) -> str:
    """Return why a prompt cannot be sent to a service or tokenized."""
    surrogate = f"U+{ord(error.object[error.start]):04X}"
    return f"the prompt has a lone surrogate ({surrogate}), which cannot be written as UTF-8: correct its text"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a service requested in the headers `retry-after-ms` or `retry-after`; None without them."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            wait_s = float(headers[name]) * unit_s
            if math.isfinite(wait_s) and wait_s >= 0:
                return wait_s
    with suppress(KeyError, ValueError, TypeError):
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None
