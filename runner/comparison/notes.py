"""Alarms and notes on a comparison, in sentences: what was not compared and why, and what else differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.comparison import text_notes
from runner.comparison.explained_notes import explanation_notes, unexplained_alarms
from runner.comparison.load import Run
from runner.comparison.machine_notes import machine_notes
from runner.comparison.pairing import ComparedPair, Pair, missing_baseline
from runner.comparison.served import Served
from runner.comparison.speed import Row
from runner.comparison.speed_notes import limited_by_itself, lost_answers, unlike_caches
from runner.text import listed, percentage, plural

Level = Literal["alarm", "note"]

_MAX_ONE_BY_ONE = 0.5
"""Share of prompts generated alone from which a mode that keeps several in flight is no evidence about batching."""
_MAX_KEYS = 6
"""Differences that a sentence lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One sentence or two. An alarm names a probable fault."""

    level: Level
    text: str


def notes(
    runs: Sequence[Run],
    rows: Sequence[Row],
    compared: Sequence[ComparedPair],
    *,
    named: Run | None,
    served: Mapping[str, Served] | None = None,
) -> tuple[Note, ...]:
    """Return alarms first, then the references, what was not compared, and the other differences.

    Args:
        runs: all runs.
        rows: of the runs' speed.
        compared: pairs of runs.
        named: the reference that was asked for.
        served: how each run's answers were served, by its label.
    """
    pairs = [entry.pair for entry in compared]
    texts = [
        *_references(runs, pairs, named),
        *_not_compared(pairs),
        *_common_prompts(pairs),
        *explanation_notes(compared),
        *text_notes.notes(compared),
        *_settings(pairs),
        *_models(pairs),
        *_overlap(runs, served or {}),
        *_incomplete(runs),
        *_resumed_elsewhere(runs),
        *machine_notes(runs),
        *limited_by_itself(runs),
        *unlike_caches(runs),
        *lost_answers(runs),
        *_noise(rows),
        *_members(rows),
    ]
    return (
        *(Note(level="alarm", text=text) for text in _alarms(compared)),
        *(Note(level="note", text=text) for text in dict.fromkeys(texts)),
    )


def _alarms(compared: Sequence[ComparedPair]) -> list[str]:
    """Return the alarms by margins, and those by texts of runs whose differences are not all near-ties."""
    near_ties = {
        entry.pair.run.label for entry in compared if entry.explanation and entry.explanation.are_all_near_ties
    }
    return [*unexplained_alarms(compared), *text_notes.alarms(compared, near_ties)]


def _references(runs: Sequence[Run], pairs: Sequence[Pair], named: Run | None) -> list[str]:
    if len(runs) == 1:
        return ["One run: there is nothing to compare it with"]
    if not pairs:
        return ["No run can be compared with another: none has outcomes, or all are repeats of one"]
    return [
        f"Reference: run {run.label} ({run.settings.get('model.id', 'unknown model')}, "
        f"batch.mode={run.settings.get('batch.mode')}, batch.size={run.settings.get('batch.size')}), "
        + ("as requested" if named is run else _reason(run, runs))
        for run in {pair.reference.label: pair.reference for pair in pairs}.values()
    ]


def _reason(reference: Run, runs: Sequence[Run]) -> str:
    if reference.settings.get("batch.size") == 1:
        return "the run with batch.size=1 of its settings"
    if baseline := missing_baseline(reference, runs):
        return f"the smallest batch of its settings: run {baseline.label} with batch.size=1 did not finish"
    return "the smallest batch of its settings: no such run has batch.size=1"


def _not_compared(pairs: Sequence[Pair]) -> list[str]:
    return [
        f"Run {pair.run.label}: its texts are not compared with run {pair.reference.label}: {pair.reason}"
        + (f": {listed(pair.request_differences)}" if pair.request_differences and pair.has_other_request else "")
        for pair in pairs
        if pair.kind is None
    ]


def _common_prompts(pairs: Sequence[Pair]) -> list[str]:
    return [
        f"Run {pair.run.label} has another prompt set than run {pair.reference.label}: the {len(common)} "
        f"{plural(len(common), 'prompt in common is', 'prompts in common are')} compared; speed is that of each whole "
        "set"
        for pair in pairs
        if (common := pair.common_prompt_ids)
    ]


def _settings(pairs: Sequence[Pair]) -> list[str]:
    """Return a sentence for each set of other differences, with all runs that have it."""
    runs: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        if pair.setting_differences:
            runs.setdefault((pair.reference.label, listed(pair.setting_differences)), []).append(pair.run.label)
    return [
        f"Apart from the batch, {plural(len(labels), 'run', 'runs')} {', '.join(labels)} "
        f"{plural(len(labels), 'differs', 'differ')} from run {reference}: {differences}"
        for (reference, differences), labels in runs.items()
    ]


def _models(pairs: Sequence[Pair]) -> list[str]:
    if any(pair.run.settings.get("model.id") != pair.reference.settings.get("model.id") for pair in pairs):
        return [
            "Different models: their texts are a comparison of outputs, not divergence; their tokens are not the same "
            "either, so compare prompts/s, not tokens/s"
        ]
    return []


def _overlap(runs: Sequence[Run], served: Mapping[str, Served]) -> list[str]:
    """Say where prompts that were to be generated at the same time were not."""
    return [
        f"Run {run.label}: only {percentage(share)} of its {of.prompts} prompts were generated while another was: its "
        f"texts and its speed are no evidence about batch.size={run.settings.get('batch.size')}"
        for run in runs
        if run.keeps_several_in_flight
        and (of := served.get(run.label))
        and of.prompts > 1
        and (share := of.overlapping_share) is not None
        and share < _MAX_ONE_BY_ONE
    ]


def _resumed_elsewhere(runs: Sequence[Run]) -> list[str]:
    return [
        f"Run {run.label} was resumed in another environment, so its texts and its speed are of two: "
        f"{listed(run.environment_changes)}"
        for run in runs
        if run.environment_changes
    ]


def _noise(rows: Sequence[Row]) -> list[str]:
    estimates = [(row, row.speedup, row.speedup.estimate) for row in rows if row.speedup]
    in_noise = [
        f"Run {row.label}: {speedup.ratio:.2f}x ({interval.low:.2f} to {interval.high:.2f}, {interval.blocks} repeats) "
        f"is not told apart from run {row.reference}"
        for row, speedup, interval in estimates
        if interval and speedup.in_noise
    ]
    if any(interval for _, _, interval in estimates):
        return [
            *in_noise,
            "Each interval alone is a 95 % interval over repeats; what is told apart is corrected for the number of "
            "rows. The range beside a rate is the lowest and the highest measured",
        ]
    return []


def _incomplete(runs: Sequence[Run]) -> list[str]:
    return [
        f"Run {run.label}: {failed:.0f} of {failed + run.metrics.get('completed_prompts', 0):.0f} prompts failed; its "
        "speed is not ranked"
        for run in runs
        if run.is_finished and (failed := run.metrics.get("failed_prompts", 0))
    ]


def _members(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each row whose label leaves out runs, with all of them."""
    return [
        f"Run {row.label}: {', '.join(run.label for run in row.runs)}"
        for row in rows
        if row.label != ",".join(run.label for run in row.runs)
    ]
