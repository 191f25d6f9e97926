"""Compares runs: builds a Comparison (speed, texts against their references, notes) from run folders."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from runner.comparison import load, notes, pairing, speed
from runner.comparison.divergence import diverge
from runner.comparison.explain_pairs import ExplainRequest, explain_pairs
from runner.comparison.first_difference import Cut, Unit, words
from runner.comparison.latency import LatencyIntervals
from runner.comparison.load import ComparedTexts, Run
from runner.comparison.matching import match_answers
from runner.comparison.noise_floor import corrected, noise_floor
from runner.comparison.notes import Note
from runner.comparison.pairing import ComparedPair, Pair, configuration
from runner.comparison.served import Served, ServedCounter
from runner.comparison.speed import Row
from runner.config.parse import parse
from runner.errors import RunnerError, UsageError
from runner.providers.factory import build
from runner.providers.protocols import Tokenizer
from runner.text import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs, rows of speed, pairs of runs and notes: what tables, plots, page and JSON present.

    Attributes:
        served: how the answers of each run were served, by its label, of the runs whose outcomes were read.
        intervals: ends of the intervals of each run's percentiles by `METRIC_low` and `METRIC_high`, by label.
    """

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    compared: tuple[ComparedPair, ...]
    notes: tuple[Note, ...]
    served: Mapping[str, Served] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def exact_matches(self, row: Row) -> list[float]:
        """Return the exact match ratio of each run of a row that has one."""
        ratios = {compared.pair.run.label: compared.exact_match_ratio for compared in self.compared}
        return [ratio for run in row.runs if (ratio := ratios.get(run.label)) is not None]

    def compared_texts(self, row: Row) -> int:
        """Return how many texts of a row's runs were compared with the reference's, at least; of runs that have any."""
        labels = {run.label for run in row.runs}
        counts = [
            compared.divergence.compared
            for compared in self.compared
            if compared.divergence and compared.divergence.compared and compared.pair.run.label in labels
        ]
        return min(counts, default=0)

    @property
    def metrics(self) -> Mapping[Path, Mapping[str, float]]:
        """The metrics that the comparison adds to each compared run, by the run's folder."""
        speedups = speed.speedups(self.rows)
        metrics: dict[Path, dict[str, float]] = {run.folder.path: {} for run in self.runs}
        for compared in self.compared:
            if compared.explanation:
                metrics[compared.pair.run.folder.path] |= compared.explanation.metrics
            if compared.exact_match_ratio is not None and compared.divergence:
                metrics[compared.pair.run.folder.path] |= compared.divergence.metrics
        for run in self.runs:
            metrics[run.folder.path] |= {**speedups.get(run.label, {}), **self.intervals.get(run.label, {})}
        return {folder: added for folder, added in metrics.items() if added}


def compare_folders(
    folders: Sequence[Path], *, reference: Path | None = None, explain: ExplainRequest | None = None
) -> Comparison:
    """Compare runs.

    Args:
        folders: run folders; a folder that is named twice counts once.
        reference: the run to compare with, among the folders or not; None chooses (see `pairing.references`).
        explain: how the differences of local models are explained; None explains none, and loads no model.

    Raises:
        UsageError: there is no run, or a run's configuration cannot be read.
        JournalError: a run's outcomes cannot be read.
    """
    runs = load.load([*folders, *([reference] if reference else [])])
    if not runs:
        raise UsageError("there is no run to compare")
    named = next(run for run in runs if run.folder.path == reference.resolve()) if reference else None
    chosen = pairing.references(runs, named)
    reader = _Reader(served={}, latencies=LatencyIntervals())
    pairs = [pairing.pair(run, chosen[run.label]) for run in runs if run.label in chosen]
    compared = _compare_texts(pairs, reader)
    for run in runs:
        if run.label not in reader.latencies.by_label:
            reader.read(run, frozenset())
    if explain:
        explanations = explain_pairs(pairs, explain)
        compared = tuple(replace(entry, explanation=explanations.get(entry.pair.run.label)) for entry in compared)
    rows = speed.rows(runs, chosen)
    return Comparison(
        runs=tuple(runs),
        rows=rows,
        compared=compared,
        notes=notes.notes(runs, rows, compared, named=named, served=reader.served),
        served=reader.served,
        intervals=reader.latencies.by_label,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads the texts of runs, and in the same pass how the answers were served and what they took, by label."""

    served: dict[str, Served]
    latencies: LatencyIntervals

    def read(self, run: Run, prompt_ids: frozenset[str] | None = None) -> ComparedTexts:
        counter = ServedCounter()
        with self.latencies.observing(run) as observers:
            texts = load.read_texts(run, prompt_ids, observers=[counter.add, *observers])
        self.served[run.label] = counter.served()
        return texts


def _compare_texts(pairs: Sequence[Pair], reader: _Reader) -> tuple[ComparedPair, ...]:
    """Compare pair by pair, so that the texts of at most two runs are in memory."""
    texts: dict[str, ComparedPair] = {}
    for reference in {pair.reference.label: pair.reference for pair in pairs if pair.kind}.values():
        same_reference = [pair for pair in pairs if pair.kind and pair.reference is reference]
        texts |= {compared.pair.run.label: compared for compared in _compare_with(reference, same_reference, reader)}
    read = [texts.get(pair.run.label, ComparedPair(pair=pair, divergence=None)) for pair in pairs]
    floors = corrected([compared.noise_floor for compared in read])
    return tuple(replace(compared, noise_floor=floor) for compared, floor in zip(read, floors, strict=True))


def _compare_with(reference: Run, pairs: Sequence[Pair], reader: _Reader) -> Iterator[ComparedPair]:
    """Yield what is compared with one reference: its own repeats first, which are the noise floor of the others."""
    texts, tokenizer = reader.read(reference), cache(lambda: _tokenizer_of(reference))
    repeats: list[tuple[Run, Mapping[str, bool]]] = []
    are_repeats = {pair.run.label: configuration(pair.run) == configuration(reference) for pair in pairs}
    for pair in sorted(pairs, key=lambda pair: not are_repeats[pair.run.label]):
        matched = match_answers(_common(texts, pair), reader.read(pair.run, pair.common_prompt_ids))
        is_one_model, floor = pair.kind == "divergence", None
        if are_repeats[pair.run.label]:
            repeats.append((pair.run, matched.equal_prompts))
        elif is_one_model:
            floor = noise_floor(pair.run, matched.equal_prompts, repeats)
        cut = tokenizer if is_one_model else words
        yield ComparedPair(
            pair=pairing.with_systems(pair, reader.served),
            divergence=diverge(matched, has_one_vocabulary=is_one_model, tokenizer=cut),
            noise_floor=floor,
        )


def _common(texts: ComparedTexts, pair: Pair) -> ComparedTexts:
    """Return the reference's texts of the prompts that both runs have."""
    ids = pair.common_prompt_ids
    return texts if ids is None else {key: text for key, text in texts.items() if key[0] in ids}


def _tokenizer_of(run: Run) -> tuple[Cut, Unit]:
    """Return the model's tokenizer if this machine has it, else one of words.

    A comparison only reads: a tokenizer that is code from the model's folder is not run.
    """
    if run.settings.get("provider.trust_remote_code"):
        return words()
    try:
        provider = build(parse(run.folder.read_config()))
        if isinstance(provider, Tokenizer):
            provider.tokenize(["a text"])
            return provider.tokenize, "token"
    except (RunnerError, ValidationError) as error:
        log.info("words are counted instead of tokens: %s", first_line(error))
    return words()
