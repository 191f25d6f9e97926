"""Alarms and notes on a comparison, in sentences: probable faults, what was not compared and why, other differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from runner.comparison.divergence import Divergence
from runner.comparison.explained_notes import explanation_notes, unexplained_alarms
from runner.comparison.load import Run
from runner.comparison.pairing import ComparedPair, Difference, Pair, missing_baseline
from runner.comparison.speed import Row

Level = Literal["alarm", "note"]

_MIN_AT_START = 0.1
"""Share of texts with another first token that rounding does not explain."""
_MIN_AT_START_SINGLE = 0.5
"""The same with texts of one token or word: rounding can change a label, whose first token is the whole text."""
_MAX_MISATTRIBUTED, _MAX_EMPTIED = 0.01, 0.01
"""Shares above one coincidence, and above one prompt in a hundred that ends at once."""
_LOW_MATCH = 0.5
"""A lower share of equal texts is a note and no alarm: rounding in bfloat16 alone changes that many long texts."""
_MAX_OTHER_SHARE, _MIN_LOAD_S = 0.1, 1.0
"""Share of the CPUs that others may take without a note, and the shortest run whose counters are exact enough."""
_LOADS = {
    "other_cpu_share": ("Other processes", ""),
    "child_cpu_share": (
        "Processes that a run started itself, as the one that publishes to MLflow,",
        ". Measure with more prompts, or with tracking=off",
    ),
}
"""Metrics of the CPU time of other processes, with the processes and the remedy."""
_MAX_KEYS = 6
"""Differences that a sentence lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One sentence or two. An alarm names a probable fault."""

    level: Level
    text: str


def notes(
    runs: Sequence[Run], rows: Sequence[Row], compared: Sequence[ComparedPair], *, named: Run | None
) -> tuple[Note, ...]:
    """Return alarms first, then the references, what was not compared, and the other differences."""
    divergent = [(entry.pair, entry.divergence) for entry in compared if entry.divergence]
    pairs = [entry.pair for entry in compared]
    near_ties = {
        entry.pair.run.label for entry in compared if entry.explanation and entry.explanation.are_all_near_ties
    }
    alarms = [
        *unexplained_alarms(compared),
        *(
            text
            for pair, divergence in divergent
            if pair.run.label not in near_ties  # margins say more than shares of texts
            for text in _alarms(pair, divergence)
        ),
    ]
    texts = [
        *_references(runs, pairs, named),
        *_not_compared(pairs),
        *_sampled(pairs),
        *_common_prompts(pairs),
        *_one_sided(divergent),
        *explanation_notes(compared),
        *_low_matches(divergent),
        *_settings(pairs),
        *_models(pairs),
        *_incomplete(runs),
        *_busy_machine(runs),
        *_noise(rows),
        *_members(rows),
    ]
    return (
        *(Note(level="alarm", text=text) for text in alarms),
        *(Note(level="note", text=text) for text in dict.fromkeys(texts)),
    )


def _alarms(pair: Pair, divergence: Divergence) -> Iterable[str]:
    run, reference = f"run {pair.run.label}", f"the reference, run {pair.reference.label}"
    if _are_misattributed(pair, divergence):
        count = divergence.misattributed
        yield (
            f"{run}: the text of {count} {_plural(count, 'prompt is', 'prompts is')} exactly another prompt's text in "
            f"{reference}: outcomes may be attached to the wrong prompts"
        )
    if pair.kind != "divergence" or pair.run.is_sampled or not divergence.differing or not divergence.units:
        return
    if at_start := _unexplained_at_start(divergence):
        first = "token" if divergence.unit == "token" else "character"
        yield (
            f"{run}: only {divergence.equal / divergence.compared:.0%} of {divergence.compared} answers match "
            f"{reference}, and {at_start} of those that differ part at the very first {first}: check the padding side, "
            "the attention mask, the chat template"
        )
    if divergence.emptied > max(1, _MAX_EMPTIED * divergence.compared):
        yield f"{run}: {divergence.emptied} answers are empty where {reference}, has a text"


def _are_misattributed(pair: Pair, divergence: Divergence) -> bool:
    """Return whether more texts are those of other prompts than by chance. Two models may share a sentence."""
    are_majority = divergence.misattributed > max(1, divergence.differing / 2)
    if pair.kind == "outputs":
        return are_majority
    return are_majority or divergence.misattributed_long > max(1, _MAX_MISATTRIBUTED * divergence.differing)


def _unexplained_at_start(divergence: Divergence) -> int:
    """Return how many texts differ at their start, if rounding does not explain that many; else 0."""
    total = divergence.at_start + divergence.at_start_single
    if total > 1 and total >= _MIN_AT_START_SINGLE * divergence.compared:
        return total
    is_unexplained = divergence.at_start > 1 and divergence.at_start >= _MIN_AT_START * divergence.compared
    return divergence.at_start if is_unexplained else 0


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
        + (f": {_listed(pair.request_differences)}" if pair.request_differences and pair.has_other_request else "")
        for pair in pairs
        if pair.kind is None
    ]


def _sampled(pairs: Sequence[Pair]) -> list[str]:
    seeds = sorted({str(pair.run.settings.get("seed")) for pair in pairs if pair.kind and pair.run.is_sampled})
    if not seeds:
        return []
    return [
        f"Sampled texts, compared with the same seed only ({_plural(len(seeds), 'seed', 'seeds')} {', '.join(seeds)}): "
        "a batch draws its random numbers together, so other batches mean other texts; only greedy runs show what "
        "batching itself does"
    ]


def _common_prompts(pairs: Sequence[Pair]) -> list[str]:
    return [
        f"Run {pair.run.label} has another prompt set than run {pair.reference.label}: the {len(common)} "
        f"{_plural(len(common), 'prompt in common is', 'prompts in common are')} compared; speed is that of each whole "
        "set"
        for pair in pairs
        if (common := pair.common_prompt_ids)
    ]


def _one_sided(divergent: Sequence[tuple[Pair, Divergence]]) -> list[str]:
    return [
        f"Run {pair.run.label}: only the reference completed {divergence.only_reference} "
        f"{_plural(divergence.only_reference, 'prompt', 'prompts')}, only the run {divergence.only_run}: they count as "
        "neither equal nor different"
        for pair, divergence in divergent
        if divergence.only_reference or divergence.only_run
    ]


def _low_matches(divergent: Sequence[tuple[Pair, Divergence]]) -> list[str]:
    return [
        f"Run {pair.run.label}: {divergence.equal / divergence.compared:.0%} of its answers are the reference's; half "
        f"of the others part within {(count := round(divergence.units.median))} "
        f"{_plural(count, divergence.unit, f'{divergence.unit}s')}"
        for pair, divergence in divergent
        if divergence.units and pair.kind == "divergence" and divergence.equal < _LOW_MATCH * divergence.compared
    ]


def _settings(pairs: Sequence[Pair]) -> list[str]:
    """Return a sentence for each set of other differences, with all runs that have it."""
    runs: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        if pair.setting_differences:
            runs.setdefault((pair.reference.label, _listed(pair.setting_differences)), []).append(pair.run.label)
    return [
        f"Apart from the batch, {_plural(len(labels), 'run', 'runs')} {', '.join(labels)} "
        f"{_plural(len(labels), 'differs', 'differ')} from run {reference}: {differences}"
        for (reference, differences), labels in runs.items()
    ]


def _models(pairs: Sequence[Pair]) -> list[str]:
    if any(pair.run.settings.get("model.id") != pair.reference.settings.get("model.id") for pair in pairs):
        return [
            "Different models: their texts are a comparison of outputs, not divergence; their tokens are not the same "
            "either, so compare prompts/s, not tokens/s"
        ]
    return []


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


def _busy_machine(runs: Sequence[Run]) -> list[str]:
    """Say where other work took part of the CPUs while a run was measured, and where runs saw unlike conditions."""
    measured = [run for run in runs if run.metrics.get("duration_s", 0.0) >= _MIN_LOAD_S]
    texts = []
    for name, (who, remedy) in _LOADS.items():
        busy = [run for run in measured if run.metrics.get(name, 0.0) > _MAX_OTHER_SHARE]
        busiest = [f"{run.label} ({run.metrics[name]:.0%})" for run in sorted(busy, key=lambda run: -run.metrics[name])]
        more = [f"{len(busy) - _MAX_KEYS} more"] if len(busy) > _MAX_KEYS else []
        if busy:
            texts.append(
                f"{who} took part of the CPUs while these runs were measured, so their speed may be too low: "
                f"{', '.join([*busiest[:_MAX_KEYS], *more])}{remedy}"
            )
    shares = [run.metrics["other_cpu_share"] for run in measured if "other_cpu_share" in run.metrics]
    if shares and max(shares) - min(shares) > _MAX_OTHER_SHARE:
        texts.append(
            "The runs saw unlike conditions: their speeds are not only their own. Measure again on a quiet machine, or "
            "with repeats"
        )
    return texts


def _members(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each row whose label leaves out runs, with all of them."""
    return [
        f"Run {row.label}: {', '.join(run.label for run in row.runs)}"
        for row in rows
        if row.label != ",".join(run.label for run in row.runs)
    ]


def _listed(differences: Sequence[Difference]) -> str:
    more = f" and {len(differences) - _MAX_KEYS} more" if len(differences) > _MAX_KEYS else ""
    return ", ".join(map(str, differences[:_MAX_KEYS])) + more


def _plural(count: int, singular: str, plural: str) -> str:
    return singular if count == 1 else plural
