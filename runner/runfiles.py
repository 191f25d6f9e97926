"""What stands in a run's folder beside its outcomes: config.yaml, environment.json, summary.json."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from runner.config import RunConfig

CONFIG, ENVIRONMENT, SUMMARY = "config.yaml", "environment.json", "summary.json"

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""MLflow's words for how a run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended, and its metrics by their contract names."""

    status: Status
    mlflow_run_id: str | None
    metrics: Mapping[str, float]
    error: Mapping[str, str] | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 if every prompt has its answer, else 1."""
        return 0 if self.status == "FINISHED" and not self.metrics.get("failed_prompts") else 1


def write_config(directory: Path, config: RunConfig) -> None:
    """Write the whole resolved configuration, batch mode included."""
    values = config.model_dump(mode="json", by_alias=True)
    (directory / CONFIG).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_environment(directory: Path, environment: Mapping[str, Any]) -> None:
    """Write what may move a result besides the configuration."""
    _write_json(directory / ENVIRONMENT, environment)


def write_summary(directory: Path, summary: Summary) -> None:
    """Write how the run ended."""
    _write_json(directory / SUMMARY, asdict(summary))


def read_summary(directory: Path) -> Summary | None:
    """Return how the run ended; None while it has not."""
    path = directory / SUMMARY
    return Summary(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read_config(directory: Path) -> dict[str, Any]:
    """Return the recorded configuration; empty if the run was refused before it was settled."""
    path = directory / CONFIG
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


@contextmanager
def failure_recorded(directory: Path, *, mlflow_run_id: str | None = None) -> Iterator[None]:
    """Leave a summary that says why, if what is inside does not end by itself."""
    try:
        yield
    except BaseException as error:
        if not (directory / SUMMARY).exists():
            write_summary(directory, _failed(error, mlflow_run_id))
        raise


def _failed(error: BaseException, mlflow_run_id: str | None) -> Summary:
    return Summary(
        status=ending_of(error),
        mlflow_run_id=mlflow_run_id,
        metrics={},
        error={"type": type(error).__name__, "message": str(error)},
    )


def ending_of(error: BaseException) -> Status:
    """Return KILLED for an interrupt, FAILED for anything else."""
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
