"""Compares runs: builds a Comparison (speed, texts against their references, notes) from run folders."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from runner.comparison import load, notes, pairing, speed
from runner.comparison.divergence import Divergence, Tokenize, Unit, diverge, split_words
from runner.comparison.explain_pairs import ExplainRequest, explain_pairs
from runner.comparison.load import ComparedTexts, Run
from runner.comparison.notes import Note
from runner.comparison.pairing import ComparedPair, Pair
from runner.comparison.speed import Row
from runner.config.parse import parse
from runner.errors import RunnerError, UsageError
from runner.providers.factory import build
from runner.providers.protocols import Tokenizer
from runner.text import first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs, rows of speed, pairs of runs and notes: what tables, plots, page and JSON present."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    compared: tuple[ComparedPair, ...]
    notes: tuple[Note, ...]

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
                metrics[compared.pair.run.folder.path] |= compared.divergence.exact_match_metrics
        for run in self.runs:
            metrics[run.folder.path] |= speedups.get(run.label, {})
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
    compared = _compare_texts([pairing.pair(run, chosen[run.label]) for run in runs if run.label in chosen])
    if explain:
        explanations = explain_pairs([entry.pair for entry in compared], explain)
        compared = tuple(replace(entry, explanation=explanations.get(entry.pair.run.label)) for entry in compared)
    rows = speed.rows(runs, chosen)
    return Comparison(
        runs=tuple(runs), rows=rows, compared=compared, notes=notes.notes(runs, rows, compared, named=named)
    )


def _compare_texts(pairs: Sequence[Pair]) -> tuple[ComparedPair, ...]:
    """Compare pair by pair, so that the texts of at most two runs are in memory."""
    divergences: dict[str, Divergence] = {}
    for reference in {pair.reference.label: pair.reference for pair in pairs if pair.kind}.values():
        texts = load.read_texts(reference)
        tokenizers: dict[str, tuple[Tokenize, Unit]] = {}
        for pair in pairs:
            if pair.kind and pair.reference is reference:
                divergences[pair.run.label] = _diverge(pair, texts, tokenizers)
    return tuple(ComparedPair(pair=pair, divergence=divergences.get(pair.run.label)) for pair in pairs)


def _diverge(pair: Pair, reference: ComparedTexts, tokenizers: dict[str, tuple[Tokenize, Unit]]) -> Divergence:
    run = load.read_texts(pair.run, pair.common_prompt_ids)
    if pair.common_prompt_ids is not None:
        reference = {key: text for key, text in reference.items() if key[0] in pair.common_prompt_ids}
    differ = any(text and (other := run.get(key)) and other.text != text.text for key, text in reference.items())
    if pair.kind != "divergence" or not differ:
        return diverge(reference, run, tokenize=split_words, unit="word")
    if pair.reference.label not in tokenizers:
        tokenizers[pair.reference.label] = _tokenizer_of(pair.reference)
    tokenize, unit = tokenizers[pair.reference.label]
    return diverge(reference, run, tokenize=tokenize, unit=unit)


def _tokenizer_of(run: Run) -> tuple[Tokenize, Unit]:
    """Return the model's tokenizer if this machine has it, else one of words.

    A comparison only reads: a tokenizer that is code from the model's folder is not run.
    """
    if run.settings.get("provider.trust_remote_code"):
        return split_words, "word"
    try:
        provider = build(parse(run.folder.read_config()))
        if isinstance(provider, Tokenizer):
            provider.tokenize(["a text"])
            return provider.tokenize, "token"
    except (RunnerError, ValidationError) as error:
        log.info("words are counted instead of tokens: %s", first_line(error))
    return split_words, "word"
