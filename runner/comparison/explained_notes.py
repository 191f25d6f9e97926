"""Explanations in sentences: alarms for what rounding does not explain, notes for the rest."""

from collections.abc import Iterator, Sequence

from runner.comparison.explain import ExplainedDifference, Explanation, NoiseBound
from runner.comparison.pairing import ComparedPair
from runner.text import plural

_MAX_NAMED = 3
"""Differences that an alarm names."""
_COARSE = ("bfloat16", "float16")
"""Dtypes whose rounding moves logits by tenths."""


def unexplained_alarms(compared: Sequence[ComparedPair]) -> list[str]:
    """Return a sentence for each run with differences that rounding does not explain."""
    return [
        _alarm(entry, entry.explanation) for entry in compared if entry.explanation and entry.explanation.unexplained
    ]


def explanation_notes(compared: Sequence[ComparedPair]) -> Iterator[str]:
    """Yield how many differences are near-ties, what was not explained and why, and which runs have no difference."""
    runs: dict[str, list[str]] = {}
    for entry in compared:
        for text in _sentences(entry.pair.reference.label, entry.explanation):
            runs.setdefault(text, []).append(entry.pair.run.label)
    for text, labels in runs.items():
        yield f"{plural(len(labels), 'Run', 'Runs')} {', '.join(labels)}, against run {text}"


def _sentences(reference: str, explanation: Explanation | None) -> Iterator[str]:
    if explanation is None:
        return
    if explanation.is_whole and not explanation.differences:
        yield f"{reference}: no answer differs by a token: nothing to explain"
    if explanation.explained and explanation.bound:
        yield f"{reference}: {verdict(explanation)} {_measured(explanation, explanation.bound)}{_finer(explanation)}"
    if explanation.reason:
        differences = explanation.differences or explanation.without_ids
        yield f"{reference}: {_counted(differences)} not explained: {explanation.reason}"
    elif explanation.without_ids:
        yield f"{reference}: {_counted(explanation.without_ids)} not explained: no token ids are on record"


def verdict(explanation: Explanation) -> str:
    """Return how many of the measured differences are near-ties, in words, with the sample where it is one."""
    measured = len(explanation.explained)
    words = f"{explanation.near_ties} of {measured} {'difference' if measured == 1 else 'differences'}"
    if measured < explanation.differences:
        words += f" in a random sample (of {explanation.differences})"
    if measured == 1:
        return f"{words} is a near-tie" + (": rounding explains it" if explanation.near_ties else "")
    return f"{words} are near-ties" + (": rounding explains them" if explanation.near_ties == measured else "")


def _measured(explanation: Explanation, bound: NoiseBound) -> str:
    largest = "" if explanation.max_margin is None else f"largest margin {explanation.max_margin:.3g}, "
    return (
        f"({largest}noise bound {bound.max_change:.3g} logits, measured at {bound.positions} positions among "
        f"{bound.copies} copies)"
    )


def _finer(explanation: Explanation) -> str:
    """Return what a coarse dtype does not show, where it showed nothing."""
    dtype = (explanation.measured_with or {}).get("dtype")
    if dtype not in _COARSE or explanation.unexplained:
        return ""
    return f"; a defect that moves logits less than {dtype} rounds them is seen with provider.dtype=float32 only"


def _alarm(entry: ComparedPair, explanation: Explanation) -> str:
    unexplained = explanation.unexplained
    named = [_named(difference) for difference in unexplained[:_MAX_NAMED]]
    more = [f"{len(unexplained) - _MAX_NAMED} more"] if len(unexplained) > _MAX_NAMED else []
    bound = f" (noise bound {explanation.bound.max_change:.3g} logits)" if explanation.bound else ""
    is_one = len(unexplained) == 1
    return (
        f"run {entry.pair.run.label}: {len(unexplained)} {'difference' if is_one else 'differences'} from run "
        f"{entry.pair.reference.label} {'is' if is_one else 'are'} not explained by rounding{bound}: look for a bug in "
        f"padding, attention mask, positions, or the order of answers: {'; '.join([*named, *more])}"
    )


def _named(entry: ExplainedDifference) -> str:
    difference = entry.difference
    if difference.reference_token is None and difference.run_token is None:
        return f"prompt {difference.prompt_id!r} has the same tokens and another text"
    tokens = " against ".join(
        "the end" if token is None else repr(text)
        for token, text in (
            (difference.reference_token, entry.reference_text),
            (difference.run_token, entry.run_text),
        )
    )
    margin = "" if entry.margin is None else f", margin {entry.margin:.3g}"
    return f"prompt {difference.prompt_id!r} at token {difference.position} ({tokens}{margin})"


def _counted(count: int) -> str:
    return f"{count} {'difference is' if count == 1 else 'differences are'}"
