"""The values that a run's folder holds beside prompts and outcomes: what it began with, and how it ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runner import errors
from runner.errors import Interrupted, RunnerError

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""
Series = Mapping[str, Sequence[tuple[int, float]]]
"""Metrics that change during a run: pairs of step and value, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """What a run began with, and its own id: enough to resume it, or to publish it to MLflow later.

    Attributes:
        key: the run's own id, which MLflow keeps as a tag: by it a run is found again and never logged twice.
        name: what MLflow calls the run, to tell it from others in a list; not unique.
        config: the resolved configuration.
        prompts: name, source, sha256 and count of the prompt set; `file_sha256` of the file that it came from, if any.
        tags: further tags, such as Hydra's overrides.
        sweep_dir: the sweep's folder, for a job of one.
        working_dir: where the command was given; relative paths in `config` start there.
    """

    key: str
    name: str
    config: Mapping[str, Any]
    prompts: Mapping[str, Any]
    tags: Mapping[str, str]
    sweep_dir: str | None
    working_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowRunRef:
    """Which MLflow run a folder is."""

    uri: str
    experiment_id: str
    run_id: str

    @property
    def page(self) -> str:
        """Where the MLflow UI shows the run, from the server's root on."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What only the process that generated a segment of a run can measure. Each process writes its own at its end.

    Attributes:
        number: that of its outcomes. A process without outcomes leaves its number to the next.
        duration_s: from its first prompt sent to its last outcome.
        series: metrics that changed meanwhile; steps count on from the segments before.
    """

    number: int
    duration_s: float
    series: Series = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended, and its metrics by their contract names."""

    status: Status
    mlflow_run_id: str | None
    metrics: Mapping[str, float]
    series: Series = field(default_factory=dict)
    error: Mapping[str, str] | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 if every prompt has its answer, 130 if interrupted, 2 if the request was refused, else 1."""
        if self.status == "KILLED":
            return Interrupted.exit_code
        if self.status == "FINISHED":
            return 1 if self.metrics.get("failed_prompts") else 0
        return _exit_code(self.error["type"]) if self.error and not self.metrics else RunnerError.exit_code


_RENAMED_ERRORS = {"RequestError": "UsageError", "TakenError": "RunInUseError"}
"""Today's names of error classes that earlier versions recorded under another name."""


def _exit_code(error_type: str) -> int:
    """Return the exit code of a recorded class of `runner.errors`; 1 for any other."""
    kind = getattr(errors, _RENAMED_ERRORS.get(error_type, error_type), RunnerError)
    return kind.exit_code if isinstance(kind, type) and issubclass(kind, RunnerError) else RunnerError.exit_code


def summary_of_failure(error: BaseException) -> Summary:
    """Return the summary of a run that ended before it had metrics."""
    description = {"type": type(error).__name__, "message": str(error)}
    return Summary(status=status_after(error), mlflow_run_id=None, metrics={}, error=description)


def status_after(error: BaseException) -> Status:
    """Return KILLED for an interrupt, FAILED for anything else."""
    return "KILLED" if isinstance(error, KeyboardInterrupt | Interrupted) else "FAILED"


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what changed in code, packages and machine, a text each; nothing if it is not known how it was."""
    if not before:
        return []
    old, new = dict(_leaves(before)), dict(_leaves(now))
    names = dict.fromkeys((*old, *new))
    return [f"{name}: {old.get(name)} before, {new.get(name)} now" for name in names if old.get(name) != new.get(name)]


def _leaves(environment: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in ("git", "python", "os", "cpu", "packages"):
        value = environment.get(section)
        if isinstance(value, Mapping):
            yield from ((f"{section}.{name}", inner) for name, inner in value.items())
        else:
            yield section, value
