"""How the texts of one run differ from those of another: pure functions of two sets of texts. Reads no files.

Counted are the prompts and choices that both runs completed. Prompts that one run completed are counted apart, neither
as equal nor as different.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from rapidfuzz.distance import Levenshtein, Prefix

from runner.comparison.inference import share_interval
from runner.comparison.load import ComparedText, ComparedTexts, Key

Unit = Literal["token", "word"]
Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int] | Sequence[str]]]
"""Splits texts into tokens or words."""

_MIN_LONG = 16
"""A text of this many characters is not the text of two prompts by chance."""
_MARGIN = 64
"""Characters that are tokenized beyond the first difference: more than the longest token or word has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifferenceStats:
    """Positions of the first difference, from 0: quartiles, and a count for each bin [low, high]."""

    p25: float
    median: float
    p75: float
    at_start: int
    histogram: tuple[tuple[int, int, int], ...]


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
        characters, units: positions of the first difference of the other pairs; None where all are equal.
        unit: what `units` counts: tokens of the model, or words.
        similarity: median over the pairs that differ; 1 minus the Levenshtein distance over the longer text's length.
        finish_reasons: pairs with another finish reason, by the two reasons (the reference's first).
        output_tokens: of the compared pairs, the reference's and the run's.
        only_reference, only_run: prompts that only one of the two completed.
        at_start: pairs with another first token; where words are counted, with another first character, because a text
            without white space is one word. Pairs of single units are not counted here.
        at_start_single: pairs of single units with another first character.
        misattributed: texts that differ and equal the reference's text of exactly one other prompt, whose own text has
            changed. A text that the other prompt kept is shared.
        misattributed_long: misattributed texts that are too long to be equal by chance.
        emptied: empty texts where the reference has a text.
        examples: the pairs that differ most, by ascending similarity.
    """

    compared: int
    equal: int
    characters: FirstDifferenceStats | None
    units: FirstDifferenceStats | None
    unit: Unit
    similarity: float | None
    finish_reasons: Mapping[tuple[str, str], int]
    output_tokens: tuple[int, int]
    only_reference: int
    only_run: int
    at_start: int
    at_start_single: int
    misattributed: int
    misattributed_long: int
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
    def exact_match_metrics(self) -> Mapping[str, float]:
        """The share of equal pairs with its Wilson interval, as metrics; empty without a pair."""
        if not self.compared:
            return {}
        interval = share_interval(self.equal, self.compared)
        ends = {"exact_match_ratio_low": interval.low, "exact_match_ratio_high": interval.high}
        return {"exact_match_ratio": self.equal / self.compared} | {
            name: end for name, end in ends.items() if end is not None
        }

    @property
    def mean_token_change(self) -> float | None:
        """Output tokens of the run less those of the reference, per pair; None without a pair."""
        return (self.output_tokens[1] - self.output_tokens[0]) / self.compared if self.compared else None


def split_words(texts: Sequence[str]) -> Sequence[Sequence[str]]:
    """Split texts at white space: the unit where the model's tokenizer is not available."""
    return [text.split() for text in texts]


def diverge(
    reference: ComparedTexts, run: ComparedTexts, *, tokenize: Tokenize, unit: Unit, max_examples: int = 50
) -> Divergence:
    """Compare the texts of a run with its reference's by prompt and choice."""
    pairs = [(key, expected, actual) for key, expected in reference.items() if expected and (actual := run.get(key))]
    examples = [_example(*pair) for pair in pairs if pair[1].text != pair[2].text]
    units = _tokenized(examples, tokenize)
    starts = [_start_difference(example, *both, unit) for example, both in zip(examples, units, strict=True)]
    misattributed = _misattributed(reference, run, examples)
    completed, expected_ids = _completed_ids(run), _completed_ids(reference)
    return Divergence(
        compared=len(pairs),
        equal=len(pairs) - len(examples),
        characters=_first_difference_stats([example.character for example in examples]),
        units=_first_difference_stats([Prefix.similarity(first, second) for first, second in units]),
        unit=unit,
        similarity=median(example.similarity for example in examples) if examples else None,
        finish_reasons=_finish_reason_changes((expected, actual) for _, expected, actual in pairs),
        output_tokens=(
            sum(expected.output_tokens for _, expected, _ in pairs),
            sum(actual.output_tokens for *_, actual in pairs),
        ),
        only_reference=len(expected_ids - completed),
        only_run=len(completed - expected_ids),
        at_start=starts.count("several"),
        at_start_single=starts.count("single"),
        misattributed=len(misattributed),
        misattributed_long=sum(len(text) >= _MIN_LONG for text in misattributed),
        emptied=sum(not example.text for example in examples),
        examples=tuple(sorted(examples, key=lambda example: (example.similarity, example.character))[:max_examples]),
    )


def _example(key: Key, reference: ComparedText, run: ComparedText) -> Example:
    return Example(
        key=key,
        reference=reference.text,
        text=run.text,
        character=Prefix.similarity(reference.text, run.text),
        similarity=float(Levenshtein.normalized_similarity(reference.text, run.text)),
    )


_Units = Sequence[int] | Sequence[str]


def _tokenized(examples: Sequence[Example], tokenize: Tokenize) -> list[tuple[_Units, _Units]]:
    """Return the units of both texts of each example, up to a margin behind the first difference."""
    ends = [example.character + _MARGIN for example in examples]
    references = tokenize([example.reference[:end] for example, end in zip(examples, ends, strict=True)])
    texts = tokenize([example.text[:end] for example, end in zip(examples, ends, strict=True)])
    return list(zip(references, texts, strict=True))


def _start_difference(
    example: Example, reference: _Units, run: _Units, unit: Unit
) -> Literal["several", "single"] | None:
    """Return whether two texts differ at their start, and if so whether they have several units or a single one."""
    if len(reference) < 2 and len(run) < 2:
        return "single" if example.character == 0 else None
    differs = example.character == 0 if unit == "word" else reference[:1] != run[:1]
    return "several" if differs else None


def _first_difference_stats(positions: Sequence[int]) -> FirstDifferenceStats | None:
    if not positions:
        return None
    quartiles = quantiles(positions, n=4, method="inclusive") if len(positions) > 1 else [float(positions[0])] * 3
    return FirstDifferenceStats(
        p25=quartiles[0],
        median=quartiles[1],
        p75=quartiles[2],
        at_start=positions.count(0),
        histogram=_histogram(positions),
    )


def _histogram(positions: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return low, high and count of the bins 0, 1, 2-3, 4-7, 8-15 ..., which are the same for every run."""
    counts = Counter(position.bit_length() for position in positions)
    return tuple(
        (1 << (bits - 1) if bits else 0, (1 << bits) - 1 if bits else 0, counts[bits])
        for bits in range(max(counts) + 1)
    )


def _finish_reason_changes(pairs: Iterable[tuple[ComparedText, ComparedText]]) -> Mapping[tuple[str, str], int]:
    changes = Counter((expected.finish_reason, actual.finish_reason) for expected, actual in pairs)
    return {change: count for change, count in changes.most_common() if change[0] != change[1]}


def _completed_ids(texts: ComparedTexts) -> set[str]:
    return {prompt_id for (prompt_id, _), text in texts.items() if text}


def _misattributed(reference: ComparedTexts, run: ComparedTexts, examples: Sequence[Example]) -> list[str]:
    """Return the texts that the reference has for one other prompt, and the run no longer; empty texts never count."""
    before, now = _prompt_ids_by_text(reference), _prompt_ids_by_text(run)
    misattributed = []
    for example in examples:
        prompt_ids = before.get(example.text, set())
        if len(prompt_ids) == 1 and example.key[0] not in prompt_ids and not prompt_ids & now[example.text]:
            misattributed.append(example.text)
    return misattributed


def _prompt_ids_by_text(texts: ComparedTexts) -> Mapping[str, set[str]]:
    prompt_ids: defaultdict[str, set[str]] = defaultdict(set)
    for (prompt_id, _), compared in texts.items():
        if compared and compared.text:
            prompt_ids[compared.text].add(prompt_id)
    return prompt_ids
