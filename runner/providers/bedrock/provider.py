"""AWS Bedrock: one prompt a request, through Converse (every model) or InvokeModel (the families in `_bedrock_bodies`).

boto3 blocks, so every call has a thread. The SDK's own retries are off and its read timeout is long: pacing has both.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import validate_call

from runner.config.schema import STRICT, Address, BatchMode, GenerationParams, ModelConfig, NonEmptyStr
from runner.errors import ConfigError, MissingPackageError
from runner.providers.bedrock.errors import GENERATING, LISTING, call_errors
from runner.providers.bedrock.wire import (
    CONVERSE,
    FAMILIES,
    FINISH_REASONS,
    Body,
    ResponseAccumulator,
    WireFormat,
    family_of,
)
from runner.providers.errors import RETRY, CallError, redact_errors
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import shape_errors, token_count
from runner.text import first_line
from runner.types import Answer, Generated, Prompt, Stopwatch, Timing, Usage

log = logging.getLogger(__name__)

Api = Literal["converse", "invoke"]
Result = TypeVar("Result")

_READ_TIMEOUT_S, _CONNECT_TIMEOUT_S = 3600, 10
_CONNECTIONS = 10_000
"""Out of reach: urllib3 opens them as they are needed, and the batch mode alone decides how many that is."""
_TOKEN_HEADERS = {
    "input_tokens": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cached_input_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_written_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}
_NO_REGION = "no AWS region: set provider.region=REGION, or AWS_DEFAULT_REGION, or a region in the AWS profile"
_NO_CREDENTIALS = (
    "no AWS credentials: set provider.profile=NAME or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_BEARER_TOKEN_BEDROCK (a Bedrock API key; with an https address only)"
)


class BedrockProvider:
    """Requests to Bedrock's runtime. Credentials are found as every AWS tool finds them; none is ever a value here.

    Args:
        model: its id is a model's, an inference profile's (us., eu., apac., global.), or the ARN of either.
        region: where requests go; null is the AWS profile's or the environment's.
        profile: of the AWS configuration; null is AWS_PROFILE, or the default one.
        endpoint_url: another address than the region's own (a VPC endpoint, a local server); null for none.
        api: converse has one shape for all models; invoke has the model family's own.
        stream: stream the answer, so that time to first token is real; false for models that cannot.
    """

    name: ClassVar[str] = "bedrock"
    default_mode: ClassVar[BatchMode] = "concurrent"
    is_local: ClassVar[bool] = False
    price_catalog: ClassVar[str | None] = "aws"

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        region: NonEmptyStr | None,
        profile: NonEmptyStr | None,
        endpoint_url: Address | None,
        api: Api,
        stream: bool,
    ) -> None:
        self._model = model
        self._region, self._profile, self._endpoint_url = region, profile, endpoint_url
        self._api, self._stream = api, stream
        self._family = family_of(model.id)
        self._client: Any = None
        self._secrets: set[str] = set()

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the request has a place for; a call has one answer, so never `n`."""
        takes_top_k = self._api == "converse" and self._family is not None and self._family.converse_top_k
        return frozenset(self._shape.knobs) - {"max_tokens"} | ({"top_k"} if takes_top_k else set())

    def validate(self, params: GenerationParams) -> None:
        """Refuse a model or a temperature that Bedrock has no place for."""
        if self._api == "invoke" and self._family is None:
            known = ", ".join(family.name for family in FAMILIES)
            raise ConfigError(
                f"model.id={self._model.id!r}: its InvokeModel body is not known (known: {known}): "
                "set provider.api=converse"
            )
        if self._model.revision is not None:
            raise ConfigError(
                f"model.revision={self._model.revision!r}: Bedrock has the version in model.id: leave it null"
            )
        if params.temperature > 1:
            raise ConfigError(f"generation.temperature={params.temperature}: Bedrock takes 0 to 1: lower it")

    def __enter__(self) -> Self:
        try:
            import boto3  # noqa: F401
        except ModuleNotFoundError:
            raise MissingPackageError.for_extra("provider=bedrock", package="boto3", extra="bedrock") from None
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client = self._connect()
        except (BotoCoreError, ClientError) as error:
            raise ConfigError(
                f"AWS: {first_line(error)}: check provider.profile={self._profile!r}, "
                f"provider.region={self._region!r} and the AWS configuration (aws sso login, if that is what it uses)"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def describe(self) -> Mapping[str, Any]:
        """Return where requests go and what they carry; Bedrock has no seed."""
        import boto3

        return {
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.operation.name": "chat",
            "region": self._client.meta.region_name,
            "endpoint": self._client.meta.endpoint_url,
            "api": self._api,
            "stream": self._stream,
            "sends_seed": False,
            "boto3": boto3.__version__,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the region's text models and inference profiles."""
        with self, self._errors(f"listing models in region {self._client.meta.region_name}", rights=LISTING):
            settings = self._settings(plain=False, read_timeout_s=LIST_TIMEOUT_S)
            control = self._session().client("bedrock", config=settings)
            with contextlib.closing(control):
                models = control.list_foundation_models(byOutputModality="TEXT")["modelSummaries"]
                pages = control.get_paginator("list_inference_profiles").paginate()
                profiles = [profile for page in pages for profile in page["inferenceProfileSummaries"]]
        return [*map(_model_info, models), *map(_profile_info, profiles)]

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Send one request, in a thread of its own, and return its one answer."""
        ask = functools.partial(self._ask, self._request(prompt, params))
        answer, timing = await asyncio.wrap_future(_in_a_thread(ask))
        with shape_errors():
            return self._generated(prompt, answer, timing)

    @property
    def _shape(self) -> WireFormat:
        return self._family.shape if self._api == "invoke" and self._family is not None else CONVERSE

    def _connect(self) -> Any:
        session = self._session()
        plain = urllib.parse.urlsplit(self._endpoint_url or "").scheme == "http"
        self._secrets |= _require_region_and_credentials(session, bearer=not plain)
        settings = self._settings(plain=plain, read_timeout_s=_READ_TIMEOUT_S)
        return session.client("bedrock-runtime", endpoint_url=self._endpoint_url, config=settings)

    @contextlib.contextmanager
    def _errors(self, where: str, *, rights: str) -> Iterator[None]:
        """Raise CallError for all that a call can meet, with no secret in it."""
        with redact_errors(self._secrets), call_errors(where, rights=rights):
            yield

    def _session(self) -> Any:
        import boto3

        return boto3.Session(profile_name=self._profile, region_name=self._region)

    def _settings(self, *, plain: bool, read_timeout_s: float) -> Any:
        from botocore.config import Config

        return Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            read_timeout=read_timeout_s,
            connect_timeout=_CONNECT_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            signature_version="v4" if plain else None,  # botocore sends no bearer token over plain http
        )

    def _request(self, prompt: Prompt, params: GenerationParams) -> Mapping[str, Any]:
        body = self._shape.body(prompt.messages, params)
        if self._api == "invoke":
            return {"modelId": self._model.id, "body": json.dumps(body), "contentType": "application/json"}
        if params.top_k is not None and self._family is not None and self._family.converse_top_k is not None:
            body["additionalModelRequestFields"] = self._family.converse_top_k(params.top_k)
        return {"modelId": self._model.id, **body}

    def _ask(self, request: Mapping[str, Any]) -> tuple[ResponseAccumulator, Timing]:
        operation, bodies = _CALLS[self._api, self._stream]
        answer = ResponseAccumulator(self._shape.chunk if self._stream else self._shape.whole)
        call = getattr(self._client, operation)
        watch = Stopwatch()
        where = f"model.id={self._model.id!r} in region {self._client.meta.region_name}"
        with self._errors(where, rights=GENERATING):
            response = call(**request)
            for body in bodies(response):
                with shape_errors():
                    if answer.add(body) and self._stream:
                        watch.first_token()
        timing = watch.stop()
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        answer.add_counts({name: headers.get(header) for name, header in _TOKEN_HEADERS.items()})
        return answer, timing

    def _generated(self, prompt: Prompt, answer: ResponseAccumulator, timing: Timing) -> Generated:
        if answer.finish is None:
            raise CallError("AnswerCut", "the answer ended without a stop reason", RETRY)
        if answer.input_tokens is None or answer.output_tokens is None:
            raise CallError("UsageMissing", "the answer does not say how many tokens it took")
        finish_reason = FINISH_REASONS.get(answer.finish.lower(), "unknown")
        if finish_reason == "unknown":
            log.warning("prompt %s: stop reason %r is not known", prompt.id, answer.finish)
        usage = _usage(answer, answer.input_tokens, answer.output_tokens)
        return Generated(
            model=self._model.id,
            timing=timing,
            answers=(Answer(text=answer.text, finish_reason=finish_reason, usage=usage),),
        )


def _model_info(model: Body) -> ModelInfo:
    inference = ", ".join(model.get("inferenceTypesSupported", ())).lower()
    ends = model.get("modelLifecycle", {}).get("endOfLifeTime")
    detail = f"{model.get('providerName', '')} {inference}".strip()
    return ModelInfo(
        id=model["modelId"], kind="model", detail=detail, shutdown_date=ends.date().isoformat() if ends else None
    )


def _profile_info(profile: Body) -> ModelInfo:
    return ModelInfo(
        id=profile["inferenceProfileId"], kind="inference profile", detail=profile.get("inferenceProfileName", "")
    )


def _converse(response: Body) -> Iterator[Body]:
    yield response


def _converse_stream(response: Body) -> Iterator[Body]:
    with contextlib.closing(response["stream"]) as events:
        yield from events


def _invoke(response: Body) -> Iterator[Body]:
    with contextlib.closing(response["body"]) as body:
        yield json.loads(body.read())


def _invoke_stream(response: Body) -> Iterator[Body]:
    with contextlib.closing(response["body"]) as events:
        for event in events:
            if "chunk" in event:
                yield json.loads(event["chunk"]["bytes"])


_CALLS: Mapping[tuple[Api, bool], tuple[str, Callable[[Body], Iterator[Body]]]] = {
    ("converse", False): ("converse", _converse),
    ("converse", True): ("converse_stream", _converse_stream),
    ("invoke", False): ("invoke_model", _invoke),
    ("invoke", True): ("invoke_model_with_response_stream", _invoke_stream),
}
"""By api and stream: the client's method, and how its response becomes bodies."""


def _in_a_thread(call: Callable[[], Result]) -> Future[Result]:
    """Run a blocking call in a daemon thread.

    A call that pacing gave up cannot be interrupted. In a thread pool it would keep the next attempt from being sent,
    and the process from ending, until its read timeout.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="bedrock", daemon=True).start()
    return future


def _usage(answer: ResponseAccumulator, input_tokens: int, output_tokens: int) -> Usage:
    """Return the usage as other services count: AWS's input tokens are those that its cache had nothing to do with."""
    cached, written = token_count(answer.cached_input_tokens or 0), token_count(answer.cache_written_tokens or 0)
    return Usage(
        input_tokens=token_count(input_tokens) + cached + written,
        output_tokens=token_count(output_tokens),
        cached_input_tokens=cached,
        cache_written_tokens=written,
    )


def _require_region_and_credentials(session: Any, *, bearer: bool) -> set[str]:
    """Find both before the first paid call, and return what is secret of them.

    Credentials that have to be fetched (SSO, a role) are fetched now.
    """
    token = os.environ.get("AWS_BEARER_TOKEN_BEDROCK") if bearer else None
    credentials = None if token else session.get_credentials()
    found = token or credentials
    missing = [message for message, has in ((_NO_REGION, session.region_name), (_NO_CREDENTIALS, found)) if not has]
    if missing:
        raise ConfigError("; ".join(missing))
    if credentials is None:
        return {str(token)}
    frozen = credentials.get_frozen_credentials()
    return {secret for secret in (frozen.secret_key, frozen.token) if secret}
