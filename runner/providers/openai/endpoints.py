"""The endpoints of OpenAI's API as values: the request's body, the SDK's method, the reading of the response."""

import json
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import Field

from runner.config.schema import GenerationParams
from runner.errors import ConfigError
from runner.providers.openai.stream import (
    ChoiceResult,
    empty_answer,
    read_choices,
    read_response,
    whole_choices,
    whole_response,
)
from runner.types import Prompt

EndpointName = Literal["chat", "responses", "completions"]
LimitKey = Literal["max_completion_tokens", "max_tokens"]
UnsupportedParams = Annotated[tuple[Literal["temperature", "top_p", "stop_sequences", "n"], ...], Field(strict=False)]
Body = dict[str, Any]

_SETTINGS = ("service_tier", "reasoning_effort", "prediction")
"""Settings that become fields of a request where they are set."""
_SAMPLING = {"temperature": "temperature", "top_p": "top_p"}
_ALL_PARAMS = {**_SAMPLING, "stop_sequences": "stop", "n": "n", "seed": "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """Fields of every request's body in a run, besides the prompt and the generation parameters.

    Attributes:
        model: the model's id, or the deployment's name.
        max_tokens_field: the name of the limit of new tokens; None is the API's own.
        service_tier: as in the API.
        reasoning_effort: as in the API; None sends none.
        prediction: the text that the answer is expected to repeat.
        seed: whether to send a seed.
    """

    model: str
    max_tokens_field: LimitKey | None
    service_tier: str | None
    reasoning_effort: str | None
    prediction: str | None
    seed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint.

    Attributes:
        name: as in `provider.endpoint`.
        operation: `gen_ai.operation.name` in OpenTelemetry's semantic conventions.
        content_key: the field that holds the prompt, or the list of prompts.
        content: returns a prompt as the value of that field.
        params: the body's name for each generation key and for the seed; other keys are refused.
        settings: for each setting that a body has a field for, a function that returns the field.
        limit_keys: names of the limit of new tokens; the first is sent unless the provider's settings say otherwise.
        constants: fields that every body has.
        stream_fields: fields that request a stream; the sender adds them to the body.
        takes_lists: whether one request may hold a list of prompts.
        method: the SDK client's method that sends a body.
        response_type: the SDK's class of a whole response, as `pkgutil.resolve_name` takes it.
        read: reads the choices of a stream; the arguments are those of `stream.read_choices`.
        read_whole: reads the choices of a whole response; the arguments are those of `stream.whole_choices`.
        path: of the address that a body is sent to, after that of the API.
    """

    name: EndpointName
    operation: Literal["chat", "text_completion"]
    content_key: str
    content: Callable[[Prompt], Any]
    params: Mapping[str, str]
    settings: Mapping[str, Callable[[str], Body]]
    limit_keys: Sequence[str]
    constants: Mapping[str, Any]
    stream_fields: Mapping[str, Any]
    takes_lists: bool = False
    method: Callable[[Any], Callable[..., Awaitable[Any]]]
    read: Callable[[AsyncIterator[Any], int], Awaitable[Sequence[ChoiceResult]]]
    read_whole: Callable[[Any, int], Sequence[ChoiceResult]]
    path: str
    response_type: str

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that requests have a field for."""
        return frozenset(self.params) - {"seed"}

    def body(self, content: Any, params: GenerationParams, settings: RequestSettings) -> Body:
        """Return the JSON body of a request: the fields that are set, in the order in which the SDK sends them.

        Args:
            content: what `content` returns for a prompt; where `takes_lists`, a list of such values.
            params: how to generate.
            settings: the same for all requests.
        """
        values = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "stop_sequences": list(params.stop_sequences) or None,
            "n": params.n if params.n > 1 else None,
            "seed": params.seed if settings.seed else None,
        }
        body: Body = {**self.constants, self._limit_key(settings): params.max_tokens}
        body |= {field: values[name] for name, field in self.params.items() if values[name] is not None}
        for name, part in self.settings.items():
            if (value := getattr(settings, name)) is not None:
                body |= part(value)
        tier = {"service_tier": body.pop("service_tier")} if "service_tier" in body else {}
        return {"model": settings.model, **tier, self.content_key: content, **dict(sorted(body.items()))}

    async def parse(self, stream: Any) -> Any:
        """Return the whole response that a server sent instead of a stream, as the SDK would have read it.

        Raises:
            APIConnectionError: the response was cut.
            CallError: the response is empty.
            TypeError: the response is JSON, and no object.
        """
        import httpx2
        from openai import APIConnectionError

        try:
            async with stream:
                raw = await stream.response.aread()
        except httpx2.RequestError as error:  # as the SDK does it for a stream
            raise APIConnectionError(request=stream.response.request) from error
        if not raw:
            raise empty_answer(stream)
        return self.response(json.loads(raw))

    def response(self, values: Any) -> Any:
        """Return the SDK's object of a whole response, given its JSON.

        Raises:
            TypeError: the JSON is no object.
        """
        return pkgutil.resolve_name(self.response_type).construct(**values)

    def validate(self, params: GenerationParams, settings: RequestSettings) -> None:
        """Refuse settings that requests have no field for.

        Raises:
            ConfigError: there is one, or two settings exclude each other.
        """
        for name in _SETTINGS:
            value = getattr(settings, name)
            if value is not None and name not in self.settings:
                raise ConfigError(
                    f"provider.{name}={value!r}: requests of provider.endpoint={self.name!r} have no such field: "
                    f"set provider.{name}=null, or provider.endpoint=chat"
                )
        if settings.max_tokens_field is not None and settings.max_tokens_field not in self.limit_keys:
            raise ConfigError(
                f"provider.max_tokens_field={settings.max_tokens_field!r}: requests of provider.endpoint="
                f"{self.name!r} have {self.limit_keys[0]} only: set provider.max_tokens_field=null"
            )
        if settings.prediction is not None:
            _validate_prediction(params, settings)

    def _limit_key(self, settings: RequestSettings) -> str:
        """Return the name of the limit of new tokens; predicted outputs exclude the newer name."""
        return settings.max_tokens_field or self.limit_keys[0 if settings.prediction is None else -1]


def _validate_prediction(params: GenerationParams, settings: RequestSettings) -> None:
    """Refuse what the API's guide to predicted outputs excludes."""
    excluded = {
        f"provider.reasoning_effort={settings.reasoning_effort!r}": settings.reasoning_effort is not None,
        "provider.max_tokens_field='max_completion_tokens'": settings.max_tokens_field == "max_completion_tokens",
        f"generation.n={params.n}": params.n > 1,
    }
    for setting, is_set in excluded.items():
        if is_set:
            raise ConfigError(f"{setting} cannot be combined with provider.prediction: unset one of them")


def _messages(prompt: Prompt) -> list[Body]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _chat_text(choice: Any, streamed: bool) -> str | None:
    text: str | None = choice.delta.content if streamed else choice.message.content
    return text


def _completion_text(choice: Any, _streamed: bool) -> str | None:
    text: str | None = choice.text
    return text


_STREAM_WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
_TIER = {"service_tier": lambda tier: {"service_tier": tier}}

ENDPOINTS: Mapping[EndpointName, Endpoint] = {
    "chat": Endpoint(
        name="chat",
        operation="chat",
        content_key="messages",
        content=_messages,
        params=_ALL_PARAMS,
        settings={
            **_TIER,
            "reasoning_effort": lambda effort: {"reasoning_effort": effort},
            "prediction": lambda text: {"prediction": {"type": "content", "content": text}},
        },
        limit_keys=("max_completion_tokens", "max_tokens"),
        constants={},
        stream_fields=_STREAM_WITH_USAGE,
        method=attrgetter("chat.completions.create"),
        read=partial(read_choices, text=_chat_text),
        read_whole=partial(whole_choices, text=_chat_text),
        path="/chat/completions",
        response_type="openai.types.chat:ChatCompletion",
    ),
    "completions": Endpoint(
        name="completions",
        operation="text_completion",
        content_key="prompt",
        content=attrgetter("text"),
        params=_ALL_PARAMS,
        settings={},
        limit_keys=("max_tokens",),
        constants={},
        stream_fields=_STREAM_WITH_USAGE,
        takes_lists=True,
        method=attrgetter("completions.create"),
        read=partial(read_choices, text=_completion_text),
        read_whole=partial(whole_choices, text=_completion_text),
        path="/completions",
        response_type="openai.types:Completion",
    ),
    "responses": Endpoint(
        name="responses",
        operation="chat",
        content_key="input",
        content=_messages,
        params=_SAMPLING,
        settings={**_TIER, "reasoning_effort": lambda effort: {"reasoning": {"effort": effort}}},
        limit_keys=("max_output_tokens",),
        constants={"store": False},
        stream_fields={"stream": True},
        method=attrgetter("responses.create"),
        read=read_response,
        read_whole=whole_response,
        path="/responses",
        response_type="openai.types.responses:Response",
    ),
}
