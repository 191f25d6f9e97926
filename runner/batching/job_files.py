"""How prompts are divided into job files: ids of requests, sizes, and what the service takes."""

import logging
from collections.abc import Sequence
from hashlib import sha256

from runner.config.schema import BatchConfig
from runner.errors import ConfigError
from runner.providers.protocols import JobLimits
from runner.text import plural
from runner.types import Prompt

log = logging.getLogger(__name__)

_MANY_JOBS = 20


def custom_id(prompt: Prompt) -> str:
    """Return the id of a prompt's request in a job: 32 hexadecimal digits, whatever characters the prompt's id has."""
    return sha256(prompt.id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def job_size(config: BatchConfig, limits: JobLimits) -> int:
    """Return how many prompts a job may have."""
    return limits.max_requests if config.size == "auto" else min(config.size, limits.max_requests)


def check_job_sizes(prompts: int, size: int, limits: JobLimits) -> None:
    """Refuse prompts of which the last job would be too small, before anything is uploaded.

    Raises:
        ConfigError: the last of the jobs would have fewer prompts than the service takes.
    """
    if 0 < prompts < limits.min_requests:
        raise ConfigError(
            f"{counted_prompts(prompts)}: the service takes {limits.min_requests} in a job at least: generate them "
            "with batch.mode=concurrent (of a resumed run, prompts that failed stay as they are with --keep-failures)"
        )
    if prompts and (rest := last_job(prompts, size)) < limits.min_requests:
        raise ConfigError(
            f"{counted_prompts(prompts)} in jobs of batch.size={size} would leave a job of {rest}, and the service "
            f"takes {limits.min_requests} at least: set batch.size=auto or another number"
        )
    if prompts > _MANY_JOBS * size:
        log.warning("batch.size=%d makes %d jobs: batch.size=auto makes as few as can be", size, -(-prompts // size))


def last_job(prompts: int, size: int) -> int:
    """Return how many prompts the last of the jobs has."""
    return prompts % size or min(prompts, size)


def counted_prompts(count: int) -> str:
    """Return a number of prompts in words."""
    return f"{count:,} {plural(count, 'prompt', 'prompts')}"


def count_jobs(sizes: Sequence[int], max_requests: int, limits: JobLimits) -> int:
    """Return how many jobs lines of these sizes, in bytes, are divided into."""
    jobs = requests = in_job = 0
    for size in sizes:
        if not jobs or requests == max_requests or in_job + size > limits.max_bytes:
            jobs, requests, in_job = jobs + 1, 0, 0
        requests, in_job = requests + 1, in_job + size
    return jobs
