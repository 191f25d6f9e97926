"""A run's folder: every file in it but prompts and outcomes is read and written here."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from runner.config.renamed import with_current_keys
from runner.config.schema import RunConfig
from runner.errors import JournalError, RecordError, RunInUseError
from runner.record.atomic import atomic_write
from runner.record.manifest import MlflowRunRef, RunManifest, Segment, Summary, summary_of_failure
from runner.record.outcomes import OutcomesFile
from runner.record.prompts import PackedPrompts
from runner.text import one_line

CONFIG, ENVIRONMENT, SUMMARY, MANIFEST = "config.yaml", "environment.json", "summary.json", "run.json"
SEGMENTS, MLFLOW_RUN, LOG = "segments.json", "tracking.json", "runner.log"
PROMPTS, OUTCOMES = "prompts.jsonl", "outcomes.jsonl"
LOCK, WORKER_LOCK = "run.lock", ".tracking.lock"
HYDRA = ".hydra"
"""The folder of what Hydra composed."""
SWEEP = "sweep.json"
"""In a sweep's folder: its parent run in MLflow."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: the folder.
        start: the working directory of the command; messages show paths relative to it.
    """

    path: Path
    start: Path = field(default_factory=Path.cwd)

    @property
    def display_path(self) -> str:
        """The path as a message shows it: relative to `start` where the folder is below."""
        return relative_to_start(self.path, self.start)

    @property
    def is_used(self) -> bool:
        """Whether the folder has the record of a run, or a part of one."""
        return any((self.path / name).exists() for name in (MANIFEST, OUTCOMES, SUMMARY))

    @property
    def outcomes(self) -> OutcomesFile:
        """The outcomes, for reading."""
        return OutcomesFile(self.path / OUTCOMES)

    @property
    def resume_command(self) -> str:
        """The shell command that resumes the run, for use in `start`."""
        return f"python -m runner.resume {shlex.quote(relative_to_start(self.path.absolute(), self.start))}"

    def write_manifest(self, manifest: RunManifest) -> None:
        """Write what the run begins with."""
        self._write_json(MANIFEST, asdict(manifest))

    def read_manifest(self) -> RunManifest:
        """Return what the run began with.

        Raises:
            RecordError: there is no such run, or its file cannot be read.
        """
        path = self.path / MANIFEST
        if not path.exists():
            raise RecordError(
                f"{str(self.path)!r} is not the folder of a run: it has no {MANIFEST}. Give a folder below "
                "outputs/runs, or a job's folder of a sweep; a run that was refused before it began has nothing to "
                "resume"
            )
        try:
            manifest = RunManifest(**json.loads(path.read_bytes()))
            return replace(manifest, config=with_current_keys(manifest.config))
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(path, error) from None

    def write_config(self, config: RunConfig) -> None:
        """Write the whole resolved configuration, batch mode included."""
        values = config.model_dump(mode="json", by_alias=True)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        atomic_write(self.path / CONFIG, text.encode("utf-8"))

    def read_config(self) -> dict[str, Any]:
        """Return the recorded configuration; empty if the run was refused before its mode was resolved.

        Raises:
            RecordError: its file cannot be read.
        """
        path = self.path / CONFIG
        if not path.exists():
            return {}
        try:
            return with_current_keys({**yaml.safe_load(path.read_bytes())})
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise _unreadable(path, error) from None

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write what may affect results besides the configuration."""
        self._write_json(ENVIRONMENT, environment)

    def read_environment(self) -> dict[str, Any]:
        """Return what `write_environment` wrote; empty if the run did not get that far."""
        return self._read_derived(ENVIRONMENT, dict[str, Any]) or {}

    def read_environments(self) -> list[dict[str, Any]]:
        """Return the environments of the run's processes, in order; only one where none changed."""
        numbers = [path.stem.rpartition(".")[2] for path in self.path.glob("environment.*.json")]
        kept = [f"environment.{number}.json" for number in sorted(filter(str.isdigit, numbers), key=int)]
        read = [self._read_derived(name, dict[str, Any]) for name in (*kept, ENVIRONMENT)]
        return [environment for environment in read if environment]

    def keep_environment(self, segment: int) -> None:
        """Copy the environment of an earlier segment to a file of its own, before the present one replaces it."""
        path = self.path / ENVIRONMENT
        atomic_write(path.with_stem(f"{path.stem}.{segment}"), path.read_bytes())

    def write_prompts(self, prompts: PackedPrompts) -> None:
        """Write the run's prompts."""
        atomic_write(self.path / PROMPTS, prompts.lines)

    def read_prompts(self) -> PackedPrompts:
        """Return the run's prompts.

        Raises:
            RecordError: their file cannot be read.
        """
        path = self.path / PROMPTS
        try:
            return PackedPrompts.read(path)
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}: restore it, or start a new run") from None

    def write_segments(self, segments: Sequence[Segment]) -> None:
        """Write what each process measured of the segment that it generated."""
        self._write_json(SEGMENTS, {"segments": [asdict(segment) for segment in segments]})

    def read_segments(self) -> list[Segment]:
        """Return what `write_segments` wrote; a killed process has no segment there."""

        def from_records(segments: Sequence[Mapping[str, Any]]) -> list[Segment]:
            return [Segment(**segment) for segment in segments]

        return self._read_derived(SEGMENTS, from_records) or []

    def write_summary(self, summary: Summary) -> None:
        """Write how the run ended."""
        self._write_json(SUMMARY, asdict(summary))

    def read_summary(self) -> Summary | None:
        """Return how the run ended; None while it has not."""
        return self._read_derived(SUMMARY, Summary)

    def remove_summary(self) -> None:
        """Remove the summary, because the run continues and has not ended."""
        (self.path / SUMMARY).unlink(missing_ok=True)

    def write_mlflow_run(self, reference: MlflowRunRef) -> None:
        """Write which MLflow run has this run's record."""
        self._write_json(MLFLOW_RUN, asdict(reference))

    def read_mlflow_run(self) -> MlflowRunRef | None:
        """Return which MLflow run has this run's record; None if there is none yet."""
        return self._read_derived(MLFLOW_RUN, MlflowRunRef)

    @contextmanager
    def recording_failure(self) -> Iterator[None]:
        """Write a summary with the error that the block raises.

        An existing summary stays, and so does a folder that belongs to another run.
        """
        try:
            yield
        except RunInUseError:
            raise
        except BaseException as error:
            if not (self.path / SUMMARY).exists():
                with suppress(JournalError):  # a full disk may be the error that is raised below
                    self.write_summary(summary_of_failure(error))
            raise

    def _write_json(self, name: str, value: Any) -> None:
        atomic_write(self.path / name, (json.dumps(value, indent=2) + "\n").encode("utf-8"))

    def _read_derived(self, name: str, construct: Callable[..., T]) -> T | None:
        """Return the value of a file that the run can write again; None if it is absent or damaged (power failure)."""
        try:
            return construct(**json.loads((self.path / name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def relative_to_start(path: Path, start: Path) -> str:
    """Return the path relative to the directory `start` where it is below, else unchanged."""
    return str(path.relative_to(start)) if path.is_relative_to(start) else str(path)


def _unreadable(path: Path, error: Exception) -> RecordError:
    reason = one_line(str(error)) if path.stat().st_size else "it is empty"
    return RecordError(
        f"{path} cannot be read: {reason}. The run's configuration is in this file: restore it, or start a new run"
    )
