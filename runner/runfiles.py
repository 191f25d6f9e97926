"""What stands in a run's folder beside prompts and outcomes: what it began with, where it ran, how it ended."""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from runner.config import RunConfig
from runner.errors import Interrupted, JournalError, RecordError, TakenError

CONFIG, ENVIRONMENT, SUMMARY, ORIGIN = "config.yaml", "environment.json", "summary.json", "run.json"
SEGMENTS = "segments.json"
TRACKED = "tracking.json"
"""Which MLflow run the folder is; written by the process that tells MLflow."""

T = TypeVar("T")
STARTED_IN = Path.cwd()
"""Where the command was given, and where its messages are read: resume changes to where the run began."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""


def as_typed(path: Path) -> str:
    """Return the path as one would type it where the command was given."""
    return str(path.relative_to(STARTED_IN)) if path.is_relative_to(STARTED_IN) else str(path)


def resume_command(directory: Path) -> str:
    """Return the command that goes on with a run, to be pasted."""
    return f"python -m runner.resume {shlex.quote(as_typed(directory.absolute()))}"


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
        RecordError: there is no such run, or its file cannot be read.
    """
    path = directory / ORIGIN
    if not path.exists():
        raise RecordError(
            f"{str(directory)!r} is not the folder of a run: it has no {ORIGIN}. Give a folder below outputs/runs, or "
            "a job's folder of a sweep; a run that was refused before it began has nothing to go on from"
        )
    try:
        return Origin(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from None


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
    return _derived(directory / TRACKED, Tracked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What only the process that generated a segment of a run can say of it, and says at its end.

    Attributes:
        number: that of its outcomes. A process that got none leaves its number to the next.
        duration_s: from its first prompt sent to its last outcome.
        series: metrics that moved meanwhile: pairs of step and value, by name; the run's steps, counted on.
    """

    number: int
    duration_s: float
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


def write_segments(directory: Path, segments: Sequence[Segment]) -> None:
    """Write what the processes that generated said of themselves."""
    _write_json(directory / SEGMENTS, {"segments": [asdict(segment) for segment in segments]})


def read_segments(directory: Path) -> list[Segment]:
    """Return what `write_segments` wrote; a process that was killed said nothing."""

    def segments(segments: Sequence[Mapping[str, Any]]) -> list[Segment]:
        return [Segment(**segment) for segment in segments]

    return _derived(directory / SEGMENTS, segments) or []


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
    return _derived(directory / ENVIRONMENT, dict[str, Any]) or {}


def keep_environment(directory: Path, segment: int) -> None:
    """Keep where an earlier segment of the run ran, beside where the present one does."""
    path = directory / ENVIRONMENT
    write_whole(path.with_stem(f"{path.stem}.{segment}"), path.read_bytes())


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what is not as it was of code, packages and machine, a text each; nothing if it is not known how it was."""
    if not before:
        return []
    was, being = dict(_leaves(before)), dict(_leaves(now))
    names = dict.fromkeys((*was, *being))
    return [
        f"{name}: {was.get(name)} before, {being.get(name)} now" for name in names if was.get(name) != being.get(name)
    ]


def _leaves(environment: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for section in ("git", "python", "os", "cpu", "packages"):
        value = environment.get(section)
        if isinstance(value, Mapping):
            yield from ((f"{section}.{name}", inner) for name, inner in value.items())
        else:
            yield section, value


def write_summary(directory: Path, summary: Summary) -> None:
    """Write how the run ended."""
    _write_json(directory / SUMMARY, asdict(summary))


def forget_summary(directory: Path) -> None:
    """Remove it: the run goes on, and has no end yet."""
    (directory / SUMMARY).unlink(missing_ok=True)


def read_summary(directory: Path) -> Summary | None:
    """Return how the run ended; None while it has not."""
    return _derived(directory / SUMMARY, Summary)


def read_config(directory: Path) -> dict[str, Any]:
    """Return the recorded configuration; empty if the run was refused before it was settled.

    Raises:
        RecordError: its file cannot be read.
    """
    path = directory / CONFIG
    if not path.exists():
        return {}
    try:
        return {**yaml.safe_load(path.read_bytes())}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from None


def _derived(path: Path, kind: Callable[..., T]) -> T | None:
    """Return what a file holds that can be made again: one that is damaged, as by a machine's death, is absent."""
    try:
        return kind(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _unreadable(path: Path, error: Exception) -> RecordError:
    reason = " ".join(str(error).split()) if path.stat().st_size else "it is empty"
    return RecordError(
        f"{path} cannot be read: {reason}. It says what was asked for: restore it, or start a run of its own"
    )


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
    """Write all of a file or none of it: a reader, a kill or a machine's death in between leaves the old one.

    Raises:
        JournalError: it cannot be written (disk full, say).
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # half a file only takes the room that others may need
            beside.unlink()
        raise JournalError(f"{path} cannot be written: {error.strerror}") from None
    _sync_names(path.parent)


def _sync_names(directory: Path) -> None:
    """Have the directory's names on the disk too: a file without its name is lost to a machine that died."""
    with suppress(OSError):  # not every file system can
        folder = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
