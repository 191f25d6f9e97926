"""Reads the state of a batch job of OpenAI's API into the words of `protocols.JobStatus`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runner.providers.protocols import JobPhase, JobStatus
from runner.text import excerpt

_ENDED = ("completed", "expired", "cancelled")
_QUEUE_FULL = ("token_limit_exceeded", "request_limit_exceeded", "rate_limit_exceeded")
"""Codes of a failed job that is accepted once others have ended."""
_MAX_REASONS = 100
"""Of a validation that finds an error in each of 100,000 lines, these are enough to see what is wrong."""


def read_status(batch: Any) -> JobStatus:
    """Return what a batch object says.

    Raises:
        AttributeError, TypeError: it is no batch object.
    """
    counts = batch.request_counts
    total, completed, failed = (_count(getattr(counts, name, None)) for name in ("total", "completed", "failed"))
    errors = _errors(batch)
    return JobStatus(
        state=str(batch.status),
        phase=_phase(str(batch.status), errors, done=(completed or 0) + (failed or 0)),
        total=total or None,
        completed=completed,
        failed=failed,
        reasons=tuple(_reason(error) for error in errors),
        created_at=read_time(batch.created_at),
        started_at=read_time(getattr(batch, "in_progress_at", None)),
        ended_at=read_time(getattr(batch, f"{batch.status}_at", None)),
    )


def read_time(seconds: object) -> datetime | None:
    """Return the time of a Unix timestamp; None where a service says nothing, or nothing that is a time."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC) if seconds else None  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _phase(state: str, errors: Sequence[Any], *, done: int) -> JobPhase:
    """Return what a state means; one that is not known may pass.

    OpenAI's `failed` is a job whose file was refused; other servers say it of a job in which every request failed.
    """
    if state in _ENDED or (state == "failed" and done):
        return "ended"
    if state != "failed":
        return "open"
    return "queue_full" if any(getattr(error, "code", None) in _QUEUE_FULL for error in errors) else "refused"


def _errors(batch: Any) -> Sequence[Any]:
    errors = getattr(getattr(batch, "errors", None), "data", None)
    return errors[:_MAX_REASONS] if isinstance(errors, list) else ()


def _reason(error: Any) -> str:
    """Return an error as "line 3: message (code)", of which only the message is always there."""
    line, code, message = (getattr(error, name, None) for name in ("line", "code", "message"))
    place = "" if line is None else f"line {line}: "
    label = "" if code is None else f" ({code})"
    return excerpt(f"{place}{message}{label}")


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def metadata_of(batch: Any) -> Mapping[str, str]:
    """Return a batch object's metadata; empty where it has none."""
    metadata = getattr(batch, "metadata", None)
    return metadata if isinstance(metadata, Mapping) else {}
