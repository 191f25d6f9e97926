"""What a run returns, and what an observer of a run is called with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from runner.record.folder import RunFolder
from runner.record.jobs import JobRecord
from runner.record.manifest import MlflowRunRef, Status, Summary
from runner.types import Outcome

OnOutcomes = Callable[[Sequence[Outcome]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        summary: what summary.json has.
        folder: the run's record.
        prompts: how many prompts the set has.
        samples: the first few outcomes.
        mlflow_run: which MLflow run the record was published to; None without tracking, or if the store was
            unreachable.
        is_published: whether MLflow has everything that it is to have.
        is_interrupted: whether a signal came, be it after the last outcome: a sweep ends.
    """

    summary: Summary
    folder: RunFolder
    prompts: int
    samples: Sequence[Outcome]
    mlflow_run: MlflowRunRef | None = None
    is_published: bool = True
    is_interrupted: bool = False

    @property
    def status(self) -> Status:
        """FINISHED, FAILED or KILLED, as MLflow has it."""
        return self.summary.status

    @property
    def metrics(self) -> Mapping[str, float]:
        """By their contract names; a metric that does not exist for this run is absent."""
        return self.summary.metrics

    @property
    def exit_code(self) -> int:
        """0 if every prompt has its answer, 130 if interrupted, else 1."""
        return self.summary.exit_code


class RunObserver(Protocol):
    """Follows a run: a terminal, a notebook, a test."""

    def generating(self, total: int, *, completed: int) -> AbstractContextManager[OnOutcomes]:
        """Enter before the first prompt is sent; the value is called with each call's outcomes.

        Args:
            total: prompts in the set.
            completed: of them, those that were completed before.
        """

    def should_cancel(self, jobs: Sequence[JobRecord]) -> bool:
        """Return, at an interrupt, whether the service is to cancel these open jobs; else they go on there."""

    def finished(self, result: RunResult) -> None:
        """Take the result before MLflow is waited for."""

    def published(self, result: RunResult) -> None:
        """Take the result, with `mlflow_run` and `is_published`, once MLflow is not waited for any more."""


class SilentObserver:
    """Observes nothing."""

    @contextmanager
    def generating(self, total: int, *, completed: int) -> Iterator[OnOutcomes]:
        """Ignore all outcomes."""
        yield lambda _outcomes: None

    def should_cancel(self, jobs: Sequence[JobRecord]) -> bool:
        """Leave the jobs at the service."""
        return False

    def finished(self, result: RunResult) -> None:
        """Ignore the result."""

    def published(self, result: RunResult) -> None:
        """Ignore the result."""
