"""Encodes values as lines of JSON and decodes them: an outcome's fields in outcomes.jsonl, and any other line."""

import json
from array import array
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from runner.text import shorten
from runner.types import Completion, ErrorInfo, Failure, Outcome, Timing, Usage

_SHARED = ("prompt_id", "choice", "segment", "batch", "attempts", "model")
_OPTIONAL_TIMES = ("time_to_first_answer_token_s", "queued_s", "last_attempt_latency_s", "chunk_gaps_s")
_OPTIONAL_COUNTS = ("cached_input_tokens", "cache_written_tokens", "reasoning_tokens")
_MIN_COUNTS = {"cached_input_tokens": 1, "cache_written_tokens": 1}
"""Counts below these are not written: 0 is what an absent field means."""
_MAX_NUMBER = 10**9
"""Of tokens, of attempts, of seconds (32 years)."""


_NUMBER, _COUNT, _TEXT, _ABSENT = (int, float), (int,), (str,), (type(None),)
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("prompt_id", "model"), _TEXT),
    **dict.fromkeys(("choice", "segment", "batch", "attempts"), _COUNT),
    **dict.fromkeys(("text", "finish_reason", "system_fingerprint"), _TEXT + _ABSENT),
    **dict.fromkeys(("input_tokens", "output_tokens", "lost_answers", *_OPTIONAL_COUNTS), _COUNT + _ABSENT),
    **dict.fromkeys(("latency_s", "time_to_first_token_s", *_OPTIONAL_TIMES[:-1]), _NUMBER + _ABSENT),
    **dict.fromkeys(("chunk_gaps_s", "token_ids"), (list, *_ABSENT)),
}
"""The types of an outcome's fields in JSON."""
_NUMBERS = frozenset(_NUMBER)


def encode_line(value: Any) -> bytes:
    """Return the value as one line with its newline. A lone surrogate, which has no UTF-8, is kept as an escape."""
    try:
        line = json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(value).encode("ascii")
    return line + b"\n"


def decode_line(line: bytes | str) -> Any:
    """Return the value of one line.

    Raises:
        ValueError: the line is not JSON.
    """
    try:
        return from_json(line)  # four times as fast as json, and stricter: it accepts no lone surrogates
    except ValueError:
        try:
            return json.loads(line)
        except RecursionError:
            raise ValueError("it is nested too deep") from None


def to_record(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of a line of outcomes.jsonl; those that not every provider has only where they exist."""
    completion = outcome if isinstance(outcome, Completion) else None
    error = outcome.error if isinstance(outcome, Failure) else None
    timing, usage = outcome.timing, completion and completion.usage
    return {
        "prompt_id": outcome.prompt_id,
        "choice": outcome.choice,
        "segment": outcome.segment,
        "batch": outcome.batch,
        "text": completion and completion.text,
        "finish_reason": completion and completion.finish_reason,
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        **(_optional_fields(completion) if completion else {}),
        "latency_s": timing.latency_s,
        "time_to_first_token_s": timing.time_to_first_token_s,
        **{name: value for name in _OPTIONAL_TIMES if (value := getattr(timing, name)) not in (None, ())},
        "attempts": outcome.attempts,
        **({"lost_answers": outcome.lost_answers} if outcome.lost_answers else {}),
        "started_at": timing.started_at.isoformat(),
        "model": outcome.model,
        "error": error and {"type": error.type, "message": error.message, "retryable": error.retryable},
    }


def from_record(record: dict[str, Any]) -> Outcome:
    """Return the outcome that `to_record` wrote.

    Raises:
        ValueError, KeyError, TypeError: `record` does not have the fields of an outcome.
    """
    _check_types(record)
    _check_bounds(record)
    timing = Timing(
        started_at=_time(record["started_at"]),
        latency_s=record["latency_s"],
        time_to_first_token_s=record["time_to_first_token_s"],
        time_to_first_answer_token_s=record.get("time_to_first_answer_token_s"),
        queued_s=record.get("queued_s"),
        last_attempt_latency_s=record.get("last_attempt_latency_s"),
        chunk_gaps_s=tuple(record.get("chunk_gaps_s", ())),
    )
    shared: dict[str, Any] = {name: record[name] for name in _SHARED} | {"lost_answers": record.get("lost_answers", 0)}
    if record["error"] is not None:
        error = ErrorInfo(**record["error"])
        if not (isinstance(error.type, str) and isinstance(error.message, str)):
            raise TypeError("the error's type and message are texts")
        return Failure(**shared, timing=timing, error=error)
    token_ids = record.get("token_ids")
    return Completion(
        **shared,
        timing=timing,
        usage=_usage(record),
        text=record["text"],
        finish_reason=record["finish_reason"],
        token_ids=None if token_ids is None else tuple(token_ids),
        system_fingerprint=record.get("system_fingerprint"),
    )


def _check_types(record: Mapping[str, Any]) -> None:
    """Check the fields that are there; one that is missing and needed is a KeyError where it is read."""
    for name, value in record.items():
        types = _TYPES.get(name)
        if types is not None and type(value) not in types:
            raise TypeError(f"{name} is {shorten(repr(value), 40)}")
    needed = ("text", "finish_reason")
    if record["error"] is None and any(record[name] is None for name in needed):
        raise TypeError("it has neither an error nor an answer")
    for name in ("chunk_gaps_s", "token_ids"):
        if not set(map(type, record.get(name) or ())) <= _NUMBERS:
            raise TypeError("chunk_gaps_s or token_ids holds something else than numbers")


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"started_at is {text!r}, without a time zone")
    return time


def _check_bounds(record: Mapping[str, Any]) -> None:
    """Check that counts and durations are what can be counted and measured: from 0 on, finite, and no NaN."""
    for name, value in record.items():
        if type(value) in (int, float) and not 0 <= value <= _MAX_NUMBER:
            raise ValueError(f"{name} is {shorten(repr(value), 40)}")
    gaps = record.get("chunk_gaps_s") or (0.0,)
    if not (min(gaps) >= 0 and sum(gaps) <= _MAX_NUMBER):
        raise ValueError("chunk_gaps_s holds something else than durations")
    try:
        array("I", record.get("token_ids") or ())
    except (TypeError, OverflowError):
        raise ValueError("token_ids holds something else than token ids") from None


def _usage(record: dict[str, Any]) -> Usage | None:
    """Return the tokens of a completion; None where the service counted nothing."""
    if record["input_tokens"] is None or record["output_tokens"] is None:
        return None
    return Usage(
        input_tokens=record["input_tokens"],
        output_tokens=record["output_tokens"],
        cached_input_tokens=record.get("cached_input_tokens", 0),
        cache_written_tokens=record.get("cache_written_tokens", 0),
        reasoning_tokens=record.get("reasoning_tokens"),
    )


def _optional_fields(completion: Completion) -> dict[str, Any]:
    counts = {name: getattr(completion.usage, name, None) for name in _OPTIONAL_COUNTS}
    fields = {name: count for name, count in counts.items() if count is not None and count >= _MIN_COUNTS.get(name, 0)}
    if completion.system_fingerprint is not None:
        fields["system_fingerprint"] = completion.system_fingerprint
    if completion.token_ids is not None:
        fields["token_ids"] = completion.token_ids
    return fields
