"""Answers that may be attached to the wrong prompts: swapped, shifted, or one answer given to many prompts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from runner.comparison.load import ComparedTexts
from runner.comparison.matching import AnswerPair, MatchedAnswers

_MIN_LONG = 16
"""A text of this many characters is not the text of two prompts by chance."""
MIN_COPIES = 3
"""Prompts that come to have one text. Two prompts come to have one label by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """How many texts are suspect, and how many of those are too long to be equal by chance."""

    count: int
    long: int


def moved(matched: MatchedAnswers) -> Suspects:
    """Return the texts that the reference has for one other prompt only, which has another text in the run.

    A text that the other prompt kept is shared. Empty texts never count.
    """
    before, now = _prompt_ids_by_text(matched.reference), _prompt_ids_by_text(matched.run)
    return _suspects([pair.run.text for pair in _differing(matched) if _is_moved(pair, before, now)])


def copied(matched: MatchedAnswers) -> Suspects:
    """Return the texts that the run gives to at least `MIN_COPIES` prompts, each of which had a text of its own.

    A label is shared by prompts of the reference as well, so that a text which several prompts of the reference have
    is no text of their own, and no copy either. A long text that two prompts share counts too, as in batches of two,
    but is not among the `long`: two prompts that ask the same may come to have one answer.
    """
    before, now = _prompt_ids_by_text(matched.reference), _prompt_ids_by_text(matched.run)
    prompt_ids: defaultdict[str, set[str]] = defaultdict(set)
    for pair in _differing(matched):
        if len(before.get(pair.reference.text, ())) == 1 and len(before.get(pair.run.text, ())) < 2:
            prompt_ids[pair.run.text].add(pair.key[0])
    many = [text for text, ids in prompt_ids.items() if text and len(ids) >= MIN_COPIES for _ in ids]
    pairs = [
        text
        for text, ids in prompt_ids.items()
        if len(ids) < MIN_COPIES and len(text) >= _MIN_LONG and len(now[text]) > 1
        for _ in ids
    ]
    return Suspects(count=len(many) + len(pairs), long=_suspects(many).long)


def _differing(matched: MatchedAnswers) -> Sequence[AnswerPair]:
    return [pair for pair in matched.pairs if not pair.is_equal]


def _is_moved(pair: AnswerPair, before: Mapping[str, Set[str]], now: Mapping[str, Set[str]]) -> bool:
    prompt_ids = before.get(pair.run.text, set())
    return len(prompt_ids) == 1 and pair.key[0] not in prompt_ids and not prompt_ids & now[pair.run.text]


def _suspects(texts: Sequence[str]) -> Suspects:
    return Suspects(count=len(texts), long=sum(len(text) >= _MIN_LONG for text in texts))


def _prompt_ids_by_text(texts: ComparedTexts) -> Mapping[str, Set[str]]:
    prompt_ids: defaultdict[str, set[str]] = defaultdict(set)
    for (prompt_id, _), compared in texts.items():
        if compared and compared.text:
            prompt_ids[compared.text].add(prompt_id)
    return prompt_ids
