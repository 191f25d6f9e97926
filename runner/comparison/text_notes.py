"""Alarms and notes on texts, in sentences: probable faults, how far the reference varies by itself, low matches."""

from collections.abc import Iterable, Sequence, Set

from runner.comparison.divergence import Divergence
from runner.comparison.inference import share_interval
from runner.comparison.load import Run
from runner.comparison.misattribution import MIN_COPIES, Suspects
from runner.comparison.noise_floor import NoiseFloor, cause_of_variation
from runner.comparison.pairing import ComparedPair, Pair, configuration
from runner.text import listed, percentage, plural

_MIN_AT_START = 0.1
"""Share of texts with another first token that rounding does not explain."""
_MIN_AT_START_SINGLE = 0.5
"""The same with texts of one token or word: rounding can change a label, whose first token is the whole text."""
_MAX_MISATTRIBUTED, _MAX_EMPTIED = 0.01, 0.01
"""Shares above one coincidence, and above one prompt in a hundred that ends at once."""
_LOW_MATCH = 0.5
"""A lower share of equal texts is a note and no alarm: rounding in bfloat16 alone changes that many long texts."""


def alarms(compared: Sequence[ComparedPair], near_ties: Set[str]) -> Iterable[str]:
    """Yield a sentence for each probable fault.

    Args:
        compared: pairs of runs.
        near_ties: labels of the runs whose differences all have a margin that rounding explains: no fault made them.
    """
    for entry in compared:
        if entry.divergence and entry.pair.run.label not in near_ties:
            yield from _wrong_prompts(entry.pair, entry.divergence)
            if entry.pair.kind == "divergence" and not entry.pair.run.is_sampled:
                yield from _wrong_input(entry.pair, entry.divergence)


def notes(compared: Sequence[ComparedPair]) -> list[str]:
    """Return the other sentences on texts."""
    references = {entry.pair.reference.label: entry.pair.reference for entry in compared if entry.divergence}
    groups = [
        (reference, [entry for entry in compared if entry.pair.reference is reference])
        for reference in references.values()
    ]
    return [
        *_sampled([entry.pair for entry in compared]),
        *_one_sided(compared),
        *_low_matches(compared),
        *(text for reference, group in groups for text in _variation(reference, group)),
    ]


def _wrong_prompts(pair: Pair, divergence: Divergence) -> Iterable[str]:
    run, reference = f"run {pair.run.label}", f"the reference, run {pair.reference.label}"
    if _are_too_many(divergence.moved, divergence, min_count=2, is_one_model=pair.kind == "divergence"):
        count = divergence.moved.count
        yield (
            f"{run}: the text of {count} {plural(count, 'prompt is', 'prompts is')} exactly another prompt's text in "
            f"{reference}: outcomes may be attached to the wrong prompts"
        )
    copied = divergence.copied
    if pair.kind == "divergence" and _are_too_many(copied, divergence, min_count=MIN_COPIES, is_one_model=True):
        yield (
            f"{run}: {copied.count} prompts that have a text of their own in {reference}, share one with others: one "
            "answer may be given to many prompts"
        )


def _are_too_many(suspects: Suspects, divergence: Divergence, *, min_count: int, is_one_model: bool) -> bool:
    """Return whether more texts are those of other prompts than by chance. Two models may share a sentence."""
    if suspects.count >= min_count and suspects.count > divergence.differing / 2:
        return True
    return is_one_model and suspects.long >= min_count and suspects.long > _MAX_MISATTRIBUTED * divergence.differing


def _wrong_input(pair: Pair, divergence: Divergence) -> Iterable[str]:
    run, reference = f"run {pair.run.label}", f"the reference, run {pair.reference.label}"
    if at_start := _unexplained_at_start(divergence):
        first = "token" if divergence.unit == "token" else "character"
        yield (
            f"{run}: only {_match(divergence)} answers match {reference}, and {at_start} of the {divergence.differing} "
            f"that differ part at the very first {first}: check the padding side, the attention mask, the chat template"
        )
    if _is_above(divergence.emptied, divergence.compared, _MAX_EMPTIED):
        yield f"{run}: {divergence.emptied} of {divergence.compared} answers are empty where {reference}, has a text"


