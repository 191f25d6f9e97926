"""Reads the results of an ended batch job, each request's once."""

import logging
from collections.abc import Iterator, Set

from runner.config.schema import GenerationParams
from runner.providers.protocols import JobProvider
from runner.types import Generated

log = logging.getLogger(__name__)

_MAX_NAMED = 3
"""Unknown ids that a warning repeats."""


class JobResults:
    """Reads the results of an ended job, each request's once, whatever order and however often the service has them."""

    def __init__(
        self, provider: JobProvider, job_id: str, params: GenerationParams, expected: Set[str], answered: set[str]
    ) -> None:
        self._provider, self._job_id, self._params = provider, job_id, params
        self._expected, self._answered = expected, answered
        self._unknown: set[str] = set()
        self._doubled = 0

    def read(self) -> Iterator[tuple[str, Generated]]:
        """Yield the results that were not read before, and add their ids to those that are answered."""
        seen = set[str]()
        for result in self._provider.collect(self._job_id, self._params):
            if result.custom_id not in self._expected:
                self._unknown.add(result.custom_id)
            elif result.custom_id in seen:
                self._doubled += 1
            elif result.generated is not None:
                seen.add(result.custom_id)
                if result.custom_id not in self._answered:
                    self._answered.add(result.custom_id)
                    yield result.custom_id, result.generated

    def log_oddities(self) -> None:
        """Warn of results that the job did not ask for, or that came twice."""
        if self._unknown:
            named = ", ".join(repr(key) for key in sorted(self._unknown)[:_MAX_NAMED])
            log.warning("job %s: %d results of requests that are not its own (%s): ignored", self._job_id,
                        len(self._unknown), named)  # fmt: skip
        if self._doubled:
            log.warning("job %s: %d results came twice: the first counts", self._job_id, self._doubled)
