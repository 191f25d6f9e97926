"""Outcomes as hypothesis makes them: any text, surrogates, NUL and control characters included."""

from datetime import UTC

from hypothesis import strategies as st

from runner.types import Completion, ErrorInfo, Failure, Timing, Usage

_seconds = st.floats(min_value=0, max_value=1e6)
_texts = st.text(st.characters(), max_size=200)
_timings = st.builds(
    Timing,
    started_at=st.datetimes(timezones=st.just(UTC)),
    latency_s=_seconds,
    time_to_first_token_s=st.none() | _seconds,
    time_to_first_answer_token_s=st.none() | _seconds,
    queued_s=st.none() | _seconds,
    last_attempt_latency_s=st.none() | _seconds,
    chunk_gaps_s=st.lists(_seconds, max_size=5).map(tuple),
)
_shared = {
    "prompt_id": _texts, "timing": _timings, "model": _texts, "choice": st.integers(0, 9),
    "attempts": st.integers(1, 9), "lost_answers": st.integers(0, 9), "batch": st.integers(0, 10**6),
}  # fmt: skip
_completions = st.builds(
    Completion, **_shared, text=_texts, finish_reason=st.sampled_from(["stop", "length", "unknown"]),
    usage=st.none() | st.builds(
        Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**6),
        cached_input_tokens=st.integers(0, 9), cache_written_tokens=st.integers(0, 9),
        reasoning_tokens=st.none() | st.integers(0, 9),
    ),
    token_ids=st.none() | st.lists(st.integers(0, 10**6), max_size=5).map(tuple),
    system_fingerprint=st.none() | _texts,
)  # fmt: skip
_errors = st.builds(ErrorInfo, type=_texts, message=_texts, retryable=st.booleans())
outcomes: st.SearchStrategy[Completion | Failure] = _completions | st.builds(Failure, **_shared, error=_errors)
