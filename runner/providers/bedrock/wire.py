"""What goes into and comes out of Bedrock's calls, as data: bodies per family of models, and stop reasons.

Shapes are those of AWS's "Inference request parameters and response fields for foundation models". Sends nothing,
imports no SDK.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.config.schema import GenerationParams
from runner.types import FinishReason, Message

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePaths:
    """Where an answer's parts stand in a body: dotted paths, `*` is every item of a list; "" is nowhere.

    `thinking` is what a model reasons before it answers: no text of the answer, but output that is token_count.
    """

    text: str
    finish: str
    input_tokens: str
    output_tokens: str
    thinking: str = ""
    cached_input_tokens: str = ""
    cache_written_tokens: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFormat:
    """One request shape, and its answer's.

    Args:
        conversation: turns messages into the part of the body that holds them.
        knobs: our generation keys and what the body calls them; a key that is not here cannot be honoured.
        under: the object that holds the knobs; "" where they stand at the top.
        whole: where an unstreamed answer has its parts.
        chunk: where one chunk of a streamed answer has them.
    """

    conversation: Callable[[Sequence[Message]], Body]
    knobs: Mapping[str, str]
    under: str
    whole: ResponsePaths
    chunk: ResponsePaths

    def body(self, messages: Sequence[Message], params: GenerationParams) -> dict[str, Any]:
        """Return the request's body, with what is set and nothing else: an absent knob is the model's own default."""
        values = {wire: getattr(params, name) for name, wire in self.knobs.items()}
        knobs = {
            wire: list(value) if isinstance(value, tuple) else value
            for wire, value in values.items()
            if value not in (None, ())
        }
        return {**self.conversation(messages), **({self.under: knobs} if self.under else knobs)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that share InvokeModel bodies.

    Args:
        ids: what their model ids look like behind an inference profile's prefix or an ARN's slash.
        converse_top_k: top_k as Converse's `additionalModelRequestFields`; None where the models take none there.
    """

    name: str
    ids: str
    shape: WireFormat
    converse_top_k: Callable[[int], Body] | None = None


_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_written_tokens")


@dataclass(slots=True)
class ResponseAccumulator:
    """Gathers an answer from one body, or from a stream's chunks."""

    fields: ResponsePaths
    parts: list[str] = field(default_factory=list)
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_written_tokens: int | None = None

    def add(self, body: Body) -> bool:
        """Take what this body has; return whether it has new tokens: text, or thoughts before it."""
        text = "".join(_at(body, self.fields.text))
        self.parts.append(text)
        self.finish = next(iter(_at(body, self.fields.finish)), self.finish)
        for name in _COUNTS:
            setattr(self, name, _total(_at(body, getattr(self.fields, name)), getattr(self, name)))
        return bool(text or any(_at(body, self.fields.thinking)))

    def add_counts(self, counts: Mapping[str, str | None]) -> None:
        """Take token counts from response headers where the bodies had none."""
        for name, count in counts.items():
            if getattr(self, name) is None and count is not None:
                setattr(self, name, int(count))

    @property
    def text(self) -> str:
        """The whole text so far."""
        return "".join(self.parts)


def family_of(model_id: str) -> Family | None:
    """Return the family of a model id, an inference profile (us., global., ...) or an ARN that holds either."""
    return next((family for family in FAMILIES if re.search(rf"(^|[./])({family.ids})", model_id)), None)


def _at(body: Any, path: str) -> list[Any]:
    found = [body]
    for part in path.split("."):
        found = [inner for value in found for inner in _step(value, part)]
    return [value for value in found if value is not None]


def _step(value: Any, part: str) -> Sequence[Any]:
    if part == "*":
        return value if isinstance(value, list) else ()
    return (value[part],) if isinstance(value, Mapping) and part in value else ()


def _total(counts: Sequence[int], before: int | None) -> int | None:
    return sum(counts) if counts else before


def _system_and_turns(messages: Sequence[Message]) -> tuple[list[str], list[Message]]:
    system = [message.content for message in messages if message.role == "system"]
    return system, [message for message in messages if message.role != "system"]


def _content_blocks(messages: Sequence[Message]) -> Body:
    system, turns = _system_and_turns(messages)
    body: dict[str, Any] = {
        "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in turns],
    }
    return {**body, "system": [{"text": text} for text in system]} if system else body


def _anthropic_messages(messages: Sequence[Message]) -> Body:
    system, turns = _system_and_turns(messages)
    body: dict[str, Any] = {
        "anthropic_version": "bedrock-2023-05-31",
        "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
    }
    return {**body, "system": "\n\n".join(system)} if system else body


def _llama_prompt(messages: Sequence[Message], *, header: str, end: str) -> Body:
    turns = [header.format(role=message.role) + message.content + end for message in messages]
    return {"prompt": "<|begin_of_text|>" + "".join(turns) + header.format(role="assistant")}


def _mistral_prompt(messages: Sequence[Message]) -> Body:
    """Write [INST] turns; the format has no system role: its text opens the first turn."""
    system, turns = _system_and_turns(messages)
    opening = "".join(f"{text}\n\n" for text in system)
    written = []
    for turn in turns:
        if turn.role == "user":
            written.append(f"[INST] {opening}{turn.content} [/INST]")
            opening = ""
        else:
            written.append(f" {turn.content}</s>")
    return {"prompt": "<s>" + "".join(written)}


def _titan_prompt(messages: Sequence[Message]) -> Body:
    names = {"system": "", "user": "User: ", "assistant": "Bot: "}
    return {"inputText": "".join(f"{names[message.role]}{message.content}\n" for message in messages) + "Bot: "}


