"""Warms a local provider up with the first batch that will be measured. Nothing of a warm-up is recorded."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from operator import itemgetter

from runner.batching.base import PendingPrompts
from runner.run.prepare import PreparedRun
from runner.types import Completion, Prompt

log = logging.getLogger(__name__)

_TOKENS = 4
"""New tokens of a warm-up call: the prompt's pass and a few decode steps have the shapes of the measured call."""
_MAX_CHANGE = 0.05
"""Relative difference of two calls in a row from which on the time has not settled."""
_MAX_SHARE = 0.05
"""Share of the planned time that a warm-up may take."""
_MAX_CALLS = 20
"""Calls after which differences are the machine's noise, and not the warm-up's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One call of a warm-up: its seconds, and those of one decode step (0 where the provider has no first token).

    `is_answered` is whether any prompt was answered: a batch that raises is not tried again and again.
    """

    seconds: float
    step_s: float
    is_answered: bool


def warm_up(
    run: PreparedRun, pending: PendingPrompts, *, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Generate a few tokens for the first batch, `batch.warmup` times; with auto, until the time settles.

    The time has settled where two calls in a row differ by less than 5 %. With auto, no call begins that would take the
    warm-up beyond 5 % of the planned time. The planned time is not known before: each call estimates it from its own
    prompt pass and decode steps, as if every answer had `generation.max_tokens`. The first call is made in any case,
    because without it nothing is known; with fewer than 20 batches, that call and the others have a part of the first
    batch only, 5 % of the rows of all batches. A service is not warmed up, because it bills.

    Args:
        run: the run; its provider is loaded.
        pending: what will be generated.
        clock: seconds.

    Returns the seconds that it took; None without a warm-up.
    """
    batch, calls = run.config.batch, run.calls
    if not (calls.provider.is_local and batch.warmup):
        return None
    start = clock()
    prompts = calls.mode.first_prompts(calls.provider, pending, batch)
    left = len(pending.prompts) - len(pending.skipped)
    if batch.warmup == "auto":
        prompts = prompts[: max(1, ceil(_MAX_SHARE * left))]
    done = [_generate(run, prompts, clock)]
    while _needs_more(done, run, left / max(1, len(prompts))):
        done.append(_generate(run, prompts, clock))
    seconds = clock() - start
    change = f"; the last two differ by {_change(done):.1%}" if len(done) > 1 else ""
    log.info("warmed up in %.2f s: %d x %d of the first prompts%s", seconds, len(done), len(prompts), change)
    return seconds


def _generate(run: PreparedRun, prompts: Sequence[Prompt], clock: Callable[[], float]) -> _Call:
    """Generate a few tokens for these prompts."""
    params = run.config.params()
    few = params.model_copy(update={"max_tokens": min(_TOKENS, params.max_tokens)})
    start = clock()
    calls = run.calls.mode.generate(run.calls.provider, PendingPrompts(prompts=prompts), few, run.config.batch)
    completions = [outcome for call in calls for outcome in call if isinstance(outcome, Completion)]
    return _Call(seconds=clock() - start, step_s=_step_s(completions), is_answered=bool(completions))


def _step_s(completions: Sequence[Completion]) -> float:
    """Return the seconds of one decode step, of the longest answer: rows of a batch share its time; 0 if not known."""
    counted = [(entry.usage.output_tokens, entry.timing) for entry in completions if entry.usage]
    tokens, timing = max(counted, key=itemgetter(0), default=(0, None))
    if timing is None or timing.time_to_first_token_s is None or tokens < 2:
        return 0.0
    return (timing.elapsed_s - timing.time_to_first_token_s) / (tokens - 1)


def _needs_more(done: Sequence[_Call], run: PreparedRun, calls: float) -> bool:
    """Return whether the warm-up goes on after these; all prompts would be as many `calls` of its size."""
    warmup, last = run.config.batch.warmup, done[-1]
    if warmup != "auto":
        return len(done) < warmup
    if not last.is_answered or len(done) >= _MAX_CALLS or (len(done) > 1 and _change(done) < _MAX_CHANGE):
        return False
    planned_s = calls * (last.seconds + last.step_s * max(0, run.config.generation.max_tokens - _TOKENS))
    return sum(call.seconds for call in done) + last.seconds <= _MAX_SHARE * planned_s


def _change(done: Sequence[_Call]) -> float:
    """Return the relative difference of the last two calls."""
    before, last = done[-2].seconds, done[-1].seconds
    return abs(before - last) / max(before, last)
