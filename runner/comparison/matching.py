"""Which answers of two runs are compared: by prompt, and the answers of one prompt have no order."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.comparison.load import ComparedText, ComparedTexts, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPair:
    """Two answers to one prompt. `key` is the reference's."""

    key: Key
    reference: ComparedText
    run: ComparedText

    @property
    def is_equal(self) -> bool:
        """Whether the texts are equal to the letter."""
        return self.reference.text == self.run.text


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedAnswers:
    """The texts of two runs, and the pairs of those that both completed."""

    reference: ComparedTexts
    run: ComparedTexts
    pairs: Sequence[AnswerPair]

    @property
    def equal_prompts(self) -> Mapping[str, bool]:
        """Whether all compared answers of a prompt are equal, by the prompt's id."""
        equal: dict[str, bool] = {}
        for pair in self.pairs:
            equal[pair.key[0]] = equal.get(pair.key[0], True) and pair.is_equal
        return equal


def match_answers(reference: ComparedTexts, run: ComparedTexts) -> MatchedAnswers:
    """Pair the answers of two runs by prompt.

    Several answers to one prompt are drawn independently, so that their numbers mean nothing: equal texts are paired
    first, the others in their order.
    """
    expected, actual = _answers_by_prompt(reference), _answers_by_prompt(run)
    pairs = [
        AnswerPair(key=key, reference=first, run=second)
        for prompt_id, answers in expected.items()
        for key, first, second in _paired(answers, actual.get(prompt_id, []))
    ]
    return MatchedAnswers(reference=reference, run=run, pairs=pairs)


_Answers = list[tuple[Key, ComparedText]]


def _answers_by_prompt(texts: ComparedTexts) -> Mapping[str, _Answers]:
    answers: defaultdict[str, _Answers] = defaultdict(list)
    for key, text in sorted(texts.items(), key=lambda item: item[0][1]):  # by the number of the choice
        if text:
            answers[key[0]].append((key, text))
    return answers


def _paired(expected: _Answers, actual: _Answers) -> Iterator[tuple[Key, ComparedText, ComparedText]]:
    unpaired = [text for _, text in actual]
    different: _Answers = []
    for key, text in expected:
        index = next((index for index, other in enumerate(unpaired) if other.text == text.text), None)
        if index is None:
            different.append((key, text))
        else:
            yield key, text, unpaired.pop(index)
    for (key, text), other in zip(different, unpaired, strict=False):
        yield key, text, other
