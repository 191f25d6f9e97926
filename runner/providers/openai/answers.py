"""Makes answers of a response's choices: the same for single requests, lists and batch jobs."""

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from runner.config.secrets import has_secret, redact
from runner.providers.errors import REPEATED
from runner.providers.openai.stream import ChoiceResult
from runner.text import excerpt
from runner.types import Answer, Generated, Timing, Usage

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class AnswerReader:
    """Makes answers of choices, and keeps what a run says of all of them.

    Attributes:
        model_id: the recorded model where a response names none.
        secrets: keys and tokens, which are redacted where a response repeats them.
        fingerprints: what the service said of the systems that answered.
        lacks_usage: whether a response had no usage; warned of once.
    """

    model_id: str
    secrets: Set[str]
    fingerprints: set[str] = field(default_factory=set)
    lacks_usage: bool = False

    def generated(
        self, prompt_id: str, choices: Sequence[ChoiceResult], usage: Usage | None, timing: Timing
    ) -> Generated:
        """Return what was generated for one prompt.

        Args:
            prompt_id: for a warning.
            choices: all of the prompt's.
            usage: the prompt's input; None where the service counted nothing.
            timing: of the prompt.
        """
        if usage is None and not self.lacks_usage:
            self.lacks_usage = True
            log.warning("the server's answers have no usage: their texts are kept, their tokens are not known")
        answers = tuple(self._answer(choice, usage) for choice in choices)
        self.fingerprints |= {answer.system_fingerprint for answer in answers if answer.system_fingerprint}
        if any(has_secret(answer.text, self.secrets) for answer in answers):  # a text is kept as it is
            log.warning(REPEATED, prompt_id)
        return Generated(model=redact(choices[0].model or self.model_id, self.secrets), timing=timing, answers=answers)

    def _answer(self, choice: ChoiceResult, input_usage: Usage | None) -> Answer:
        usage = None
        if input_usage is not None and choice.output_tokens is not None:
            usage = replace(input_usage, output_tokens=choice.output_tokens, reasoning_tokens=choice.reasoning_tokens)
        if choice.finish_reason == "unknown":
            log.warning("finish reason %r is not known", redact(excerpt(str(choice.sent_reason), 40), self.secrets))
        fingerprint = choice.system_fingerprint
        return Answer(
            text=choice.text,
            finish_reason=choice.finish_reason,
            usage=usage,
            system_fingerprint=fingerprint and redact(fingerprint, self.secrets),
        )
