"""Request and response bodies of Bedrock's calls as data, per family of models, and stop reasons.

Source: AWS, "Inference request parameters and response fields for foundation models". Sends nothing, imports no SDK.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.config.schema import GenerationParams
from runner.types import ChunkTimes, FinishReason, Message

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePaths:
    """Paths to an answer's parts in a response body: dotted, `*` is every item of a list, "" is nowhere.

    `reasoning` is what a model writes before the answer. It is not part of the text; its tokens are counted as output.
    """

    text: str
    finish_reason: str
    input_tokens: str
    output_tokens: str
    reasoning: str = ""
    cached_input_tokens: str = ""
    cache_written_tokens: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireFormat:
    """The bodies of one API: its request's, its response's, and one chunk's of a streamed response.

    Args:
        encode_messages: returns the request body's fields that hold the messages.
        param_names: the body's name for each generation key; other keys are not supported.
        params_key: the object that holds the parameters; "" where they stand at the top level.
        response: paths into an unstreamed response.
        chunk: paths into one chunk of a streamed response.
    """

    encode_messages: Callable[[Sequence[Message]], Body]
    param_names: Mapping[str, str]
    params_key: str
    response: ResponsePaths
    chunk: ResponsePaths

    def body(self, messages: Sequence[Message], params: GenerationParams) -> dict[str, Any]:
        """Return the request's body. A parameter that is not set is left out: the model's own default applies."""
        values = {wire_name: getattr(params, name) for name, wire_name in self.param_names.items()}
        set_params = {
            wire_name: list(value) if isinstance(value, tuple) else value
            for wire_name, value in values.items()
            if value not in (None, ())
        }
        return {
            **self.encode_messages(messages),
            **({self.params_key: set_params} if self.params_key else set_params),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that share InvokeModel bodies.

    Args:
        name: for messages.
        id_pattern: a regular expression for the model ids, after an inference profile's prefix or an ARN's slash.
        wire_format: the bodies.
        converse_top_k: top_k as Converse's `additionalModelRequestFields`; None where the models take no top_k there.
    """

    name: str
    id_pattern: str
    wire_format: WireFormat
    converse_top_k: Callable[[int], Body] | None = None


_TOKEN_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_written_tokens")


@dataclass(slots=True)
class ResponseAccumulator:
    """Collects an answer from one response body, or from the chunks of a stream.

    Attributes:
        paths: where the parts of the answer are.
        chunks: when the chunks of the stream came; None without a stream.
    """

    paths: ResponsePaths
    chunks: ChunkTimes | None
    texts: list[str] = field(default_factory=list)
    characters: int = 0
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_written_tokens: int | None = None

    def add(self, body: Body) -> None:
        """Add what this body holds, and when it came if it holds new tokens, of the text or of the reasoning."""
        text = "".join(_values(body, self.paths.text))
        self.texts.append(text)
        self.characters += len(text)
        self.finish_reason = next(iter(_values(body, self.paths.finish_reason)), self.finish_reason)
        for name in _TOKEN_COUNTS:
            counts = [count for count in _values(body, getattr(self.paths, name)) if isinstance(count, int)]
            if counts:
                setattr(self, name, sum(counts))
        if self.chunks is not None and (text or any(_values(body, self.paths.reasoning))):
            self.chunks.add(has_text=bool(text))

    def add_counts(self, counts: Mapping[str, str | None]) -> None:
        """Add token counts from response headers where the bodies held none."""
        for name, count in counts.items():
            if getattr(self, name) is None and count is not None and re.fullmatch("[0-9]{1,10}", count):
                setattr(self, name, int(count))

    @property
    def text(self) -> str:
        """The text of all bodies so far."""
        return "".join(self.texts)


def family_of(model_id: str) -> Family | None:
    """Return the family of a model id, an inference profile (us., global., ...) or an ARN that holds either."""
    return next((family for family in FAMILIES if re.search(rf"(^|[./])({family.id_pattern})", model_id)), None)


def _values(body: Any, path: str) -> list[Any]:
    values = [body]
    for key in path.split("."):
        values = [child for value in values for child in _children(value, key)]
    return [value for value in values if value is not None]


def _children(value: Any, key: str) -> Sequence[Any]:
    if key == "*":
        return value if isinstance(value, list) else ()
    return (value[key],) if isinstance(value, Mapping) and key in value else ()


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
    """Return the messages as [INST] turns. The format has no system role: the system text opens the first user turn."""
    system, turns = _system_and_turns(messages)
    system_text = "".join(f"{text}\n\n" for text in system)
    parts = []
    for turn in turns:
        if turn.role == "user":
            parts.append(f"[INST] {system_text}{turn.content} [/INST]")
            system_text = ""
        else:
            parts.append(f" {turn.content}</s>")
    return {"prompt": "<s>" + "".join(parts)}


def _titan_prompt(messages: Sequence[Message]) -> Body:
    names = {"system": "", "user": "User: ", "assistant": "Bot: "}
    return {"inputText": "".join(f"{names[message.role]}{message.content}\n" for message in messages) + "Bot: "}


