"""How many connections this process may have open: owns its limit of open files."""

import contextlib
import resource

from runner.config.schema import BatchConfig
from runner.errors import ConfigError

_RESERVED_FILES = 64
"""Open files beside the connections: the record, logs, pipes, the event loop, files that libraries open briefly."""


def max_connections(batch: BatchConfig) -> int:
    """Return how many requests may be in flight at once: `batch.size`, or for auto as many as the system allows.

    Raises the process's soft limit of open files as far as these requests need, within the hard limit.

    Raises:
        ConfigError: `batch.size` is more than the limit of open files allows.
    """
    max_files = _raise_limit(batch.count + _RESERVED_FILES)
    connections = min(batch.count, max_files - _RESERVED_FILES)
    if connections < (1 if batch.size == "auto" else batch.count):
        raise ConfigError(
            f"batch.size={batch.size}: this process may have {max_files} files open, enough for {max(0, connections)} "
            f"requests in flight: lower batch.size, or raise the limit: ulimit -n {batch.count + _RESERVED_FILES}"
        )
    return connections


def _raise_limit(files: int) -> int:
    """Raise the soft limit of open files to `files`, or to the hard limit; return how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        raised = files if hard == resource.RLIM_INFINITY else min(files, hard)
        with contextlib.suppress(ValueError, OSError):  # a system may refuse a limit below its hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files if soft == resource.RLIM_INFINITY else soft