_NATIVE_KNOBS = {"temperature": "temperature", "top_p": "top_p"}
_CAMEL_KNOBS = {"temperature": "temperature", "top_p": "topP", "stop_sequences": "stopSequences"}
_METRICS = {
    "input_tokens": "amazon-bedrock-invocationMetrics.inputTokenCount",
    "output_tokens": "amazon-bedrock-invocationMetrics.outputTokenCount",
    "cached_input_tokens": "amazon-bedrock-invocationMetrics.cacheReadInputTokenCount",
    "cache_written_tokens": "amazon-bedrock-invocationMetrics.cacheWriteInputTokenCount",
}
"""What Bedrock itself puts into the last chunk of every InvokeModel stream."""

_MESSAGE = {"text": "output.message.content.*.text", "finish": "stopReason"}
_MESSAGE_EVENTS = {
    "text": "contentBlockDelta.delta.text",
    "thinking": "contentBlockDelta.delta.reasoningContent",
    "finish": "messageStop.stopReason",
}
_USAGE = {
    "input_tokens": "usage.inputTokens",
    "output_tokens": "usage.outputTokens",
    "cached_input_tokens": "usage.cacheReadInputTokens",
    "cache_written_tokens": "usage.cacheWriteInputTokens",
}

CONVERSE = WireFormat(
    conversation=_content_blocks,
    knobs={"max_tokens": "maxTokens", **_CAMEL_KNOBS},
    under="inferenceConfig",
    whole=ResponsePaths(**_MESSAGE, **_USAGE),
    chunk=ResponsePaths(**_MESSAGE_EVENTS, **{name: f"metadata.{path}" for name, path in _USAGE.items()}),
)

_ANTHROPIC = WireFormat(
    conversation=_anthropic_messages,
    knobs={"max_tokens": "max_tokens", **_NATIVE_KNOBS, "top_k": "top_k", "stop_sequences": "stop_sequences"},
    under="",
    whole=ResponsePaths(
        text="content.*.text",
        finish="stop_reason",
        input_tokens="usage.input_tokens",
        output_tokens="usage.output_tokens",
        cached_input_tokens="usage.cache_read_input_tokens",
        cache_written_tokens="usage.cache_creation_input_tokens",
    ),
    chunk=ResponsePaths(text="delta.text", thinking="delta.thinking", finish="delta.stop_reason", **_METRICS),
)

_NOVA = WireFormat(
    conversation=_content_blocks,
    knobs={"max_tokens": "maxTokens", **_CAMEL_KNOBS, "top_k": "topK"},
    under="inferenceConfig",
    whole=ResponsePaths(**_MESSAGE, **_USAGE),
    chunk=ResponsePaths(**_MESSAGE_EVENTS, **_METRICS),
)


def _llama(*, header: str, end: str) -> WireFormat:
    text = {"text": "generation", "finish": "stop_reason"}
    return WireFormat(
        conversation=functools.partial(_llama_prompt, header=header, end=end),
        knobs={"max_tokens": "max_gen_len", **_NATIVE_KNOBS},
        under="",
        whole=ResponsePaths(**text, input_tokens="prompt_token_count", output_tokens="generation_token_count"),
        chunk=ResponsePaths(**text, **_METRICS),
    )


_MISTRAL_OUTPUTS = {"text": "outputs.*.text", "finish": "outputs.*.stop_reason"}
_MISTRAL = WireFormat(
    conversation=_mistral_prompt,
    knobs={"max_tokens": "max_tokens", **_NATIVE_KNOBS, "top_k": "top_k", "stop_sequences": "stop"},
    under="",
    whole=ResponsePaths(**_MISTRAL_OUTPUTS, **_METRICS),  # the body counts nothing: the response's headers do
    chunk=ResponsePaths(**_MISTRAL_OUTPUTS, **_METRICS),
)

_TITAN = WireFormat(
    conversation=_titan_prompt,
    knobs={"max_tokens": "maxTokenCount", **_CAMEL_KNOBS},
    under="textGenerationConfig",
    whole=ResponsePaths(
        text="results.*.outputText",
        finish="results.*.completionReason",
        input_tokens="inputTextTokenCount",
        output_tokens="results.*.tokenCount",
    ),
    chunk=ResponsePaths(text="outputText", finish="completionReason", **_METRICS),
)

FAMILIES: Sequence[Family] = (
    Family(name="anthropic", ids=r"anthropic\.claude", shape=_ANTHROPIC, converse_top_k=lambda k: {"top_k": k}),
    Family(name="nova", ids=r"amazon\.nova", shape=_NOVA, converse_top_k=lambda k: {"inferenceConfig": {"topK": k}}),
    Family(
        name="llama3",
        ids=r"meta\.llama3",
        shape=_llama(header="<|start_header_id|>{role}<|end_header_id|>\n\n", end="<|eot_id|>"),
    ),
    Family(
        name="llama4",
        ids=r"meta\.llama4",
        shape=_llama(header="<|header_start|>{role}<|header_end|>\n\n", end="<|eot|>"),
    ),
    Family(name="mistral", ids=r"mistral\.(mistral-7b|mixtral-8x7b|mistral-(large|small)-2402)", shape=_MISTRAL),
    Family(name="titan", ids=r"amazon\.titan-text", shape=_TITAN),
)
"""Later Mistral models take chat bodies instead, and Llama 2 is gone: both are Converse's, not here."""


FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop": "stop",
    "stop_sequence": "stop",
    "stop_criteria_met": "stop",
    "finish": "stop",
    "finished": "stop",
    "max_tokens": "length",
    "length": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
"""Every family's stop reasons, in small letters."""
