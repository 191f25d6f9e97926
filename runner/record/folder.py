"""A run's folder: every file in it but prompts and outcomes is read and written here."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError

from runner.config.bounded_yaml import load_yaml
from runner.config.parse import parse
from runner.config.renamed import with_current_keys
from runner.config.schema import RunConfig
from runner.errors import ConfigError, JournalError, RecordError, RunInUseError
from runner.record.atomic import atomic_write, refuse_what_is_no_file
from runner.record.jobs import JobRecord
from runner.record.manifest import MlflowRunRef, RunManifest, Segment, Summary, summary_of_failure
from runner.record.outcomes import OutcomesFile
from runner.record.ownership import is_signed, sign, signature_file
from runner.record.prompts import PROMPTS, PackedPrompts
from runner.text import one_line, shorten

CONFIG, ENVIRONMENT, SUMMARY, MANIFEST = "config.yaml", "environment.json", "summary.json", "run.json"
SEGMENTS, MLFLOW_RUN, LOG = "segments.json", "tracking.json", "runner.log"
JOBS = "jobs.json"
OUTCOMES = "outcomes.jsonl"
SIGNATURE = signature_file(Path(MANIFEST)).name
LOCK, WORKER_LOCK = "run.lock", ".tracking.lock"
HYDRA = ".hydra"
"""The folder of what Hydra composed."""
SWEEP = "sweep.json"
"""In a sweep's folder: its parent run in MLflow."""

_FILES = (
    *(CONFIG, ENVIRONMENT, SUMMARY, MANIFEST, SEGMENTS, MLFLOW_RUN, LOG, PROMPTS, OUTCOMES, LOCK, WORKER_LOCK),
    *(SIGNATURE, JOBS),
)
"""Every file of a record."""

