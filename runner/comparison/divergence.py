"""How the texts of one run differ from those of another: pure functions of two sets of texts. Reads no files.

Counted are the answers that both runs completed. Prompts that one run completed are counted apart, neither as equal nor
as different.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rapidfuzz.distance import Levenshtein, Prefix

from runner.comparison.first_difference import (
    Cut,
    FirstDifferenceStats,
    Source,
    Unit,
    first_difference_stats,
    partings,
    words,
)
from runner.comparison.inference import share_interval
from runner.comparison.load import ComparedTexts, Key
from runner.comparison.matching import AnswerPair, MatchedAnswers
from runner.comparison.misattribution import Suspects, copied, moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Two texts that differ. `character` is the position of the first difference, from 0."""

    key: Key
    reference: str
    text: str
    character: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """How the texts of a run differ from its reference's.

    Attributes:
        compared: pairs of texts that both runs completed.
        equal: pairs of equal texts.
        characters, units: positions of the first difference; None where all are equal.
        unit: what `units` counts: tokens of the model, or words.
        source: where the tokens are from.
        rate: the metric `divergences_per_1000_tokens` with its interval; empty where words are counted.
        similarity: mean over all pairs; 1 minus the Levenshtein distance over the longer text's length. None without a
            pair.
        similarity_of_differing: median over the pairs that differ.
        finish_reasons: pairs with another finish reason, by the two reasons (the reference's first).
        output_tokens: of the compared pairs, the reference's and the run's.
        only_reference, only_run: prompts that only one of the two completed.
        at_start: pairs with another first token; where words are counted, with another first character, because a text
            without white space is one word. Pairs of single units are not counted here.
        at_start_single: pairs of single units with another first character.
        moved: texts that are exactly another prompt's.
        copied: texts that many prompts come to have.
        emptied: empty texts where the reference has a text.
        examples: the pairs that differ most, by ascending similarity.
    """

    compared: int
    equal: int
    characters: FirstDifferenceStats | None
    units: FirstDifferenceStats | None
    unit: Unit
    source: Source
    rate: Mapping[str, float]
    similarity: float | None
    similarity_of_differing: float | None
    finish_reasons: Mapping[tuple[str, str], int]
    output_tokens: tuple[int, int] | None
    only_reference: int
    only_run: int
    at_start: int
    at_start_single: int
    moved: Suspects
    copied: Suspects
    emptied: int
    examples: tuple[Example, ...]

    @property
    def differing(self) -> int:
        """How many pairs have different texts."""
        return self.compared - self.equal

    @property
    def exact_match_ratio(self) -> float | None:
        """The share of equal pairs; None without a pair."""
        return self.equal / self.compared if self.compared else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """The share of equal pairs with its Wilson interval, and the rate of divergences; empty without a pair."""
        if not self.compared:
            return {}
        interval = share_interval(self.equal, self.compared)
        ends = {"exact_match_ratio_low": interval.low, "exact_match_ratio_high": interval.high}
        known = {name: end for name, end in ends.items() if end is not None}
        return {"exact_match_ratio": self.equal / self.compared, **known, **self.rate}

    @property
    def mean_token_change(self) -> float | None:
        """Output tokens of the run less those of the reference, per pair; None without a pair or a count."""
        if self.output_tokens is None or not self.compared:
            return None
        return (self.output_tokens[1] - self.output_tokens[0]) / self.compared


def diverge(
    matched: MatchedAnswers,
    *,
    has_one_vocabulary: bool = True,
    tokenizer: Callable[[], tuple[Cut, Unit]] = words,
    max_examples: int = 50,
) -> Divergence:
    """Compare the matched answers of a run and its reference. For the other arguments see `partings`."""
    pairs = matched.pairs
    examples = [_example(pair) for pair in pairs if not pair.is_equal]
    parted = partings(pairs, has_one_vocabulary=has_one_vocabulary, tokenizer=tokenizer)
    lengths = [len(pair.reference.text) for pair in pairs if pair.is_equal]
    completed, expected_ids = _completed_ids(matched.run), _completed_ids(matched.reference)
    alike = len(lengths) + sum(example.similarity for example in examples)
    return Divergence(
        compared=len(pairs),
        equal=len(lengths),
        characters=first_difference_stats([example.character for example in examples], lengths),
        units=parted.stats,
        unit=parted.unit,
        source=parted.source,
        rate=parted.rate,
        similarity=alike / len(pairs) if pairs else None,
        similarity_of_differing=median(example.similarity for example in examples) if examples else None,
        finish_reasons=_finish_reason_changes(pairs),
        output_tokens=_output_tokens(pairs),
        only_reference=len(expected_ids - completed),
        only_run=len(completed - expected_ids),
        at_start=parted.starts.count("several"),
        at_start_single=parted.starts.count("single"),
        moved=moved(matched),
        copied=copied(matched),
        emptied=sum(not example.text for example in examples),
        examples=tuple(sorted(examples, key=lambda example: (example.similarity, example.character))[:max_examples]),
    )


def _example(pair: AnswerPair) -> Example:
    reference, text = pair.reference.text, pair.run.text
    return Example(
        key=pair.key,
        reference=reference,
        text=text,
        character=Prefix.similarity(reference, text),
        similarity=float(Levenshtein.normalized_similarity(reference, text)),
    )


def _finish_reason_changes(pairs: Iterable[AnswerPair]) -> Mapping[tuple[str, str], int]:
    changes = Counter((pair.reference.finish_reason, pair.run.finish_reason) for pair in pairs)
    return {change: count for change, count in changes.most_common() if change[0] != change[1]}


def _output_tokens(pairs: Sequence[AnswerPair]) -> tuple[int, int] | None:
    """Return the sums of both sides; None where a service counted nothing."""
    counts = [(pair.reference.output_tokens, pair.run.output_tokens) for pair in pairs]
    known = [(reference, run) for reference, run in counts if reference is not None and run is not None]
    if len(known) < len(counts):
        return None
    return sum(reference for reference, _ in known), sum(run for _, run in known)


def _completed_ids(texts: ComparedTexts) -> set[str]:
    return {prompt_id for (prompt_id, _), text in texts.items() if text}
