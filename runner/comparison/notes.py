"""What a reader must know besides the figures: alarms, what was not compared and why, what else differs. In words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runner.comparison.divergence import Divergence
from runner.comparison.load import Run
from runner.comparison.pairing import Pair, missing_baseline
from runner.comparison.speed import THROUGHPUT, Row

Level = Literal["alarm", "note"]

_FIRST_TOKEN_SHARE = 0.1
"""Share of answers that part at their first token from which numbers alone do not explain it."""
_SINGLE_SHARE = 0.5
"""The same where answers of one token or word count too: rounding can decide a label, and that is its first token."""
_MOVED_SHARE, _EMPTIED_SHARE = 0.01, 0.01
"""Shares that one coincidence, or one prompt in a hundred that ends at once, do not reach."""
_LOW_MATCH = 0.5
"""Below this it is said, and is no alarm: in bfloat16, long answers part as often by rounding alone."""
_KEYS_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One sentence or two. An alarm says that something is probably broken."""

    level: Level
    text: str


def notes(
    runs: Sequence[Run],
    rows: Sequence[Row],
    compared: Sequence[tuple[Pair, Divergence | None]],
    *,
    named: Run | None,
) -> tuple[Note, ...]:
    """Return alarms first, then what was compared with what, then what differs."""
    alarms = [text for pair, texts in compared if texts for text in _alarms(pair, texts)]
    said = [
        *_references(runs, compared, named),
        *_not_compared(compared),
        *_sampled(compared),
        *_in_common(compared),
        *_one_sided(compared),
        *_low(compared),
        *_settings(compared),
        *_models(compared),
        *_noise(rows),
        *_members(rows),
    ]
    return (
        *(Note(level="alarm", text=text) for text in alarms),
        *(Note(level="note", text=text) for text in dict.fromkeys(said)),
    )


def _alarms(pair: Pair, texts: Divergence) -> list[str]:
    found = []
    who, reference = f"run {pair.run.label}", f"the reference, run {pair.reference.label}"
    if _is_moved(pair, texts):
        found.append(
            f"{who}: the text of {texts.moved} {_plural(texts.moved, 'prompt is', 'prompts is')} exactly another "
            f"prompt's text in {reference}: outcomes may be attached to the wrong prompts"
        )
    if pair.kind != "divergence" or pair.run.is_sampled or not texts.differing or not texts.units:
        return found
    match = f"only {texts.equal / texts.compared:.0%} of {texts.compared} answers match {reference}"
    if at_start := _at_start(texts):
        first = "token" if texts.unit == "token" else "character"
        found.append(
            f"{who}: {match}, and {at_start} of those that differ part at the very first {first}: check the padding "
            "side, the attention mask, the chat template"
        )
    if texts.emptied > max(1, _EMPTIED_SHARE * texts.compared):
        found.append(f"{who}: {texts.emptied} answers are empty where {reference}, has a text")
    return found


def _is_moved(pair: Pair, texts: Divergence) -> bool:
    """Return whether more answers are other prompts' than by chance. Two models may well say the same sentence."""
    most = texts.moved > max(1, texts.differing / 2)
    if pair.kind == "outputs":
        return most
    return most or texts.misattributed_long > max(1, _MOVED_SHARE * texts.differing)


def _at_start(texts: Divergence) -> int:
    """Return how many answers part at their beginning, if they are more than numbers explain; else 0."""
    every = texts.at_start + texts.at_start_single
    if every > 1 and every >= _SINGLE_SHARE * texts.compared:
        return every
    enough = texts.at_start > 1 and texts.at_start >= _FIRST_TOKEN_SHARE * texts.compared
    return texts.at_start if enough else 0


def _references(
    runs: Sequence[Run], compared: Sequence[tuple[Pair, Divergence | None]], named: Run | None
) -> list[str]:
    if len(runs) == 1:
        return ["One run: there is nothing to compare it with"]
    if not compared:
        return ["No run can be compared with another: none has outcomes, or all are repeats of one"]
    found = []
    for reference in dict.fromkeys(pair.reference.label for pair, _ in compared):
        run = next(pair.reference for pair, _ in compared if pair.reference.label == reference)
        how = "as asked" if named is run else _why(run, runs)
        found.append(
            f"Reference: run {reference} ({run.settings.get('model.id', 'unknown model')}, "
            f"batch.mode={run.settings.get('batch.mode')}, batch.size={run.settings.get('batch.size')}), {how}"
        )
    return found


