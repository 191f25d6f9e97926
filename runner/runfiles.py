"""What stands in a run's folder beside prompts and outcomes: run.json, config.yaml, environment.json, summary.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from runner.config import RunConfig
from runner.errors import Interrupted, JournalError, RecordError, TakenError

CONFIG, ENVIRONMENT, SUMMARY, ORIGIN = "config.yaml", "environment.json", "summary.json", "run.json"
TRACKED = "tracking.json"
"""Which MLflow run the folder is; written by the process that tells MLflow."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended, and its metrics by their contract names."""

    status: Status
    mlflow_run_id: str | None
    metrics: Mapping[str, float]
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Metrics that moved during the run: pairs of step and value, by name."""
    error: Mapping[str, str] | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 if every prompt has its answer, 130 if the run was interrupted, else 1."""
        if self.status == "KILLED":
            return Interrupted.exit_code
        return 0 if self.status == "FINISHED" and not self.metrics.get("failed_prompts") else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run began with, and its name for itself: enough to go on with it, or to tell MLflow of it, later.

    Attributes:
        key: the run's own id, which MLflow keeps as a tag: by it a run is found again and never told twice.
        name: what MLflow calls it, to tell it from others in a list; not unique.
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


def write_origin(directory: Path, origin: Origin) -> None:
    """Write what the run begins with."""
    _write_json(directory / ORIGIN, asdict(origin))


def read_origin(directory: Path) -> Origin:
    """Return what the run began with.

    Raises:
        RecordError: there is no such run.
    """
    path = directory / ORIGIN
    if not path.exists():
        raise RecordError(
            f"{str(directory)!r} is not the folder of a run: it has no {ORIGIN}. Give a folder below outputs/runs, or "
            "a job's folder of a sweep; a run that was refused before it began has nothing to go on from"
        )
    return Origin(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """The MLflow run that a folder is."""

    uri: str
    experiment_id: str
    run_id: str

    @property
    def address(self) -> str:
        """Where the MLflow UI shows the run, from the server's root on."""
        return f"/#/experiments/{self.experiment_id}/runs/{self.run_id}"


def write_tracked(directory: Path, tracked: Tracked) -> None:
    """Write which MLflow run this folder is."""
    _write_json(directory / TRACKED, asdict(tracked))


def read_tracked(directory: Path) -> Tracked | None:
    """Return which MLflow run this folder is; None if MLflow has not heard of it."""
    path = directory / TRACKED
    return Tracked(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def write_config(directory: Path, config: RunConfig) -> None:
    """Write the whole resolved configuration, batch mode included."""
    values = config.model_dump(mode="json", by_alias=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_whole(directory / CONFIG, text.encode("utf-8"))


def write_environment(directory: Path, environment: Mapping[str, Any]) -> None:
    """Write what may move a result besides the configuration."""
    _write_json(directory / ENVIRONMENT, environment)


def read_environment(directory: Path) -> dict[str, Any]:
    """Return what `write_environment` wrote; empty if the run did not get that far."""
    path = directory / ENVIRONMENT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_summary(directory: Path, summary: Summary) -> None:
    """Write how the run ended."""
    _write_json(directory / SUMMARY, asdict(summary))


def forget_summary(directory: Path) -> None:
    """Remove it: the run goes on, and has no end yet."""
    (directory / SUMMARY).unlink(missing_ok=True)


def read_summary(directory: Path) -> Summary | None:
    """Return how the run ended; None while it has not."""
    path = directory / SUMMARY
    return Summary(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read_config(directory: Path) -> dict[str, Any]:
    """Return the recorded configuration; empty if the run was refused before it was settled."""
    path = directory / CONFIG
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


@contextmanager
def failure_recorded(directory: Path) -> Iterator[None]:
    """Leave a summary that says why, if what is inside does not end by itself and the folder is the run's own."""
    try:
        yield
    except TakenError:
        raise
    except BaseException as error:
        if not (directory / SUMMARY).exists():
            with suppress(JournalError):  # the disk may be what failed: the error itself says so
                write_summary(directory, _failed(error))
        raise


def _failed(error: BaseException) -> Summary:
    return Summary(
        status=ending_of(error),
        mlflow_run_id=None,
        metrics={},
        error={"type": type(error).__name__, "message": str(error)},
    )


def ending_of(error: BaseException) -> Status:
    """Return KILLED for an interrupt, FAILED for anything else."""
    return "KILLED" if isinstance(error, KeyboardInterrupt | Interrupted) else "FAILED"


def _write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode("utf-8"))


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write all of a file or none of it: a reader, or a kill, in between finds the old one.

    Raises:
        JournalError: it cannot be written (disk full, say).
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise JournalError(f"{path} cannot be written: {error.strerror}") from None
