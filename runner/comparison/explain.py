"""Whether rounding explains where the answers of two greedy runs part: values and verdicts. No model, no files.

Greedy decoding takes the token with the largest logit. Where the two best tokens are closer than rounding moves them, a
batch may take the other one, and everything behind it differs: a near-tie. Any other difference has another cause.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from rapidfuzz.distance import Prefix

from runner.types import Completion

MIN_POSITIONS = 64
"""Positions whose gap is measured for a noise bound, at least: the bound is the largest change that was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDifference:
    """Two answers to one prompt that differ.

    Attributes:
        prompt_id: the prompt.
        common: the new tokens before the first that differs, which both answers have.
        reference_token, run_token: the first tokens that differ. None where an answer has ended: both are None where
            the token ids are equal and the texts are not.
    """

    prompt_id: str
    common: tuple[int, ...]
    reference_token: int | None
    run_token: int | None

    @property
    def position(self) -> int:
        """The number of the first new token that differs, from 0."""
        return len(self.common)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseBound:
    """How far rounding moves the gap between two next tokens, at most, as it was measured.

    Attributes:
        max_change: the largest change of the gap, in logits.
        positions: how many positions were measured.
        copies: how many equal rows the gap was computed among.
    """

    max_change: float
    positions: int
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedDifference:
    """A difference and its margin.

    Attributes:
        difference: where the answers part.
        reference_text, run_text: the two tokens as texts; empty where an answer has ended.
        margin: the logit of the reference's token less that of the run's, after the common tokens; None where there is
            none to compute.
        is_near_tie: whether the margin is at most the noise bound. Else rounding does not explain the difference.
    """

    difference: TokenDifference
    reference_text: str
    run_text: str
    margin: float | None
    is_near_tie: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What explains the differences between a run and its reference.

    Attributes:
        differences: answers with another text or other tokens than the reference's, of those with token ids.
        explained: those whose margin was measured: all, or a random sample.
        bound: None where nothing had to be measured.
        without_ids: answers with another text whose token ids are not on record.
        measured_with: the provider's description of what measured the margins (device, dtype, threads).
        reason: why no margin was measured; None where nothing hindered it.
    """

    differences: int = 0
    explained: tuple[ExplainedDifference, ...] = ()
    bound: NoiseBound | None = None
    without_ids: int = 0
    measured_with: Mapping[str, object] | None = None
    reason: str | None = None

    @property
    def unexplained(self) -> tuple[ExplainedDifference, ...]:
        """The differences that rounding does not explain, the largest margin first; those without one lead."""
        unexplained = [entry for entry in self.explained if not entry.is_near_tie]
        return tuple(sorted(unexplained, key=lambda entry: -size_of(entry.margin)))

    @property
    def near_ties(self) -> int:
        """How many of the explained differences are near-ties."""
        return sum(entry.is_near_tie for entry in self.explained)

    @property
    def is_whole(self) -> bool:
        """Whether every difference was explained."""
        return self.reason is None and not self.without_ids and len(self.explained) == self.differences

    @property
    def are_all_near_ties(self) -> bool:
        """Whether rounding explains every difference, and there is one."""
        return self.is_whole and 0 < self.differences == self.near_ties

    @property
    def max_margin(self) -> float | None:
        """The largest absolute margin that was measured."""
        return max((abs(entry.margin) for entry in self.explained if entry.margin is not None), default=None)

    @property
    def metrics(self) -> Mapping[str, float]:
        """`near_tie_ratio` and `unexplained_differences`; absent where nothing was measured."""
        if self.explained:
            ratio = self.near_ties / len(self.explained)
            return {"near_tie_ratio": ratio, "unexplained_differences": float(len(self.unexplained))}
        return {"unexplained_differences": 0.0} if self.is_whole else {}


def size_of(margin: float | None) -> float:
    """Return the absolute margin; infinity where there is none."""
    return float("inf") if margin is None else abs(margin)


def token_differences(
    reference: Iterable[Completion], run: Iterable[Completion]
) -> tuple[list[TokenDifference], dict[str, tuple[int, ...]], int]:
    """Return where answers part, by their token ids.

    Args:
        reference: one answer per prompt.
        run: the answers of the other run.

    Returns:
        The differences in the order of the reference's answers; the reference's token ids by prompt, of the prompts
        that both answered; and how many answers have another text and no token ids on record.
    """
    answers = {completion.prompt_id: completion for completion in run}
    differences, token_ids, without_ids = [], {}, 0
    for expected in reference:
        actual = answers.get(expected.prompt_id)
        if actual is None:
            continue
        if expected.token_ids is None or actual.token_ids is None:
            without_ids += expected.text != actual.text
            continue
        token_ids[expected.prompt_id] = expected.token_ids
        if (expected.text, expected.token_ids) != (actual.text, actual.token_ids):
            differences.append(_part(expected.prompt_id, expected.token_ids, actual.token_ids))
    return differences, token_ids, without_ids


def _part(prompt_id: str, reference: tuple[int, ...], run: tuple[int, ...]) -> TokenDifference:
    position = int(Prefix.similarity(reference, run))
    return TokenDifference(
        prompt_id=prompt_id,
        common=reference[:position],
        reference_token=next(iter(reference[position:]), None),
        run_token=next(iter(run[position:]), None),
    )


def noise_bound(changes: Sequence[float], copies: int) -> NoiseBound:
    """Return the bound of the measured changes, in logits. A change that is no number bounds nothing."""
    finite = [abs(change) for change in changes if isfinite(change)]
    return NoiseBound(max_change=max(finite, default=0.0), positions=len(finite), copies=copies)


def judge(
    difference: TokenDifference, texts: tuple[str, str], margin: float | None, bound: NoiseBound
) -> ExplainedDifference:
    """Return a difference with its verdict. A margin that is no number is none: rounding does not explain it."""
    measured = margin if margin is not None and isfinite(margin) else None
    return ExplainedDifference(
        difference=difference,
        reference_text=texts[0],
        run_text=texts[1],
        margin=measured,
        is_near_tie=size_of(measured) <= bound.max_change,
    )
