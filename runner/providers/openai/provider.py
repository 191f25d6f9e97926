"""OpenAI and every server that speaks its API: chat, responses or completions, streamed, one request a prompt.

Also static batches where a server takes a list of prompts in one completions request. The SDK's own retries are off:
pacing does them. `azure` is this wire format behind another client.
"""

import asyncio
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, validate_call

from runner.config.schema import (
    STRICT,
    Address,
    BatchMode,
    GenerationParams,
    ModelConfig,
    NonEmptyStr,
    VariableName,
    web_address,
)
from runner.errors import ConfigError, MissingPackageError
from runner.providers.errors import FATAL, UNSENDABLE, CallError, ErrorPolicy, redact_errors
from runner.providers.openai.errors import call_errors
from runner.providers.openai.stream import AnswersMissing, ChoiceResult, read_choices, read_responses, share
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import shape_errors
from runner.types import Answer, Generated, Prompt, Stopwatch, Timing, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Endpoint = Literal["chat", "responses", "completions"]
LimitField = Literal["max_completion_tokens", "max_tokens"]
Lacks = Annotated[tuple[Literal["temperature", "top_p", "stop_sequences", "n"], ...], Field(strict=False)]
_OWN_ADDRESS = "https://api.openai.com/v1"
_CONNECTIONS = 1_000_000
"""Out of reach: the batch mode alone decides how many there are. None would be aiohttp's own limit, which is 100."""
_KNOBS: Mapping[Endpoint, frozenset[str]] = {
    "chat": frozenset({"temperature", "top_p", "stop_sequences", "n"}),
    "completions": frozenset({"temperature", "top_p", "stop_sequences", "n"}),
    "responses": frozenset({"temperature", "top_p"}),
}
_SETTINGS: Mapping[Endpoint, frozenset[str]] = {
    "chat": frozenset({"service_tier", "reasoning_effort", "prediction"}),
    "completions": frozenset(),
    "responses": frozenset({"service_tier", "reasoning_effort"}),
}
"""By endpoint: which of the settings that become fields of a request its requests have."""
_LIMIT_FIELDS: Mapping[Endpoint, Sequence[str]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
"""By endpoint: what the limit of new tokens may be called, the usual name first."""
_TAKES_NO_LISTS = "this server may take no list of prompts in one request: set batch.mode=concurrent"


class OpenAIProvider:
    """Requests to OpenAI, or to a compatible server at `base_url`.

    Args:
        model: its id is the request's `model`.
        base_url: the server's address up to and including /v1; null is the variable OPENAI_BASE_URL, which the SDK
            would read in any case, or OpenAI's own address. environment.json says which it was.
        api_key_env: the name of the environment variable that holds the key; null for servers that take none.
        endpoint: chat, responses or completions.
        stream: stream the answer, so that time to first token is real; false where a server cannot.
        max_tokens_field: what the server calls the limit of new tokens in chat requests; null is the API's own name.
        service_tier: as in the API (auto, default, flex, priority); another tier than the standard has no known price.
        reasoning_effort: as in the API; null sends none, for models that do not reason refuse any.
        prediction: the text that the answer is expected to repeat (predicted outputs, chat only).
        seed: send a seed; false where the server has no such field. Responses have none.
        lacks: generation keys that this server is known to ignore: they are refused.
    """

    name: ClassVar[str] = "openai"
    default_mode: ClassVar[BatchMode] = "concurrent"
    is_local: ClassVar[bool] = False

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        base_url: Address | None,
        api_key_env: VariableName | None,
        endpoint: Endpoint,
        stream: bool,
        max_tokens_field: LimitField | None,
        service_tier: NonEmptyStr | None,
        reasoning_effort: NonEmptyStr | None,
        prediction: NonEmptyStr | None,
        seed: bool,
        lacks: Lacks,
    ) -> None:
        self._model = model
        self._base_url = base_url
        self._api_key_env = api_key_env
        self._endpoint = endpoint
        self._stream = stream
        self._max_tokens_field = max_tokens_field
        self._service_tier, self._reasoning_effort, self._prediction = service_tier, reasoning_effort, prediction
        self._seed = seed and endpoint != "responses"
        self._lacks = frozenset(lacks)
        self._client: AsyncOpenAI | None = None
        self._fingerprints: set[str] = set()
        self._secrets: set[str] = set()
        self._takes_lists = False

    @property
    def price_catalog(self) -> str | None:
        """OpenAI's list for OpenAI's own address and standard tier; any other price is not known."""
        own = self._address().rstrip("/") == _OWN_ADDRESS
        return "openai" if own and self._service_tier in (None, "auto", "default") else None

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the endpoint has, and the server does not ignore."""
        return _KNOBS[self._endpoint] - self._lacks

    def validate(self, params: GenerationParams) -> None:
        """Refuse settings that the endpoint has no place for."""
        self._check_fields()
        if self._prediction is not None:
            self._check_prediction(params)
        if self._model.revision is not None:
            raise ConfigError(
                f"model.revision={self._model.revision!r}: a request to {self.name!r} has no place for it: leave it "
                "null, and name the very model in model.id"
            )
        if params.temperature > 2:
            raise ConfigError(f"generation.temperature={params.temperature}: {self.name} takes 0 to 2: lower it")

    def validate_lists(self) -> None:
        """Refuse static batches where requests are not completions: no other has a list of prompts."""
        if self._endpoint != "completions":
            raise ConfigError(
                f"batch.mode='static' sends a list of prompts in one request, which provider.endpoint="
                f"{self._endpoint!r} does not have: set provider.endpoint=completions, or batch.mode=concurrent"
            )

    def _check_fields(self) -> None:
        asked = {
            "service_tier": self._service_tier,
            "reasoning_effort": self._reasoning_effort,
            "prediction": self._prediction,
        }
        for name, value in asked.items():
            if value is not None and name not in _SETTINGS[self._endpoint]:
                raise ConfigError(
                    f"provider.{name}={value!r}: requests of provider.endpoint={self._endpoint!r} have no such field: "
                    f"set provider.{name}=null, or provider.endpoint=chat"
                )
        names = _LIMIT_FIELDS[self._endpoint]
        if self._max_tokens_field is not None and self._max_tokens_field not in names:
            raise ConfigError(
                f"provider.max_tokens_field={self._max_tokens_field!r}: requests of provider.endpoint="
                f"{self._endpoint!r} have {names[0]} only: set provider.max_tokens_field=null"
            )

    def _check_prediction(self, params: GenerationParams) -> None:
        """Refuse what the API's guide to predicted outputs says that it refuses."""
        beside = {
            f"provider.reasoning_effort={self._reasoning_effort!r}": self._reasoning_effort is not None,
            "provider.max_tokens_field='max_completion_tokens'": self._max_tokens_field == "max_completion_tokens",
            f"generation.n={params.n}": params.n > 1,
        }
        for setting, is_set in beside.items():
            if is_set:
                raise ConfigError(f"{setting} cannot stand beside provider.prediction: unset one of them")

    def __enter__(self) -> Self:
        _import_sdk(self.name)
        self._secret()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held outside of an event loop."""

    async def __aenter__(self) -> Self:
        self._client = self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def describe(self) -> Mapping[str, Any]:
        """Return where requests go and what they carry."""
        return {
            "gen_ai.provider.name": "openai",
            "gen_ai.operation.name": "text_completion" if self._endpoint == "completions" else "chat",
            "base_url": self._address(),
            "endpoint": self._endpoint,
            "stream": self._stream,
            "service_tier": self._service_tier,
            "sends_seed": self._seed,
            "system_fingerprint": ", ".join(sorted(self._fingerprints)) or None,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the models that the key can use, with the day on which they are shut down, where the service says."""
        _import_sdk(self.name)

        async def ask() -> list[ModelInfo]:
            async with self:
                return [_model_info(model) async for model in self._ready.models.list(timeout=LIST_TIMEOUT_S)]

        with self._errors(), shape_errors():
            return sorted(asyncio.run(ask()), key=lambda model: model.id)

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Send one request and return its `n` answers."""
        send = {"chat": self._chat, "completions": self._complete, "responses": self._respond}[self._endpoint]
        watch = Stopwatch()
        with self._errors():
            try:
                answers = await send(prompt, params, watch)
            except AnswersMissing as error:
                said = f"{error}: generation.n is not honoured by this server: set generation.n=1"
                raise CallError("AnswersMissing", said, FATAL) from None
        timing = watch.stop()
        return self._generated([prompt], params, answers, timing)[0]

    async def generate_list(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Send one completions request with a list of prompts; answers come back in the list's order, `n` a prompt."""
        watch = Stopwatch()
        with self._list_errors(params), self._errors():
            answers = await self._complete_texts([prompt.text for prompt in prompts], params, watch)
        timing = watch.stop()
        self._takes_lists = True
        return self._generated(prompts, params, answers, timing)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise CallError for all that a request can meet, with no secret in it."""
        with redact_errors(self._secrets), call_errors(self._model.id, key_advice=self._key_advice):
            yield

    @contextmanager
    def _list_errors(self, params: GenerationParams) -> Iterator[None]:
        """Say what to do where it may be the list, not its prompts, that the server does not take."""
        try:
            yield
        except AnswersMissing as error:
            ignored = "generation.n is not honoured by this server, or " if params.n > 1 else ""
            said = f"{error}: {ignored}{_TAKES_NO_LISTS}"
            raise CallError("ListRefused", said, ErrorPolicy(fatal=True, refuses_lists=True)) from None
        except CallError as error:
            policy = error.policy
            refused = policy.not_billed and not (policy.retryable or policy.fatal) and error.type != UNSENDABLE
            if refused and not self._takes_lists:
                raise CallError(error.type, f"{error.message}; {_TAKES_NO_LISTS}", policy) from None
            raise

    async def _chat(self, prompt: Prompt, params: GenerationParams, watch: Stopwatch) -> Sequence[ChoiceResult]:
        body: dict[str, Any] = {
            "messages": _messages(prompt),
            self._limit_field: params.max_tokens,
            **self._sampling(params),
        }
        if self._reasoning_effort is not None:
            body["reasoning_effort"] = self._reasoning_effort
        if self._prediction is not None:
            body["prediction"] = {"type": "content", "content": self._prediction}
        chunks = await self._open(self._ready.chat.completions.create, body)
        with shape_errors():
            return await read_choices(chunks, watch, text=_chat_text, streamed=self._stream, count=params.n)

    async def _complete(self, prompt: Prompt, params: GenerationParams, watch: Stopwatch) -> Sequence[ChoiceResult]:
        return await self._complete_texts(prompt.text, params, watch)

    async def _complete_texts(
        self, texts: str | list[str], params: GenerationParams, watch: Stopwatch
    ) -> Sequence[ChoiceResult]:
        body = {"prompt": texts, "max_tokens": params.max_tokens, **self._sampling(params)}
        chunks = await self._open(self._ready.completions.create, body)
        count = params.n * (1 if isinstance(texts, str) else len(texts))
        with shape_errors():
            return await read_choices(chunks, watch, text=_completion_text, streamed=self._stream, count=count)

    async def _respond(self, prompt: Prompt, params: GenerationParams, watch: Stopwatch) -> Sequence[ChoiceResult]:
        body: dict[str, Any] = {"input": _messages(prompt), "max_output_tokens": params.max_tokens, "store": False}
        body |= {"temperature": params.temperature} | ({} if params.top_p is None else {"top_p": params.top_p})
        if self._reasoning_effort is not None:
            body["reasoning"] = {"effort": self._reasoning_effort}
        events = await self._open(self._ready.responses.create, body, usage_option=False)
        with shape_errors():
            return await read_responses(events, watch, streamed=self._stream)

    async def _open(self, create: Callable[..., Any], body: dict[str, Any], *, usage_option: bool = True) -> Any:
        if self._service_tier is not None:
            body["service_tier"] = self._service_tier
        if self._stream:
            body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if usage_option else {})
        return await create(model=self._model.id, **body)

    def _sampling(self, params: GenerationParams) -> dict[str, Any]:
        values: dict[str, Any] = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "stop": list(params.stop_sequences) or None,
            "n": params.n if params.n > 1 else None,
            "seed": params.seed if self._seed else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _generated(
        self, prompts: Sequence[Prompt], params: GenerationParams, choices: Sequence[ChoiceResult], timing: Timing
    ) -> list[Generated]:
        self._fingerprints |= {choice.system_fingerprint for choice in choices if choice.system_fingerprint}
        usages = _share_input(choices[0].request, [len(prompt.text) for prompt in prompts])
        return [
            Generated(
                model=choices[number * params.n].model or self._model.id,
                timing=timing,
                answers=tuple(
                    Answer(
                        text=choice.text,
                        finish_reason=choice.finish_reason,
                        usage=replace(usage, output_tokens=choice.output_tokens),
                    )
                    for choice in choices[number * params.n : (number + 1) * params.n]
                ),
            )
            for number, usage in enumerate(usages)
        ]

    @property
    def _ready(self) -> "AsyncOpenAI":
        if self._client is None:
            raise RuntimeError("requests are sent inside `async with provider:` only")
        return self._client

    def _connect(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self._address(), api_key=self._secret(), **client_settings())

    def _address(self) -> str:
        """Return where requests go.

        Raises:
            ConfigError: it is from the environment, and no address.
        """
        return self._base_url or address_in("OPENAI_BASE_URL") or _OWN_ADDRESS

    @property
    def _limit_field(self) -> str:
        usual = "max_completion_tokens" if self._prediction is None else "max_tokens"
        return self._max_tokens_field or usual

    @property
    def _key_advice(self) -> str:
        if self._api_key_env is None:
            return "the server asks for a key: name the environment variable that holds it in provider.api_key_env"
        return "the key is not accepted: check the environment variable that provider.api_key_env names"

    def _secret(self) -> str:
        """Return the key, read from the environment at the last moment.

        Raises:
            ConfigError: the variable is not set, or holds what no header can carry.
        """
        if self._api_key_env is None:
            return "none"
        key = os.environ.get(self._api_key_env)
        if not key:
            raise ConfigError(
                f"provider {self.name!r} needs a key in the environment variable {self._api_key_env}, which is not "
                "set: export it, or name another variable in provider.api_key_env"
            )
        if not re.fullmatch("[!-~]+", key):
            raise ConfigError(
                f"the key in the environment variable {self._api_key_env} has a character that no key has (a space, a "
                "line's end, a letter with an accent): copy it again"
            )
        self._secrets.add(key)
        return key


def client_settings() -> dict[str, Any]:
    """Return what every client is made with: no retries and no timeout of its own, and no limit of connections.

    The default transport's pool gets slower with every connection; aiohttp's does not. Connections are as many as the
    batch mode asks for.
    """
    import httpx2
    from openai import DefaultAioHttpClient

    limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    http_client = DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(None, connect=10.0))
    return {"max_retries": 0, "timeout": httpx2.Timeout(None, connect=10.0), "http_client": http_client}


def address_in(variable: str) -> str | None:
    """Return the address in an environment variable, None where there is none.

    Raises:
        ConfigError: it is no address, or has a password in it. It is not repeated.
    """
    try:
        return web_address(os.environ[variable]) if os.environ.get(variable) else None
    except ValueError as error:
        raise ConfigError(f"the environment variable {variable}: {error}") from None


def _share_input(total: Usage, weights: Sequence[int]) -> list[Usage]:
    """Split a request's input over its prompts."""
    parts = [
        share(count, weights) for count in (total.input_tokens, total.cached_input_tokens, total.cache_written_tokens)
    ]
    return [
        Usage(input_tokens=own, output_tokens=0, cached_input_tokens=cached, cache_written_tokens=written)
        for own, cached, written in zip(*parts, strict=True)
    ]


def _import_sdk(provider: str) -> None:
    for package in ("openai", "aiohttp"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            raise MissingPackageError.for_extra(f"provider={provider}", package=package, extra=provider) from None


def _model_info(model: Any) -> ModelInfo:
    created = datetime.fromtimestamp(model.created, UTC).date().isoformat() if model.created else ""
    date = getattr(model, "shutdown_date", None)
    return ModelInfo(id=model.id, kind="model", detail=created, shutdown_date=None if date is None else str(date))


def _messages(prompt: Prompt) -> list[Any]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _chat_text(choice: Any, streamed: bool) -> str | None:
    found: str | None = choice.delta.content if streamed else choice.message.content
    return found


def _completion_text(choice: Any, _streamed: bool) -> str | None:
    found: str | None = choice.text
    return found
