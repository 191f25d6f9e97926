"""Chooses what to explain: which pairs of runs, with which model, and whether an explanation is worth its time."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.comparison.explain import Explanation, token_differences
from runner.comparison.explain_model import OnProgress, Task, measure_all
from runner.comparison.load import Run
from runner.comparison.loadable import explainable_config
from runner.comparison.pairing import Pair
from runner.types import Completion

_MAX_SHARE = 0.1
"""Of the duration of the compared runs, what an explanation that nobody requested may take."""
_MIN_SAMPLE = 8
"""Margins of a pair that must fit into that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainRequest:
    """What to explain, and with which weights.

    Attributes:
        model: weights to use instead of the recorded ones; None uses those of the record, if the run is the user's own.
        is_bounded: take at most a tenth of the compared runs' duration; where all differences take longer, explain a
            random sample. Pairs that cannot be explained by their nature, such as those of a service, are left out.
        on_progress: follows the work.
    """

    model: Path | None = None
    is_bounded: bool = False
    on_progress: OnProgress = lambda _done, _total: None


def explain_pairs(pairs: Sequence[Pair], request: ExplainRequest) -> dict[str, Explanation]:
    """Explain the differences of each pair of greedy runs of one local model, by the label of the compared run.

    Raises:
        JournalError, RecordError: a run's outcomes or prompts cannot be read.
    """
    plans = {pair.run.label: _plan(pair, request) for pair in pairs if pair.kind == "divergence"}
    explanations = {
        label: plan
        for label, plan in plans.items()
        if isinstance(plan, Explanation) and (plan.reason is None or not request.is_bounded)
    }
    tasks = [plan for plan in plans.values() if isinstance(plan, Task)]
    if not request.is_bounded:
        return explanations | measure_all(tasks, math.inf, request.on_progress)
    max_s, estimate_s = _MAX_SHARE * _duration_s(pairs), _estimate_s(tasks, pairs)
    if estimate_s > max_s:
        return explanations | {task.label: task.explanation(reason=_too_long(estimate_s, max_s)) for task in tasks}
    return explanations | measure_all(tasks, time.monotonic() + max_s, request.on_progress)


def _plan(pair: Pair, request: ExplainRequest) -> Task | Explanation:
    """Return what to measure of a pair; the explanation itself where nothing is to be measured."""
    config = explainable_config(pair, model=request.model)
    if isinstance(config, str) and request.is_bounded:
        return Explanation(reason=config)
    differences, token_ids, without_ids = token_differences(
        _completions(pair, pair.reference), _completions(pair, pair.run)
    )
    if isinstance(config, str) or not differences:
        reason = config if isinstance(config, str) and (differences or without_ids) else None
        return Explanation(differences=len(differences), without_ids=without_ids, reason=reason)
    prompts = {prompt.id: prompt for prompt in pair.reference.folder.read_prompts() if prompt.id in token_ids}
    size = max(_batch_size(run) for run in (pair.run, pair.reference))
    return Task(
        label=pair.run.label,
        config=config,
        differences=differences,
        token_ids=token_ids,
        prompts=prompts,
        without_ids=without_ids,
        copies=min(size, len(prompts)),
    )


def _completions(pair: Pair, run: Run) -> Iterator[Completion]:
    """Yield the run's answers to prompts that both runs have."""
    for outcome in run.folder.outcomes.read():
        is_common = pair.common_prompt_ids is None or outcome.prompt_id in pair.common_prompt_ids
        if is_common and isinstance(outcome, Completion):
            yield outcome


def _batch_size(run: Run) -> int:
    size = run.settings.get("batch.size")
    return size if isinstance(size, int) else 1


def _duration_s(pairs: Sequence[Pair]) -> float:
    """Return how long all runs of the pairs took together, in seconds, loading and warm-up included."""
    runs = {run.label: run for pair in pairs for run in (pair.reference, pair.run)}
    names = ("load_s", "warmup_s", "duration_s")
    return sum(run.metrics.get(name, 0.0) for run in runs.values() for name in names)


def _estimate_s(tasks: Sequence[Task], pairs: Sequence[Pair]) -> float:
    """Return how long models, noise bounds and a few margins take at the rates that the runs recorded, in seconds.

    A position of a bound is one step of the reference and one of the run. A margin is one pass over a prompt, which
    takes as long as the time to the first token.
    """
    references = {pair.run.label: pair.reference for pair in pairs}
    runs = {pair.run.label: pair.run for pair in pairs}
    loads_s = {task.source: runs[task.label].metrics.get("load_s", 0.0) for task in tasks}
    seconds = sum(loads_s.values())
    for task in {task.question: task for task in tasks}.values():
        positions = sum(len(sequence.token_ids) for sequence in task.sequences)
        seconds += positions * (_step_s(references[task.label]) + _step_s(runs[task.label]))
        first_token_s = references[task.label].metrics.get("time_to_first_token_p50_s", 0.0)
        seconds += first_token_s * min(_MIN_SAMPLE, len(task.differences))
    return seconds


def _step_s(run: Run) -> float:
    """Return the duration of one step: a batch takes at most `max_tokens` of them, as many as its longest answer."""
    return run.metrics.get("latency_p50_s", 0.0) / float(run.settings["generation.max_tokens"])


def _too_long(estimate_s: float, max_s: float) -> str:
    return (
        f"loading the model and measuring take about {estimate_s:.1f} s at the recorded rates, and a tenth of the "
        f"runs' duration is {max_s:.1f} s; --explain takes that time: python -m runner.compare SWEEP --explain"
    )
