"""Sends requests to one endpoint through a given client. Shared by the providers of OpenAI and Azure.

The SDK's own retries are off: `dispatch` retries.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from runner.config.schema import BatchMode, GenerationParams, ModelConfig
from runner.errors import ConfigError
from runner.providers.errors import FATAL, UNSENDABLE, CallError, ErrorPolicy
from runner.providers.openai.answers import AnswerReader
from runner.providers.openai.client import Client
from runner.providers.openai.endpoints import ENDPOINTS, EndpointName, RequestSettings
from runner.providers.openai.stream import ChoiceResult, ChoicesMissing, chunks_of, share
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import bounded_answer, max_answer_chunks, shape_errors
from runner.types import Generated, Prompt, Stopwatch, Timing, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Model

_TAKES_NO_LISTS = "this server may take no list of prompts in one request: set batch.mode=concurrent"


class RequestProvider:
    """One request a prompt, streamed or whole; also static batches where an endpoint takes a list of prompts.

    Args:
        client: has the address and the credential.
        model: its id is the recorded model where a response names none.
        endpoint: the endpoint's name.
        settings: fields of every request's body.
        stream: whether responses are streamed.
        unsupported_params: generation keys that the server is known to ignore.
    """

    name: ClassVar[str]
    default_mode: ClassVar[BatchMode] = "concurrent"
    is_local: ClassVar[bool] = False

    def __init__(
        self,
        *,
        client: Client,
        model: ModelConfig,
        endpoint: EndpointName,
        settings: RequestSettings,
        stream: bool,
        unsupported_params: Sequence[str],
    ) -> None:
        self._client = client
        self._model = model
        self._endpoint = ENDPOINTS[endpoint]
        self._settings = settings
        self._stream = stream
        self.supported_params = self._endpoint.supported_params - set(unsupported_params)
        self._connection: AsyncOpenAI | None = None
        self._answers = AnswerReader(model_id=model.id, secrets=client.credential.secrets)
        self._takes_lists = False

    def validate(self, params: GenerationParams) -> None:
        """Refuse settings that the endpoint has no field for."""
        self._endpoint.validate(params, self._settings)
        if self._model.revision is not None:
            raise ConfigError(
                f"model.revision={self._model.revision!r}: a request to {self.name!r} has no place for it: leave it "
                "null, and name the very model in model.id"
            )
        if params.temperature > 2:
            raise ConfigError(f"generation.temperature={params.temperature}: {self.name} takes 0 to 2: lower it")

    def validate_lists(self) -> None:
        """Refuse static batches where a request has no list of prompts."""
        if not self._endpoint.takes_lists:
            raise ConfigError(
                f"batch.mode='static' sends a list of prompts in one request, which provider.endpoint="
                f"{self._endpoint.name!r} does not have: set provider.endpoint=completions, or batch.mode=concurrent"
            )

    def check(self) -> None:
        """Raise UsageError where a package, the key or the address is missing."""
        self._client.check()

    def __enter__(self) -> Self:
        self._client.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close nothing: connections belong to the event loop, and are closed there."""

    async def __aenter__(self) -> Self:
        self._connection = self._client.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            await self._client.credential.close()

    def describe(self) -> Mapping[str, Any]:
        """Return the address, the endpoint, and the settings that affect an answer."""
        return {
            **self._client.description,
            "gen_ai.operation.name": self._endpoint.operation,
            "base_url": self._client.address(),
            "endpoint": self._endpoint.name,
            "stream": self._stream,
            "service_tier": self._settings.service_tier,
            "sends_seed": self._settings.seed and "seed" in self._endpoint.params,
            "system_fingerprint": ", ".join(sorted(self._answers.fingerprints)) or None,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the models that the credential can use, each with its shutdown date where the service has one."""
        with self, self._client.errors(self._model.id), shape_errors():
            return sorted(asyncio.run(self._list_models()), key=lambda model: model.id)

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Send one request and return its `n` answers."""
        watch = Stopwatch()
        with self._client.errors(self._model.id):
            try:
                choices = await self._send(self._endpoint.content(prompt), params, count=params.n)
            except ChoicesMissing as error:
                message = f"{error}: generation.n is not honoured by this server: set generation.n=1"
                raise CallError("AnswersMissing", message, FATAL) from None
        return self._generated([prompt], params, choices, watch)[0]

    async def generate_list(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Send one request with a list of prompts; choices come in the list's order, `n` a prompt."""
        watch = Stopwatch()
        content = [self._endpoint.content(prompt) for prompt in prompts]
        with self._list_errors(params), self._client.errors(self._model.id):
            choices = await self._send(content, params, count=params.n * len(prompts))
        self._takes_lists = True
        return self._generated(prompts, params, choices, watch)

    @contextmanager
    def _list_errors(self, params: GenerationParams) -> Iterator[None]:
        """Add advice to an error whose reason may be the list instead of a prompt in it."""
        try:
            yield
        except ChoicesMissing as error:
            ignored = "generation.n is not honoured by this server, or " if params.n > 1 else ""
            policy = ErrorPolicy(fatal=True, refuses_lists=True)
            raise CallError("ListRefused", f"{error}: {ignored}{_TAKES_NO_LISTS}", policy) from None
        except CallError as error:
            policy = error.policy
            refused = policy.not_billed and not (policy.retryable or policy.fatal) and error.type != UNSENDABLE
            if refused and not self._takes_lists:
                raise CallError(error.type, f"{error.message}; {_TAKES_NO_LISTS}", policy) from None
            raise

    async def _send(self, content: Any, params: GenerationParams, *, count: int) -> Sequence[ChoiceResult]:
        body = self._endpoint.body(content, params, self._settings)
        if self._stream:
            body |= self._endpoint.stream_fields
        tokens = params.max_tokens * count
        with bounded_answer(tokens):
            response = await self._endpoint.method(self._open_connection)(**body)
            with shape_errors():
                streamed, whole = self._stream, response
                if streamed and _is_json(response):  # the server ignores `stream`
                    streamed, whole = False, await self._endpoint.parse(response)
                if not streamed:
                    return self._endpoint.read_whole(whole, count)
                return await self._endpoint.read(chunks_of(response, max_answer_chunks(tokens)), count)

    def _generated(
        self, prompts: Sequence[Prompt], params: GenerationParams, choices: Sequence[ChoiceResult], watch: Stopwatch
    ) -> list[Generated]:
        groups = [choices[start : start + params.n] for start in range(0, len(choices), params.n)]
        usages = _split_input(choices[0].request_usage, [len(prompt.text) for prompt in prompts])
        return [
            self._answers.generated(prompt.id, group, usage, timing)
            for prompt, group, usage, timing in zip(prompts, groups, usages, self._timings(groups, watch), strict=True)
        ]

    def _timings(self, groups: Sequence[Sequence[ChoiceResult]], watch: Stopwatch) -> Sequence[Timing]:
        """Return the timing of each prompt: up to now, or in a streamed list up to the end of its last choice."""
        if len(groups) == 1 or not self._stream:
            return [watch.stop_stream([choice.chunks for choice in groups[0]])] * len(groups)
        return [watch.stop_stream([choice.chunks for choice in group], ended_at=_last_end(group)) for group in groups]

    async def _list_models(self) -> list[ModelInfo]:
        async with self:
            models = self._open_connection.models.list(timeout=LIST_TIMEOUT_S)
            return [_model_info(model) async for model in models]

    @property
    def _open_connection(self) -> "AsyncOpenAI":
        if self._connection is None:
            raise RuntimeError("requests are sent inside `async with provider:` only")
        return self._connection


def _last_end(choices: Sequence[ChoiceResult]) -> float | None:
    """Return when the last choice ended; None where one has not said so."""
    ends = [choice.chunks.ended_at for choice in choices]
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


def _is_json(stream: Any) -> bool:
    """Return whether a stream's response is one JSON object instead of events."""
    content_type: str = stream.response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _split_input(total: Usage | None, weights: Sequence[int]) -> Sequence[Usage | None]:
    """Split a request's input over its prompts."""
    if total is None:
        return [None] * len(weights)
    parts = [
        share(count, weights) for count in (total.input_tokens, total.cached_input_tokens, total.cache_written_tokens)
    ]
    return [
        Usage(input_tokens=tokens, output_tokens=0, cached_input_tokens=cached, cache_written_tokens=written)
        for tokens, cached, written in zip(*parts, strict=True)
    ]


def _model_info(model: "Model") -> ModelInfo:
    created = datetime.fromtimestamp(model.created, UTC).date().isoformat() if model.created else ""
    date = getattr(model, "shutdown_date", None)
    return ModelInfo(id=model.id, kind="model", detail=created, shutdown_date=None if date is None else str(date))
