"""How the answers of one run differ from those of another: pure sums over two sets of answers. Knows no files.

Everything is counted over the pairs of answers that both runs completed. An answer that only one of them has is counted
apart: it is neither equal nor different.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Literal

from rapidfuzz.distance import Levenshtein, Prefix

from runner.comparison.load import ComparedText, ComparedTexts, Key

Unit = Literal["token", "word"]
Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int] | Sequence[str]]]
"""Cuts texts into tokens or words."""

_LONG = 16
"""Characters from which on no two prompts have the same answer by chance."""
_MARGIN = 64
"""Characters beyond the first that differs which are cut into units: more than the longest token or word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifferenceStats:
    """Where answers part, counted from 0: quartiles, and how many part in each bin [low, high]."""

    p25: float
    median: float
    p75: float
    at_start: int
    histogram: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Two answers that differ. `character` is the first one that does, counted from 0."""

    key: Key
    reference: str
    text: str
    character: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Two runs' answers side by side.

    Attributes:
        compared: pairs of answers that both runs completed.
        equal: those with the very same text.
        characters, units: where the others part; None where all are equal.
        unit: what `units` counts: the model's own tokens, or words.
        similarity: median over those that differ; 1 minus the Levenshtein distance over the longer text's length.
        finish_reasons: how many answers ended otherwise, by the two reasons (the reference's first).
        output_tokens: of the compared answers, the reference's and the run's.
        only_reference, only_run: prompts that only one of the two completed.
        at_start: answers that part at their very beginning, of those with more than one unit on a side: at the first
            token, and where words are counted at the first character, for a text without white space is one word.
        at_start_single: those that are one unit on both sides and part at their first character.
        moved: answers that differ and are exactly the reference's answer to one other prompt, which itself has another
            text now: what two prompts merely have in common is not moved.
        misattributed_long: those of them that are too long to be so by chance.
        emptied: empty answers where the reference has a text.
        examples: the most different answers, the most different first.
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
    moved: int
    misattributed_long: int
    emptied: int
    examples: tuple[Example, ...]

    @property
    def differing(self) -> int:
        """How many compared answers have another text."""
        return self.compared - self.equal

    @property
    def exact_match_ratio(self) -> float | None:
        """Return the share of compared answers with the reference's exact text; None if none could be compared."""
        return self.equal / self.compared if self.compared else None

    @property
    def mean_token_change(self) -> float | None:
        """Return how many output tokens an answer has more than the reference's, on average."""
        return (self.output_tokens[1] - self.output_tokens[0]) / self.compared if self.compared else None


def words(texts: Sequence[str]) -> Sequence[Sequence[str]]:
    """Cut texts at white space: what is left where the model's own tokens cannot be had."""
    return [text.split() for text in texts]


def diverge(
    reference: ComparedTexts, run: ComparedTexts, *, split: Tokenize, unit: Unit, examples: int = 50
) -> Divergence:
    """Compare a run's answers with the reference's, prompt by prompt and choice by choice."""
    pairs = [(key, ours, theirs) for key, ours in reference.items() if ours and (theirs := run.get(key))]
    differing = [(key, ours.text, theirs.text) for key, ours, theirs in pairs if ours.text != theirs.text]
    shown = [_example(*pair) for pair in differing]
    cut = _cut(shown, split)
    starts = [_parts_at_start(example, *units, unit) for example, units in zip(shown, cut, strict=True)]
    moved = _moved(reference, run, differing)
    completed, expected = _completed(run), _completed(reference)
    return Divergence(
        compared=len(pairs),
        equal=len(pairs) - len(differing),
        characters=_spots([example.character for example in shown]),
        units=_spots([Prefix.similarity(first, second) for first, second in cut]),
        unit=unit,
        similarity=median(example.similarity for example in shown) if shown else None,
        finish_reasons=_finish_reasons((ours, theirs) for _, ours, theirs in pairs),
        output_tokens=(
            sum(ours.output_tokens for _, ours, _ in pairs),
            sum(theirs.output_tokens for *_, theirs in pairs),
        ),
        only_reference=len(expected - completed),
        only_run=len(completed - expected),
        at_start=starts.count("several"),
        at_start_single=starts.count("single"),
        moved=len(moved),
        misattributed_long=sum(len(text) >= _LONG for text in moved),
        emptied=sum(not theirs for *_, theirs in differing),
        examples=tuple(sorted(shown, key=lambda example: (example.similarity, example.character))[:examples]),
    )


def similarity(first: str, second: str) -> float:
    """Return 1 for equal texts, 0 for texts with nothing in common; symmetric."""
    return float(Levenshtein.normalized_similarity(first, second))


def _example(key: Key, reference: str, text: str) -> Example:
    return Example(
        key=key,
        reference=reference,
        text=text,
        character=Prefix.similarity(reference, text),
        similarity=similarity(reference, text),
    )


_Units = Sequence[int] | Sequence[str]


def _cut(differing: Sequence[Example], split: Tokenize) -> list[tuple[_Units, _Units]]:
    """Return both texts' units. What stands far behind the first character that differs is left out."""
    ends = [example.character + _MARGIN for example in differing]
    ours = split([example.reference[:end] for example, end in zip(differing, ends, strict=True)])
    theirs = split([example.text[:end] for example, end in zip(differing, ends, strict=True)])
    return list(zip(ours, theirs, strict=True))


def _parts_at_start(example: Example, ours: _Units, theirs: _Units, unit: Unit) -> Literal["several", "single"] | None:
    """Return whether two answers part at their beginning, and if so of how many units they are."""
    if len(ours) < 2 and len(theirs) < 2:
        return "single" if example.character == 0 else None
    parts = example.character == 0 if unit == "word" else ours[:1] != theirs[:1]
    return "several" if parts else None


def _spots(places: Sequence[int]) -> FirstDifferenceStats | None:
    if not places:
        return None
    quartiles = quantiles(places, n=4, method="inclusive") if len(places) > 1 else [float(places[0])] * 3
    return FirstDifferenceStats(
        p25=quartiles[0],
        median=quartiles[1],
        p75=quartiles[2],
        at_start=places.count(0),
        histogram=_histogram(places),
    )


def _histogram(places: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return low, high and count of the bins 0, 1, 2-3, 4-7, 8-15 ...: the same for every run."""
    counts = Counter(place.bit_length() for place in places)
    return tuple(
        (1 << (bits - 1) if bits else 0, (1 << bits) - 1 if bits else 0, counts[bits])
        for bits in range(max(counts) + 1)
    )


def _finish_reasons(pairs: Iterable[tuple[ComparedText, ComparedText]]) -> Mapping[tuple[str, str], int]:
    changes = Counter((ours.finish_reason, theirs.finish_reason) for ours, theirs in pairs)
    return {change: count for change, count in changes.most_common() if change[0] != change[1]}


def _completed(answers: ComparedTexts) -> set[str]:
    return {prompt_id for (prompt_id, _), answer in answers.items() if answer}


def _moved(reference: ComparedTexts, run: ComparedTexts, differing: Sequence[tuple[Key, str, str]]) -> list[str]:
    """Return the texts that one other prompt had in the reference and has no more. Empty texts belong to nobody."""
    before, now = _owners(reference), _owners(run)
    return [
        text
        for (prompt_id, _), _, text in differing
        if len(found := before.get(text, set())) == 1 and prompt_id not in found and not found & now[text]
    ]


def _owners(answers: ComparedTexts) -> Mapping[str, set[str]]:
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for (prompt_id, _), answer in answers.items():
        if answer and answer.text:
            owners[answer.text].add(prompt_id)
    return owners
