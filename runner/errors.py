"""The error tree. Each of these means: one message is enough, no traceback needed.

RunnerError                    exit code 1: the run began and could not be finished
├── OutOfMemoryError           the batch does not fit on the device
├── JournalError               an outcome cannot be kept
├── ServiceError               the service will answer no further request either
├── BudgetError                the next request could pass limits.max_cost_usd
├── TooManyFailuresError       more prompts failed than limits.max_failures allows
├── TrackingError              MLflow does not take the record; the run's folder has it
├── Interrupted                exit code 130: a person or a scheduler asked the run to end
└── UsageError               exit code 2: the request was wrong, nothing was generated
    ├── ConfigError            a key, a value, or a pair of them
    ├── PromptSetError         the prompt set cannot be read as asked
    ├── RunInUseError             the folder belongs to another run, or to another process
    ├── RecordError            there is no such run, or it is not as it was recorded
    ├── MissingPackageError    an optional package is not installed
    ├── ModelError             the model cannot be found or loaded
    └── AccessError            the service answers no request: key, model, address or rights are wrong

A message says what is wrong, which value it was, and what to do.
"""


class RunnerError(Exception):
    """The run could not be finished; what was generated so far is kept."""

    exit_code = 1


class OutOfMemoryError(RunnerError):
    """The device has not enough memory for the batch."""


class JournalError(RunnerError):
    """An outcome cannot be written or read."""


class ServiceError(RunnerError):
    """The service stopped answering for a reason that another request does not change (quota, revoked key)."""


class BudgetError(RunnerError):
    """The next request could cost more than is left of limits.max_cost_usd."""


class TooManyFailuresError(RunnerError):
    """The run is going wrong: limits.max_failures is passed."""


class TrackingError(RunnerError):
    """MLflow cannot be told; the record on disk is whole."""


class Interrupted(RunnerError):  # noqa: N818 - an end that was asked for, not an error
    """Ctrl-C or SIGTERM: nothing more is sent, what is in flight is waited for."""

    exit_code = 130


class UsageError(RunnerError):
    """The request was wrong; nothing was generated or spent."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration is wrong."""


class PromptSetError(UsageError):
    """The prompt set is wrong."""


class RunInUseError(UsageError):
    """The folder belongs to another run, or another process writes to it."""


class RecordError(UsageError):
    """A recorded run cannot be found, or is not what it was."""


class MissingPackageError(UsageError):
    """An optional package is needed and not installed."""

    @classmethod
    def for_extra(cls, what: str, *, package: str, extra: str) -> "MissingPackageError":
        """Name the extra that brings `package`, which `what` needs."""
        return cls(
            f"{what} needs the package {package!r}, which is not installed: "
            f"pip install 'batch-generation-runner[{extra}]' (in a clone: pip install -e '.[{extra}]')"
        )


class ModelError(UsageError):
    """The model cannot be found or loaded."""


class AccessError(UsageError):
    """The service has answered no request at all, and will not: key, model, address or rights are wrong."""