_SNAKE_CASE_PARAMS = {"temperature": "temperature", "top_p": "top_p"}
_CAMEL_CASE_PARAMS = {"temperature": "temperature", "top_p": "topP", "stop_sequences": "stopSequences"}
_METRICS = {
    "input_tokens": "amazon-bedrock-invocationMetrics.inputTokenCount",
    "output_tokens": "amazon-bedrock-invocationMetrics.outputTokenCount",
    "cached_input_tokens": "amazon-bedrock-invocationMetrics.cacheReadInputTokenCount",
    "cache_written_tokens": "amazon-bedrock-invocationMetrics.cacheWriteInputTokenCount",
}
"""Bedrock adds these to the last chunk of every InvokeModel stream."""

_MESSAGE = {"text": "output.message.content.*.text", "finish_reason": "stopReason"}
_MESSAGE_EVENTS = {
    "text": "contentBlockDelta.delta.text",
    "reasoning": "contentBlockDelta.delta.reasoningContent",
    "finish_reason": "messageStop.stopReason",
}
_USAGE = {
    "input_tokens": "usage.inputTokens",
    "output_tokens": "usage.outputTokens",
    "cached_input_tokens": "usage.cacheReadInputTokens",
    "cache_written_tokens": "usage.cacheWriteInputTokens",
}

CONVERSE = WireFormat(
    encode_messages=_content_blocks,
    param_names={"max_tokens": "maxTokens", **_CAMEL_CASE_PARAMS},
    params_key="inferenceConfig",
    response=ResponsePaths(**_MESSAGE, **_USAGE),
    chunk=ResponsePaths(**_MESSAGE_EVENTS, **{name: f"metadata.{path}" for name, path in _USAGE.items()}),
)

_ANTHROPIC = WireFormat(
    encode_messages=_anthropic_messages,
    param_names={
        "max_tokens": "max_tokens",
        **_SNAKE_CASE_PARAMS,
        "top_k": "top_k",
        "stop_sequences": "stop_sequences",
    },
    params_key="",
    response=ResponsePaths(
        text="content.*.text",
        finish_reason="stop_reason",
        input_tokens="usage.input_tokens",
        output_tokens="usage.output_tokens",
        cached_input_tokens="usage.cache_read_input_tokens",
        cache_written_tokens="usage.cache_creation_input_tokens",
    ),
    chunk=ResponsePaths(text="delta.text", reasoning="delta.thinking", finish_reason="delta.stop_reason", **_METRICS),
)

_NOVA = WireFormat(
    encode_messages=_content_blocks,
    param_names={"max_tokens": "maxTokens", **_CAMEL_CASE_PARAMS, "top_k": "topK"},
    params_key="inferenceConfig",
    response=ResponsePaths(**_MESSAGE, **_USAGE),
    chunk=ResponsePaths(**_MESSAGE_EVENTS, **_METRICS),
)


def _llama(*, header: str, end: str) -> WireFormat:
    text = {"text": "generation", "finish_reason": "stop_reason"}
    return WireFormat(
        encode_messages=functools.partial(_llama_prompt, header=header, end=end),
        param_names={"max_tokens": "max_gen_len", **_SNAKE_CASE_PARAMS},
        params_key="",
        response=ResponsePaths(**text, input_tokens="prompt_token_count", output_tokens="generation_token_count"),
        chunk=ResponsePaths(**text, **_METRICS),
    )


_MISTRAL_OUTPUTS = {"text": "outputs.*.text", "finish_reason": "outputs.*.stop_reason"}
_MISTRAL = WireFormat(
    encode_messages=_mistral_prompt,
    param_names={"max_tokens": "max_tokens", **_SNAKE_CASE_PARAMS, "top_k": "top_k", "stop_sequences": "stop"},
    params_key="",
    response=ResponsePaths(**_MISTRAL_OUTPUTS, **_METRICS),  # the body has no counts: the response's headers have
    chunk=ResponsePaths(**_MISTRAL_OUTPUTS, **_METRICS),
)

_TITAN = WireFormat(
    encode_messages=_titan_prompt,
    param_names={"max_tokens": "maxTokenCount", **_CAMEL_CASE_PARAMS},
    params_key="textGenerationConfig",
    response=ResponsePaths(
        text="results.*.outputText",
        finish_reason="results.*.completionReason",
        input_tokens="inputTextTokenCount",
        output_tokens="results.*.tokenCount",
    ),
    chunk=ResponsePaths(text="outputText", finish_reason="completionReason", **_METRICS),
)

FAMILIES: Sequence[Family] = (
    Family(
        name="anthropic", id_pattern=r"anthropic\.claude", wire_format=_ANTHROPIC, converse_top_k=lambda k: {"top_k": k}
    ),
    Family(
        name="nova",
        id_pattern=r"amazon\.nova",
        wire_format=_NOVA,
        converse_top_k=lambda k: {"inferenceConfig": {"topK": k}},
    ),
    Family(
        name="llama3",
        id_pattern=r"meta\.llama3",
        wire_format=_llama(header="<|start_header_id|>{role}<|end_header_id|>\n\n", end="<|eot_id|>"),
    ),
    Family(
        name="llama4",
        id_pattern=r"meta\.llama4",
        wire_format=_llama(header="<|header_start|>{role}<|header_end|>\n\n", end="<|eot|>"),
    ),
    Family(
        name="mistral",
        id_pattern=r"mistral\.(mistral-7b|mixtral-8x7b|mistral-(large|small)-2402)",
        wire_format=_MISTRAL,
    ),
    Family(name="titan", id_pattern=r"amazon\.titan-text", wire_format=_TITAN),
)
"""Not here: later Mistral models, which take chat bodies (use Converse), and Llama 2, which AWS has retired."""


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
"""By a family's stop reason, in lower case."""
