"""One model through one API of Bedrock: the requests that it takes, and its answers as they are generated."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from runner.config.schema import GenerationParams
from runner.config.secrets import has_secret, redact
from runner.errors import ConfigError
from runner.providers.bedrock.receive import usage_of
from runner.providers.bedrock.wire import CONVERSE, FAMILIES, FINISH_REASONS, Family, ResponseAccumulator, WireFormat
from runner.providers.errors import REPEATED, RETRY, CallError
from runner.text import excerpt
from runner.types import Answer, Generated, Prompt, Timing

log = logging.getLogger(__name__)

Api = Literal["converse", "invoke"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelApi:
    """A model and the API by which it is called.

    Attributes:
        model_id: the model's id, an inference profile's, or the ARN of either.
        api: converse has the same bodies for all models; invoke has those of the model's family.
        family: the model's; None where it is not known.
    """

    model_id: str
    api: Api
    family: Family | None

    @property
    def wire_format(self) -> WireFormat:
        """The bodies of the API."""
        return self.family.wire_format if self.api == "invoke" and self.family is not None else CONVERSE

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the request body has a name for. Never `n`: a call has one answer."""
        takes_top_k = self.api == "converse" and self.family is not None and self.family.converse_top_k
        return frozenset(self.wire_format.param_names) - {"max_tokens"} | ({"top_k"} if takes_top_k else set())

    def validate(self) -> None:
        """Raise ConfigError where the model's bodies are not known."""
        if self.api == "invoke" and self.family is None:
            families = ", ".join(family.name for family in FAMILIES)
            raise ConfigError(
                f"model.id={self.model_id!r}: its InvokeModel body is not known (known: {families}): "
                "set provider.api=converse"
            )

    def body(self, prompt: Prompt, params: GenerationParams) -> dict[str, Any]:
        """Return the body of one request, be it sent alone or a record of a batch job."""
        body = self.wire_format.body(prompt.messages, params)
        if self.api == "converse" and params.top_k is not None and self.family and self.family.converse_top_k:
            body["additionalModelRequestFields"] = self.family.converse_top_k(params.top_k)
        return body


class AnswerReader:
    """Makes answers of responses, and warns of what they lack or repeat.

    Args:
        model_id: the model that answers.
        secrets: what no answer should repeat; may grow later.
    """

    def __init__(self, model_id: str, secrets: Collection[str]) -> None:
        self._model_id, self._secrets = model_id, secrets
        self._lacks_usage = False

    def generated(self, prompt: str, response: ResponseAccumulator, timing: Timing) -> Generated:
        """Return what was generated for a prompt.

        Args:
            prompt: its id, for warnings.
            response: the whole response.
            timing: of the call.

        Raises:
            CallError: the response has no end.
        """
        if response.finish_reason is None:
            raise CallError("AnswerCut", "the answer ended without a stop reason", RETRY)
        finish_reason = FINISH_REASONS.get(response.finish_reason.lower(), "unknown")
        if finish_reason == "unknown":
            reason = redact(excerpt(response.finish_reason, 40), self._secrets)
            log.warning("prompt %s: stop reason %r is not known", prompt, reason)
        if has_secret(response.text, self._secrets):
            log.warning(REPEATED, prompt)
        usage = usage_of(response)
        if usage is None and not self._lacks_usage:
            self._lacks_usage = True
            log.warning("the service's answers have no token counts: their texts are kept, their tokens are not known")
        answer = Answer(text=response.text, finish_reason=finish_reason, usage=usage)
        return Generated(model=self._model_id, timing=timing, answers=(answer,))
