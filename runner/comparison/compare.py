"""From run folders to a whole comparison: speed, texts against their references, and what a reader must know."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from runner.comparison import load, notes, pairing, speed
from runner.comparison.divergence import Divergence, Tokenize, Unit, diverge, words
from runner.comparison.load import ComparedText, Key, Run
from runner.comparison.notes import Note
from runner.comparison.pairing import Pair
from runner.comparison.speed import Row
from runner.config.parse import parse
from runner.errors import RunnerError, UsageError
from runner.providers.factory import build
from runner.providers.protocols import Tokenizer
from runner.record.folder import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A pair of runs and what became of their texts; `texts` is None where they are not compared."""

    pair: Pair
    texts: Divergence | None

    @property
    def exact_match_ratio(self) -> float | None:
        """The share of answers with the reference's exact text; None where another model, or nothing, was compared."""
        return self.texts.exact_match_ratio if self.texts and self.pair.kind == "divergence" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of it: what the table, the pictures, the page and the JSON are made from."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    compared: tuple[Compared, ...]
    notes: tuple[Note, ...]

    def exact_matches(self, row: Row) -> list[float]:
        """Return the share of answers with the reference's exact text of each of a row's runs that has one."""
        found = {one.pair.run.label: one.exact_match_ratio for one in self.compared}
        return [ratio for run in row.runs if (ratio := found.get(run.label)) is not None]

    @property
    def metrics(self) -> Mapping[Path, Mapping[str, float]]:
        """What the comparison adds to the metrics of each compared run, by its folder."""
        speedups = speed.speedups(self.rows)
        found: dict[Path, dict[str, float]] = {run.folder: {} for run in self.runs}
        for one in self.compared:
            if one.exact_match_ratio is not None:
                found[one.pair.run.folder]["exact_match_ratio"] = one.exact_match_ratio
        for run in self.runs:
            if run.label in speedups:
                found[run.folder]["speedup"] = speedups[run.label]
        return {folder: metrics for folder, metrics in found.items() if metrics}


def compare_folders(folders: Sequence[Path], *, reference: Path | None = None) -> Comparison:
    """Compare runs.

    Args:
        folders: run folders; one that is named twice counts once.
        reference: the run to compare with, whether among the folders or not; None chooses (see `pairing.references`).

    Raises:
        UsageError: there is no run.
        JournalError: a run's outcomes cannot be read.
    """
    loaded = load.load([*folders, *([reference] if reference else [])])
    if not loaded:
        raise UsageError("there is no run to compare")
    named = next(run for run in loaded if run.folder == reference.resolve()) if reference else None
    chosen = pairing.references(loaded, named)
    pairs = [pairing.pair(run, chosen[run.label]) for run in loaded if run.label in chosen]
    compared = _compare_texts(pairs)
    rows = speed.rows(loaded, chosen)
    return Comparison(
        runs=tuple(loaded),
        rows=rows,
        compared=compared,
        notes=notes.notes(loaded, rows, [(one.pair, one.texts) for one in compared], named=named),
    )


def _compare_texts(pairs: Sequence[Pair]) -> tuple[Compared, ...]:
    """Compare pair by pair, so that no more than two runs' texts are in memory."""
    texts: dict[str, Divergence] = {}
    for reference in {one.reference.label: one.reference for one in pairs if one.kind}.values():
        ours = load.read_answers(reference)
        cuts: dict[str, tuple[Tokenize, Unit]] = {}
        for one in pairs:
            if one.kind and one.reference is reference:
                texts[one.run.label] = _diverge(one, ours, cuts)
    return tuple(Compared(pair=one, texts=texts.get(one.run.label)) for one in pairs)


def _diverge(one: Pair, ours: Mapping[Key, ComparedText | None], cuts: dict[str, tuple[Tokenize, Unit]]) -> Divergence:
    theirs = load.read_answers(one.run, one.common)
    if one.common is not None:
        ours = {key: answer for key, answer in ours.items() if key[0] in one.common}
    differ = any((other := theirs.get(key)) and answer and other.text != answer.text for key, answer in ours.items())
    if one.kind != "divergence" or not differ:
        return diverge(ours, theirs, split=words, unit="word")
    if one.reference.label not in cuts:
        cuts[one.reference.label] = _split_of(one.reference)
    split, unit = cuts[one.reference.label]
    return diverge(ours, theirs, split=split, unit=unit)


def _split_of(run: Run) -> tuple[Tokenize, Unit]:
    """Return the model's own tokenizer where it can be had on this machine, else words.

    To compare is to read: a tokenizer that is code which came with the model is not run.
    """
    if run.settings.get("provider.trust_remote_code"):
        return words, "word"
    try:
        provider = build(parse(RunFolder(run.folder).read_config()))
        if isinstance(provider, Tokenizer):
            provider.tokenize(["a text"])
            return provider.tokenize, "token"
    except (RunnerError, ValidationError) as error:
        log.info("words are counted instead of tokens: %s", str(error).partition("\n")[0])
    return words, "word"