def _why(run: Run, runs: Sequence[Run]) -> str:
    if run.settings.get("batch.size") == 1:
        return "the run with batch.size=1 of its settings"
    if one := missing_baseline(run, runs):
        return f"the smallest batch of its settings: run {one.label} with batch.size=1 did not finish"
    return "the smallest batch of its settings: no such run has batch.size=1"


def _not_compared(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    return [
        f"Run {pair.run.label}: its texts are not compared with run {pair.reference.label}: {pair.reason}"
        + (f": {_named(pair.asked)}" if pair.asked and pair.is_asked_otherwise else "")
        + ("; speed is" if pair.run.metrics.get(THROUGHPUT) is not None else "")
        for pair, _ in compared
        if pair.kind is None
    ]


def _sampled(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    sampled = [pair for pair, _ in compared if pair.kind and pair.run.is_sampled]
    seeds = sorted({str(pair.run.settings.get("seed")) for pair in sampled})
    if not sampled:
        return []
    return [
        f"Sampled texts, compared with the same seed only ({_plural(len(seeds), 'seed', 'seeds')} {', '.join(seeds)}): "
        "a batch draws its random numbers together, so other batches mean other texts; only greedy runs show what "
        "batching itself does"
    ]


def _in_common(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    return [
        f"Run {pair.run.label} has another prompt set than run {pair.reference.label}: the "
        f"{_counted(len(pair.common), 'prompt')} in common {_plural(len(pair.common), 'is', 'are')} compared; speed is "
        "that of each whole set"
        for pair, _ in compared
        if pair.common
    ]


def _one_sided(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    found = []
    for pair, texts in compared:
        if texts and (texts.only_reference or texts.only_run):
            found.append(
                f"Run {pair.run.label}: {_counted(texts.only_reference, 'prompt')} only the reference completed, "
                f"{texts.only_run} only the run: they count as neither equal nor different"
            )
    return found


def _low(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    return [
        f"Run {pair.run.label}: {texts.equal / texts.compared:.0%} of its answers are the reference's; half of the "
        f"others part within {_counted(round(texts.units.median), texts.unit)}"
        for pair, texts in compared
        if texts and texts.units and pair.kind == "divergence" and texts.equal < _LOW_MATCH * texts.compared
    ]


def _settings(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    """Say what else differs, once for all runs of which it is true."""
    runs: dict[tuple[str, str], list[str]] = {}
    for pair, _ in compared:
        if pair.settings:
            runs.setdefault((pair.reference.label, _named(pair.settings)), []).append(pair.run.label)
    return [
        f"Apart from the batch, {_plural(len(labels), 'run', 'runs')} {', '.join(labels)} "
        f"{_plural(len(labels), 'differs', 'differ')} from run {reference}: {named}"
        for (reference, named), labels in runs.items()
    ]


def _models(compared: Sequence[tuple[Pair, Divergence | None]]) -> list[str]:
    if any(pair.run.settings.get("model.id") != pair.reference.settings.get("model.id") for pair, _ in compared):
        return [
            "Different models: their texts are a comparison of outputs, not divergence; their tokens are not the same "
            "either, so prompts/s tells more than tokens/s"
        ]
    return []


def _noise(rows: Sequence[Row]) -> list[str]:
    measured = [row for row in rows if THROUGHPUT in row.figures]
    if len(measured) < 2:
        return []
    found = [
        f"Run {row.label}: its speed-up of {row.speedup.median:.2f}x ({row.speedup.low:.2f} to {row.speedup.high:.2f}) "
        "is inside the noise of the repeats"
        for row in measured
        if row.in_noise and row.speedup
    ]
    if any(row.figures[THROUGHPUT].count > 1 for row in measured):
        return [*found, "Repeats are a median; the range beside it is the least and the most that was measured"]
    return ["Every configuration ran once: how much speed varies by itself is not known (repeat=3 shows it)"]


def _members(rows: Sequence[Row]) -> list[str]:
    """Say which runs a row is where its label does not."""
    return [
        f"Run {row.label}: {', '.join(run.label for run in row.runs)}"
        for row in rows
        if row.label != ",".join(run.label for run in row.runs)
    ]


def _named(differences: Sequence[object]) -> str:
    more = f" and {len(differences) - _KEYS_NAMED} more" if len(differences) > _KEYS_NAMED else ""
    return ", ".join(map(str, differences[:_KEYS_NAMED])) + more


def _counted(count: int, what: str) -> str:
    return f"{count} {_plural(count, what, what + 's')}"


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
