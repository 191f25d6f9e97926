"""How many connections this process may have open: owns its limit of open files."""

import contextlib
import resource

from runner.config.schema import BatchConfig
from runner.errors import ConfigError

_OTHERS = 64
"""Open files beside the requests': the record, logs, pipes, the event loop, what libraries open for a moment."""


def connections_for(batch: BatchConfig) -> int:
    """Return how many requests may be in flight at once: `batch.size`, or for auto as many as there can be.

    The process's limit of open files is raised as far as that takes and the system allows.

    Raises:
        ConfigError: `batch.size` is more than fits.
    """
    allowed = _raised_to(batch.count + _OTHERS)
    fitting = min(batch.count, allowed - _OTHERS)
    if fitting < (1 if batch.size == "auto" else batch.count):
        raise ConfigError(
            f"batch.size={batch.size}: this process may have {allowed} files open, enough for {max(0, fitting)} "
            f"requests in flight: lower batch.size, or raise the limit: ulimit -n {batch.count + _OTHERS}"
        )
    return fitting


def _raised_to(needed: int) -> int:
    """Raise the soft limit of open files to what is needed, or to the hard limit; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(ValueError, OSError):  # a system may refuse less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return needed if soft == resource.RLIM_INFINITY else soft