def _unexplained_at_start(divergence: Divergence) -> int:
    """Return how many texts differ at their start, if rounding does not explain that many; else 0."""
    total = divergence.at_start + divergence.at_start_single
    if _is_above(total, divergence.compared, _MIN_AT_START_SINGLE):
        return total
    return divergence.at_start if _is_above(divergence.at_start, divergence.compared, _MIN_AT_START) else 0


def _is_above(count: int, total: int, share: float) -> bool:
    """Return whether several of all are beyond a share with confidence: the interval of what was counted is above."""
    return count > 1 and (share_interval(count, total).low or 0.0) > share


def _match(divergence: Divergence) -> str:
    return f"{percentage(divergence.exact_match_ratio or 0.0)} of {divergence.compared}"


def _sampled(pairs: Sequence[Pair]) -> list[str]:
    seeds = sorted({str(pair.run.settings.get("seed")) for pair in pairs if pair.kind and pair.run.is_sampled})
    if not seeds:
        return []
    return [
        f"Sampled texts, compared with the same seed only ({plural(len(seeds), 'seed', 'seeds')} {', '.join(seeds)}): "
        "a seed repeats the texts of the same batches at most, so other batches mean other texts; only greedy runs "
        "show what batching itself does"
    ]


def _one_sided(compared: Sequence[ComparedPair]) -> list[str]:
    return [
        f"Run {entry.pair.run.label}: only the reference completed {divergence.only_reference} "
        f"{plural(divergence.only_reference, 'prompt', 'prompts')}, only the run {divergence.only_run}: they count as "
        "neither equal nor different"
        for entry in compared
        if (divergence := entry.divergence) and (divergence.only_reference or divergence.only_run)
    ]


def _low_matches(compared: Sequence[ComparedPair]) -> list[str]:
    return [
        f"Run {entry.pair.run.label}: {_match(divergence)} answers are the reference's; half of all part within "
        f"{(count := round(divergence.units.median) + 1)} {plural(count, divergence.unit, f'{divergence.unit}s')} "
        "(Kaplan-Meier)"
        for entry in compared
        if entry.pair.kind == "divergence"
        and (divergence := entry.divergence)
        and divergence.units
        and divergence.units.median is not None
        and divergence.equal < _LOW_MATCH * divergence.compared
    ]


def _variation(reference: Run, group: Sequence[ComparedPair]) -> list[str]:
    """Say how far the reference's texts vary by themselves, where any text differs."""
    floors = [(entry.pair.run.label, entry.noise_floor) for entry in group if entry.noise_floor]
    if floors:
        has_variation = any(min(floor.run_matches, floor.repeat_matches) < floor.prompts for _, floor in floors)
        return [_beside_floor(reference, floors)] if has_variation else []
    differing = any(
        entry.divergence and entry.divergence.differing
        for entry in group
        if entry.pair.kind == "divergence" and configuration(entry.pair.run) != configuration(reference)
    )
    if differing and (cause := cause_of_variation(reference)):
        return [
            f"The reference, run {reference.label}, was not repeated, and its texts can vary by themselves, for "
            f"{cause}: how many of the differences are the batch's is not known"
            + ("" if reference.is_sampled else "; repeat=3 shows it")
        ]
    return []


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _beside_floor(reference: Run, floors: Sequence[tuple[str, NoiseFloor]]) -> str:
    repeats = sorted({(floor.repeat_matches / floor.prompts, floor.prompts) for _, floor in floors})
    shares = dict.fromkeys(f"{percentage(share)} of {prompts}" for share, prompts in (repeats[0], repeats[-1]))
    below = [
        f"{label} ({percentage(floor.run_matches / floor.prompts)} of {floor.prompts}, {_p_value(floor.corrected_p)})"
        for label, floor in floors
        if floor.is_below
    ]
    alike = [label for label, floor in floors if not floor.is_below]
    return "".join(
        [
            f"The reference, run {reference.label}, repeated, matches itself in {' to '.join(shares)} prompts",
            f"; fewer match in {plural(len(below), 'run', 'runs')} {listed(below)}" if below else "",
            f"; {plural(len(alike), 'run', 'runs')} {listed(alike)} cannot be told apart from that" if alike else "",
            f" (exact McNemar test{f', corrected for {len(floors)} runs' if len(floors) > 1 else ''})",
        ]
    )