_MAX_REASON = 300
"""Characters that a message repeats of why a file cannot be read."""
_PROMPT_FACTS = frozenset({"name", "source", "sha256", "count", "file_sha256"})
_ENVIRONMENT_SECTIONS = ("git", "cpu", "packages", "settings", "provider", "machine_load", "price")
_MANIFEST, _SECTION = TypeAdapter(RunManifest), TypeAdapter(dict[str, JsonValue])
_JOBS = TypeAdapter(list[JobRecord])
_SUMMARY, _MLFLOW_RUN, _SEGMENTS = (
    TypeAdapter(Summary),
    TypeAdapter(MlflowRunRef),
    TypeAdapter(dict[str, list[Segment]]),
)

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

    @property
    def is_own(self) -> bool:
        """Whether this user began the run: run.json has the user's signature."""
        return is_signed(self.path / MANIFEST)

    def refuse_what_is_no_file(self) -> None:
        """Refuse a record in which a link, a folder, a pipe or a device has the name of a file.

        Raises:
            RecordError: there is one: reading or writing it would concern what is elsewhere, or wait for ever.
        """
        numbered = (path.name for path in self.path.glob("environment.*.json"))
        for name in (*_FILES, *numbered):
            refuse_what_is_no_file(self.path / name)
        if (self.path / HYDRA).is_symlink():
            raise RecordError(f"{self.path / HYDRA} is a link, and a record has only files: remove it")
        for path in (self.path / HYDRA).glob("*.yaml"):
            refuse_what_is_no_file(path)

    def write_manifest(self, manifest: RunManifest) -> None:
        """Write what the run begins with, signed."""
        path, content = self.path / MANIFEST, as_json(asdict(manifest))
        atomic_write(path, content)
        sign(path, content)

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
            manifest = _MANIFEST.validate_json(path.read_bytes(), strict=True)
            _check_prompt_facts(manifest.prompts)
            return replace(manifest, config=with_current_keys(manifest.config))
        except (OSError, ValueError, TypeError, RecursionError) as error:
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
        return self._read_yaml(self.path / CONFIG)

    def read_composed_config(self) -> dict[str, Any]:
        """Return the configuration that Hydra composed; empty if there is none.

        Raises:
            RecordError: its file cannot be read.
        """
        return self._read_yaml(self.path / HYDRA / CONFIG)

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Write what may affect results besides the configuration."""
        self._write_json(ENVIRONMENT, environment)

    def read_environment(self) -> dict[str, Any]:
        """Return what `write_environment` wrote; empty if the run did not get that far."""
        return self._read_environment(ENVIRONMENT) or {}

    def read_environments(self) -> list[dict[str, Any]]:
        """Return the environments of the run's processes, in order; only one where none changed."""
        numbers = [path.stem.rpartition(".")[2] for path in self.path.glob("environment.*.json")]
        kept = [f"environment.{number}.json" for number in sorted(filter(str.isdecimal, numbers), key=int)]
        read = [self._read_environment(name) for name in (*kept, ENVIRONMENT)]
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
        return (self._read_derived(SEGMENTS, _SEGMENTS) or {}).get("segments", [])

    def write_jobs(self, jobs: Sequence[JobRecord]) -> None:
        """Write the run's batch jobs."""
        atomic_write(self.path / JOBS, _JOBS.dump_json(list(jobs), indent=2) + b"\n")

    def read_jobs(self) -> list[JobRecord]:
        """Return the run's batch jobs; none where it has none.

        Raises:
            RecordError: their file cannot be read. Submitting their prompts again would cost again.
        """
        path = self.path / JOBS
        if not path.exists():
            return []
        try:
            return _JOBS.validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    def write_summary(self, summary: Summary) -> None:
        """Write how the run ended."""
        self._write_json(SUMMARY, asdict(summary))

    def read_summary(self) -> Summary | None:
        """Return how the run ended; None while it has not."""
        return self._read_derived(SUMMARY, _SUMMARY)

    def remove_summary(self) -> None:
        """Remove the summary, because the run continues and has not ended."""
        (self.path / SUMMARY).unlink(missing_ok=True)

    def write_mlflow_run(self, reference: MlflowRunRef) -> None:
        """Write which MLflow run has this run's record."""
        self._write_json(MLFLOW_RUN, asdict(reference))

    def read_mlflow_run(self) -> MlflowRunRef | None:
        """Return which MLflow run has this run's record; None if there is none yet."""
        return self._read_derived(MLFLOW_RUN, _MLFLOW_RUN)

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
        atomic_write(self.path / name, as_json(value))

    def _read_derived(self, name: str, adapter: TypeAdapter[T]) -> T | None:
        """Return the value of a file that the run can write again; None if it is absent or damaged (power failure)."""
        try:
            return adapter.validate_json((self.path / name).read_bytes(), strict=True)
        except (OSError, ValueError):
            return None

    def _read_environment(self, name: str) -> dict[str, Any] | None:
        environment = self._read_derived(name, _SECTION) or {}
        has_sections = all(isinstance(environment.get(section) or {}, Mapping) for section in _ENVIRONMENT_SECTIONS)
        return environment if has_sections else None

    def _read_yaml(self, path: Path) -> dict[str, Any]:
        if not path.exists():
            return {}
        try:
            return with_current_keys(_SECTION.validate_python(load_yaml(path.read_bytes())))
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise _unreadable(path, error) from None


def _check_prompt_facts(facts: Mapping[str, Any]) -> None:
    if missing := _PROMPT_FACTS - facts.keys():
        raise ValueError(f"its prompts lack {', '.join(sorted(missing))}")


def parse_recorded(path: Path, values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that a file of a record has.

    Raises:
        RecordError: it is no configuration.
    """
    try:
        return parse(values)
    except ConfigError as error:
        raise RecordError(f"{path} has no whole configuration: restore it, or start a new run:\n{error}") from None


def as_json(value: Any) -> bytes:
    """Return a value as the content of a file."""
    return (json.dumps(value, indent=2) + "\n").encode("utf-8")


def relative_to_start(path: Path, start: Path) -> str:
    """Return the path relative to the directory `start` where it is below, else unchanged."""
    return str(path.relative_to(start)) if path.is_relative_to(start) else str(path)


def _unreadable(path: Path, error: Exception) -> RecordError:
    reason = error.strerror if isinstance(error, OSError) else shorten(one_line(str(error)), _MAX_REASON)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    with suppress(OSError):
        reason = reason if path.stat().st_size else "it is empty"
    return RecordError(
        f"{path} cannot be read: {reason}. The run's configuration is in this file: restore it, or start a new run"
    )
