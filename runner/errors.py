"""Owns the error tree. An error of this tree is shown as one message, without a traceback.

RunnerError                    exit code 1: the run began and could not be finished
├── OutOfMemoryError           the batch does not fit on the device
├── JournalError               the run's record cannot be written, or its outcomes cannot be read
├── ServiceError               the service refuses every further request too (quota, revoked key)
├── BudgetError                the next request could pass limits.max_cost_usd
├── TooManyFailuresError       more prompts failed than limits.max_failures allows
├── UnforeseenError            an exception that nobody foresaw: a defect of the runner or of a library
├── TrackingError              MLflow cannot store the record; the run folder is complete
├── Submitted                  exit code 0: batch jobs were left at the service, as requested
├── Interrupted                exit code 130: Ctrl-C, SIGTERM or SIGHUP
└── UsageError                 exit code 2: the request was wrong, nothing was generated
    ├── ConfigError            a key, a value, or a pair of them
    ├── PromptSetError         the prompt set cannot be read as asked
    ├── RunInUseError          the folder belongs to another run, or to another process
    ├── RecordError            a recorded run does not exist, cannot be read, or was changed
    ├── MissingPackageError    an optional package is not installed
    ├── ModelError             the model cannot be found or loaded
    └── AccessError            the service refuses every request: key, model, address or rights are wrong

A message says what is wrong, which value was given, and what to do. `summary.json` records the error's class.
"""


class RunnerError(Exception):
    """The run could not be finished; the outcomes until then are in the record."""

    exit_code = 1


class OutOfMemoryError(RunnerError):
    """The device has not enough memory for the batch."""


class JournalError(RunnerError):
    """A file of the run's record cannot be written (disk full, say), or its outcomes cannot be read."""


class ServiceError(RunnerError):
    """The service refuses requests for a reason that another request does not change (quota, revoked key)."""


class BudgetError(RunnerError):
    """The next request could cost more than is left of limits.max_cost_usd."""


class TooManyFailuresError(RunnerError):
    """More prompts failed than limits.max_failures allows."""


class UnforeseenError(RunnerError):
    """An exception that nobody foresaw, of the runner or of a library, ends the run; runner.log has its traceback."""


class TrackingError(RunnerError):
    """MLflow cannot store the record; the run folder is complete."""


class Submitted(RunnerError):  # noqa: N818 - it was requested
    """Batch jobs were submitted, and the process was told not to wait for them."""

    exit_code = 0


class Interrupted(RunnerError):  # noqa: N818 - a person requested it
    """Ctrl-C, SIGTERM or SIGHUP: no further request is sent, requests in flight are awaited."""

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
    """A recorded run does not exist, cannot be read, or was changed."""


class MissingPackageError(UsageError):
    """An optional package is needed and not installed."""

    @classmethod
    def for_extra(cls, feature: str, *, package: str, extra: str) -> "MissingPackageError":
        """Return the error for a `feature` whose `package` is missing, naming the extra that installs it."""
        return cls(
            f"{feature} needs the package {package!r}, which is not installed: "
            f"pip install 'batch-generation-runner[{extra}]' (in a clone: pip install -e '.[{extra}]')"
        )


class ModelError(UsageError):
    """The model cannot be found or loaded."""


class AccessError(UsageError):
    """The service refuses every request: key, model, address or rights are wrong."""
