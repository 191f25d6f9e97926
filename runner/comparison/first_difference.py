"""Where two answers part: the first token, word or character that differs, over many pairs of answers.

Where both records have token ids, the first token that differs is a fact. Else the texts are cut into tokens, or words,
anew, and a text can be cut otherwise than it was generated.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Prefix

from runner.comparison.inference import rate_interval, survival_quantiles
from runner.comparison.load import ComparedText
from runner.comparison.matching import AnswerPair

Unit = Literal["token", "word"]
Source = Literal["ids", "text"]
"""Where tokens are from: the record's ids, or the text, cut anew."""
Start = Literal["several", "single"]
Units = Sequence[int] | Sequence[str]
Cut = Callable[[Sequence[str]], Sequence[Units]]
"""Cuts texts into tokens or words."""

_MARGIN = 64
"""Characters that are cut beyond the first difference: more than the longest token or word has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifferenceStats:
    """Positions of the first difference, from 0.

    An answer that ends before it parts from the reference's says only that it did not part until then. The quartiles
    are those of the Kaplan-Meier estimate, which counts it so; None where fewer answers part at all.

    Attributes:
        at_start: pairs that part at position 0.
        never: pairs that do not part.
        histogram: a count for each bin [low, high] of positions.
    """

    p25: float | None
    median: float | None
    p75: float | None
    at_start: int
    never: int
    histogram: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partings:
    """Where the answers of two runs part, in tokens or words.

    Attributes:
        positions: of the first difference of each pair that differs, from 0, in their order.
        starts: for each of these pairs, whether it differs at its start, and if so whether its answers have several
            units or a single one. Rounding can change a label, whose first token is the whole text.
        lengths: of the answers of the other pairs.
    """

    unit: Unit
    source: Source
    positions: Sequence[int]
    starts: Sequence[Start | None]
    lengths: Sequence[int]

    @property
    def stats(self) -> FirstDifferenceStats | None:
        """The positions in figures; None where no pair parts."""
        return first_difference_stats(self.positions, self.lengths)

    @property
    def rate(self) -> Mapping[str, float]:
        """Divergences per 1,000 tokens compared, with its Garwood interval; empty where words are counted.

        A pair is compared up to and including the token where it parts, or to its end.
        """
        compared = sum(self.positions) + len(self.positions) + sum(self.lengths)
        if self.unit != "token" or not compared:
            return {}
        interval = rate_interval(len(self.positions), compared / 1000)
        name = "divergences_per_1000_tokens"
        ends = {f"{name}_low": interval.low, f"{name}_high": interval.high}
        return {name: 1000 * len(self.positions) / compared} | {
            end: value for end, value in ends.items() if value is not None
        }


def split_words(texts: Sequence[str]) -> Sequence[Sequence[str]]:
    """Split texts at white space: the unit where the model's tokenizer is not available."""
    return [text.split() for text in texts]


def words() -> tuple[Cut, Unit]:
    """Return what cuts texts without a tokenizer."""
    return split_words, "word"


def partings(
    pairs: Sequence[AnswerPair], *, has_one_vocabulary: bool, tokenizer: Callable[[], tuple[Cut, Unit]]
) -> Partings:
    """Find where pairs of answers part.

    Args:
        pairs: of answers, equal or not.
        has_one_vocabulary: whether a token id means the same in both runs.
        tokenizer: returns what cuts texts, and into what; called only where a pair that differs has no token ids.
    """
    differing = [pair for pair in pairs if not pair.is_equal]
    has_lengths = all(pair.reference.text_tokens is not None for pair in pairs)  # a service may have counted nothing
    source: Source = "text"
    unit: Unit = "token" if has_one_vocabulary and has_lengths else "word"
    if unit == "token" and all(_has_ids(pair.reference) and _has_ids(pair.run) for pair in differing):
        source = "ids"
        units: list[tuple[Units, Units]] = [
            (pair.reference.token_ids or (), pair.run.token_ids or ()) for pair in differing
        ]
    else:
        cut, unit = tokenizer() if has_lengths else words()
        units = _cut(differing, cut)
    return Partings(
        unit=unit,
        source=source,
        positions=[Prefix.similarity(first, second) for first, second in units],
        starts=[_start(pair, *both, unit, source) for pair, both in zip(differing, units, strict=True)],
        lengths=[_length(pair.reference, unit) for pair in pairs if pair.is_equal],
    )


def _has_ids(text: ComparedText) -> bool:
    return text.token_ids is not None


def _cut(pairs: Sequence[AnswerPair], cut: Cut) -> list[tuple[Units, Units]]:
    """Return the units of both texts of each pair, up to a margin behind the first difference."""
    ends = [Prefix.similarity(pair.reference.text, pair.run.text) + _MARGIN for pair in pairs]
    references = cut([pair.reference.text[:end] for pair, end in zip(pairs, ends, strict=True)])
    texts = cut([pair.run.text[:end] for pair, end in zip(pairs, ends, strict=True)])
    return list(zip(references, texts, strict=True))


def _start(pair: AnswerPair, reference: Units, run: Units, unit: Unit, source: Source) -> Start | None:
    has_other_character = pair.reference.text[:1] != pair.run.text[:1]
    ends = [source == "ids" and text.finish_reason == "stop" for text in (pair.reference, pair.run)]
    if len(reference) - ends[0] < 2 and len(run) - ends[1] < 2:  # the token that ends an answer is no part of its text
        return "single" if has_other_character else None
    differs = has_other_character if unit == "word" else reference[:1] != run[:1]
    return "several" if differs else None


def _length(text: ComparedText, unit: Unit) -> int:
    return text.text_tokens or 0 if unit == "token" else len(text.text.split())


def first_difference_stats(positions: Sequence[int], lengths: Sequence[int]) -> FirstDifferenceStats | None:
    """Return figures of the positions where pairs part, given the lengths of those that do not."""
    if not positions:
        return None
    compared = [position + 1 for position in positions]  # the unit that differs was compared as well
    quartiles = [time and time - 1 for time in survival_quantiles(compared, lengths, (0.25, 0.5, 0.75))]
    return FirstDifferenceStats(
        p25=quartiles[0],
        median=quartiles[1],
        p75=quartiles[2],
        at_start=positions.count(0),
        never=len(lengths),
        histogram=_histogram(positions),
    )


def _histogram(positions: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return low, high and count of the bins 0, 1, 2-3, 4-7, 8-15 ..., which are the same for every run."""
    counts = Counter(position.bit_length() for position in positions)
    return tuple(
        (1 << (bits - 1) if bits else 0, (1 << bits) - 1 if bits else 0, counts[bits])
        for bits in range(max(counts) + 1)
    )
