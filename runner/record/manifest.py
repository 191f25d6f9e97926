"""The values in a run's folder other than prompts and outcomes: what the run began with, and how it ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import FiniteFloat

from runner import errors
from runner.errors import Interrupted, RunnerError, Submitted

Status = Literal["FINISHED", "FAILED", "KILLED", "SUBMITTED"]
"""MLflow's words for how a run ended, and SUBMITTED for one whose batch jobs were left at the service."""
Series = Mapping[str, Sequence[tuple[int, FiniteFloat]]]
"""Metrics that change during a run: pairs of step and value, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunManifest:
    """What a run began with, and its own id: enough to resume it, or to publish it to MLflow later.

    Attributes:
        key: a unique id, which is a tag of the MLflow run: a second publication finds that run instead of making one.
        name: the run's name in MLflow, for lists; not unique.
        config: the resolved configuration.
        prompts: name, source, sha256 and count of the prompt set; `file_sha256` of the file that it came from, if any.
        tags: further tags, such as Hydra's overrides.
        sweep_dir: the sweep's folder; None for a run outside of a sweep.
        working_dir: the working directory of the command; relative paths in `config` start there.
        folder: the run's folder relative to `working_dir`; null where it is not below. Of a record that was moved
            together with what lies beside it, relative paths start at the new place.
    """

    key: str
    name: str
    config: Mapping[str, Any]
    prompts: Mapping[str, Any]
    tags: Mapping[str, str]
    sweep_dir: str | None
    working_dir: str
    folder: str | None = None


_RUNS_NOT_TRACES = "?workflowType=machine_learning"
"""Puts the switch of MLflow's UI on model training. On its default, GenAI, an experiment opens on traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowRunRef:
    """Which MLflow run has the record of a folder."""

    uri: str
    experiment_id: str
    run_id: str

    @property
    def page(self) -> str:
        """Where the MLflow UI shows the run, from the server's root on."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}{_RUNS_NOT_TRACES}"

    @property
    def runs_page(self) -> str:
        """Where the MLflow UI lists the runs of the run's experiment."""
        return f"/#/experiments/{self.experiment_id}/runs{_RUNS_NOT_TRACES}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What only the process that generated a segment of a run can measure. Each process writes its segment at its end.

    Attributes:
        number: the `segment` of the process's outcomes. The process after one without outcomes has the same number.
        duration_s: from the first prompt sent to the last outcome; None while the process generates, and where it was
            killed.
        series: metrics that changed during the segment; their steps continue those of earlier segments.
        overrides: what the resumed run changed of the configuration for this process, by key.
    """

    number: int
    duration_s: float | None
    series: Series = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended, and its metrics by the names in `runner.metrics.METRICS`."""

    status: Status
    mlflow_run_id: str | None
    metrics: Mapping[str, FiniteFloat]
    series: Series = field(default_factory=dict)
    error: Mapping[str, str] | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 if every prompt has its answer, 130 if interrupted, 2 if the request was refused, else 1."""
        if self.status == "KILLED":
            return Interrupted.exit_code
        if self.status == "SUBMITTED":
            return Submitted.exit_code
        if self.status == "FINISHED":
            return 1 if self.metrics.get("failed_prompts") else 0
        return _exit_code(self.error["type"]) if self.error and not self.metrics else RunnerError.exit_code


_ANSWERING = ("base_url", "endpoint", "region", "device", "dtype", "model_revision")
"""What a provider resolved on loading that decides who answers, and with which numbers."""
_BESIDE = ("profile", "gpu", "attn_implementation")
"""What it resolved besides: a change is a warning."""
_RENAMED_ERRORS = {"RequestError": "UsageError", "TakenError": "RunInUseError"}
"""The present name of each error class that earlier versions recorded under another name."""


def _exit_code(error_type: str) -> int:
    """Return the exit code of a recorded class of `runner.errors`; 1 for any other."""
    recorded = getattr(errors, _RENAMED_ERRORS.get(error_type, error_type), None)
    if isinstance(recorded, type) and issubclass(recorded, RunnerError):
        return recorded.exit_code
    return RunnerError.exit_code


def summary_of_failure(error: BaseException) -> Summary:
    """Return the summary of a run that ended before it had metrics."""
    description = {"type": type(error).__name__, "message": str(error)}
    return Summary(status=status_after(error), mlflow_run_id=None, metrics={}, error=description)


def status_after(error: BaseException) -> Status:
    """Return KILLED for an interrupt, SUBMITTED for jobs that were left, FAILED for anything else."""
    if isinstance(error, Submitted):
        return "SUBMITTED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | Interrupted) else "FAILED"


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per change of code, packages and machine; none where the earlier environment is not recorded."""
    if not before:
        return []
    old, new = dict(_leaves(before)), dict(_leaves(now))
    names = dict.fromkeys((*old, *new))
    return [
        f"{name}: {old.get(name)} before, {new.get(name)} now"
        for name in names
        if old.get(name) != new.get(name) and (name in old or not name.startswith("provider."))
    ]


def resolved_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per change of what answers the prompts: where it runs, and which model in which precision it is.

    What an earlier version did not record has no change.
    """
    old, new = before.get("provider") or {}, now.get("provider") or {}
    return [
        f"provider.{name}: {old[name]} before, {new.get(name)} now"
        for name in _ANSWERING
        if name in old and _device_kind(name, old[name]) != _device_kind(name, new.get(name))
    ]


def _device_kind(name: str, value: object) -> object:
    return value.partition(":")[0] if name == "device" and isinstance(value, str) else value


def _leaves(environment: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    provider = environment.get("provider") or {}
    yield from ((f"provider.{name}", provider[name]) for name in (*_ANSWERING, *_BESIDE) if name in provider)
    for section in ("git", "python", "os", "cpu", "packages"):
        value = environment.get(section)
        if isinstance(value, Mapping):
            yield from ((f"{section}.{name}", leaf) for name, leaf in value.items())
        else:
            yield section, value
