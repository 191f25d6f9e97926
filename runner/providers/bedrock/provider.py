"""AWS Bedrock: one prompt a request, through Converse (every model) or InvokeModel (the families in `wire`).

boto3 blocks, so every call has a thread. The SDK's retries are off and its read timeout is long: `dispatch` has both.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from pydantic import validate_call

from runner.config.schema import STRICT, Address, BatchMode, GenerationParams, ModelConfig, NonEmptyStr, web_address
from runner.config.secrets import has_secret, redact
from runner.errors import ConfigError
from runner.providers.bedrock.credentials import require_region_and_credentials
from runner.providers.bedrock.errors import GENERATING, LISTING, call_errors
from runner.providers.bedrock.receive import (
    RequestThreads,
    bound_bodies,
    check_size,
    stream_bodies,
    usage_of,
    whole_body,
)
from runner.providers.bedrock.wire import (
    CONVERSE,
    FAMILIES,
    FINISH_REASONS,
    Body,
    ResponseAccumulator,
    WireFormat,
    family_of,
)
from runner.providers.errors import (
    REPEATED,
    RETRY,
    CallError,
    ErrorPolicy,
    redact_errors,
    require_packages,
    warn_of_plain_http,
)
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import bounded_answer, shape_errors
from runner.text import excerpt, first_line
from runner.types import Answer, ChunkTimes, Generated, Prompt, Stopwatch, Timing

log = logging.getLogger(__name__)

Api = Literal["converse", "invoke"]

_READ_TIMEOUT_S, _CONNECT_TIMEOUT_S = 3600.0, 10
_MAX_ABANDONED = 256
"""Threads of requests that timed out and have not ended, each with a socket."""
_CONNECTIONS = 10_000
"""An upper bound that is never reached: urllib3 opens connections as needed, and the batch mode decides how many."""
_TOKEN_HEADERS = {
    "input_tokens": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cached_input_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_written_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}


class BedrockProvider:
    """Requests to Bedrock's runtime. Credentials are looked up as in every AWS tool; none is a configuration value.

    Args:
        model: its id is a model's, an inference profile's (us., eu., apac., global.), or the ARN of either.
        region: where requests go; null is the AWS profile's or the environment's.
        profile: of the AWS configuration; null is AWS_PROFILE, or the default one.
        endpoint_url: another address than the region's own (a VPC endpoint, a local server); null for none.
        api: converse has the same bodies for all models; invoke has those of the model's family.
        stream: stream the answer, so that time to first token is measured; false for models that cannot stream.
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
        self._threads = RequestThreads()
        self._read_timeout_s = _READ_TIMEOUT_S
        self._lacks_usage = False

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the request body has a name for. Never `n`: a call has one answer."""
        takes_top_k = self._api == "converse" and self._family is not None and self._family.converse_top_k
        return frozenset(self._wire_format.param_names) - {"max_tokens"} | ({"top_k"} if takes_top_k else set())

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for a model or a temperature that Bedrock does not take."""
        if self._api == "invoke" and self._family is None:
            families = ", ".join(family.name for family in FAMILIES)
            raise ConfigError(
                f"model.id={self._model.id!r}: its InvokeModel body is not known (known: {families}): "
                "set provider.api=converse"
            )
        if self._model.revision is not None:
            raise ConfigError(
                f"model.revision={self._model.revision!r}: Bedrock has the version in model.id: leave it null"
            )
        if params.temperature > 1:
            raise ConfigError(f"generation.temperature={params.temperature}: Bedrock takes 0 to 1: lower it")

    def check(self) -> None:
        """Raise UsageError where boto3, a region or credentials are missing. Fetches credentials that are fetched."""
        with self._configuration_errors():
            self._require_region_and_credentials(self._session())

    def __enter__(self) -> Self:
        with self._configuration_errors():
            self._client = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def describe(self) -> Mapping[str, Any]:
        """Return where requests go and how. Bedrock takes no seed."""
        import boto3

        return {
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.operation.name": "chat",
            "region": self._client.meta.region_name,
            "profile": self._profile or os.environ.get("AWS_PROFILE"),
            "endpoint": self._client.meta.endpoint_url,
            "api": self._api,
            "stream": self._stream,
            "sends_seed": False,
            "boto3": boto3.__version__,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the region's text models and inference profiles."""
        with self, self._errors(f"listing models in region {self._client.meta.region_name}", rights=LISTING):
            config = _client_config(plain_http=False, read_timeout_s=LIST_TIMEOUT_S)
            with contextlib.closing(self._session().client("bedrock", config=config)) as client:
                models = client.list_foundation_models(byOutputModality="TEXT")["modelSummaries"]
                pages = client.get_paginator("list_inference_profiles").paginate()
                profiles = [profile for page in pages for profile in page["inferenceProfileSummaries"]]
        return [*map(_model_info, models), *map(_profile_info, profiles)]

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Send one request, in a thread of its own, and return its answer.

        The thread of a request that is cancelled ends with the next event, or after `set_timeout` without a byte.
        """
        if self._threads.count_abandoned() >= _MAX_ABANDONED:
            message = f"{_MAX_ABANDONED} requests that timed out have not ended: the service sends bytes and no answer"
            raise CallError("RequestsHang", message, ErrorPolicy(fatal=True, not_billed=True))
        abandoned = threading.Event()
        send = functools.partial(self._send, self._request(prompt, params), params, abandoned)
        try:
            response, timing = await asyncio.wrap_future(self._threads.run(send, abandoned))
        except asyncio.CancelledError:
            abandoned.set()
            raise
        with shape_errors():
            return self._generated(prompt, response, timing)

    def set_timeout(self, timeout_s: float) -> None:
        """Have no request block its thread for longer than this without a byte from the service."""
        self._read_timeout_s = timeout_s

    @property
    def _wire_format(self) -> WireFormat:
        return self._family.wire_format if self._api == "invoke" and self._family is not None else CONVERSE

    @contextlib.contextmanager
    def _configuration_errors(self) -> Iterator[None]:
        """Raise UsageError where boto3 is missing, or the AWS configuration is wrong."""
        require_packages("bedrock", "boto3")
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise ConfigError(
                f"AWS: {first_line(error)}: check provider.profile={self._profile!r}, "
                f"provider.region={self._region!r} and the AWS configuration (aws sso login, if that is what it uses)"
            ) from None

    def _client_of(self, session: Any, *, plain_http: bool = False) -> Any:
        config = _client_config(plain_http=plain_http, read_timeout_s=self._read_timeout_s)
        return session.client("bedrock-runtime", endpoint_url=self._endpoint_url, config=config)

    def _is_plain_http(self, session: Any) -> bool:
        """Return whether requests leave unencrypted: the address may be the environment's or that of AWS's files."""
        if session.region_name is None:  # which is refused
            return False
        with contextlib.closing(self._client_of(session)) as client:
            return urllib.parse.urlsplit(str(client.meta.endpoint_url)).scheme == "http"

    def _require_region_and_credentials(self, session: Any) -> bool:
        """Raise ConfigError if either is missing; return whether requests leave unencrypted."""
        plain_http = self._is_plain_http(session)
        self._secrets |= require_region_and_credentials(session, bearer=not plain_http)
        return plain_http

    def _connect(self) -> Any:
        session = self._session()
        client = self._client_of(session, plain_http=self._require_region_and_credentials(session))
        bound_bodies(client)
        try:
            warn_of_plain_http(web_address(client.meta.endpoint_url))
        except ValueError as error:
            client.close()
            raise ConfigError(
                f"AWS_ENDPOINT_URL_BEDROCK_RUNTIME, or the endpoint_url of AWS's files: {error}"
            ) from None
        return client

    @contextlib.contextmanager
    def _errors(self, where: str, *, rights: str) -> Iterator[None]:
        """Raise CallError, with secrets redacted, for every error of a call."""
        with redact_errors(self._secrets), call_errors(where, rights=rights):
            yield

    def _session(self) -> Any:
        import boto3

        return boto3.Session(profile_name=self._profile, region_name=self._region)

    def _request(self, prompt: Prompt, params: GenerationParams) -> Mapping[str, Any]:
        body = self._wire_format.body(prompt.messages, params)
        if self._api == "invoke":
            return {"modelId": self._model.id, "body": json.dumps(body), "contentType": "application/json"}
        if params.top_k is not None and self._family is not None and self._family.converse_top_k is not None:
            body["additionalModelRequestFields"] = self._family.converse_top_k(params.top_k)
        return {"modelId": self._model.id, **body}

    def _send(
        self, request: Mapping[str, Any], params: GenerationParams, abandoned: threading.Event
    ) -> tuple[ResponseAccumulator, Timing]:
        paths = self._wire_format.chunk if self._stream else self._wire_format.response
        chunks = ChunkTimes()
        accumulated = ResponseAccumulator(paths, chunks if self._stream else None)
        operation = getattr(self._client, _OPERATIONS[self._api, self._stream])
        watch = Stopwatch()
        where = f"model.id={self._model.id!r} in region {self._client.meta.region_name}"
        with self._errors(where, rights=GENERATING), bounded_answer(params.max_tokens):
            response = operation(**request)
            bodies = stream_bodies(response) if self._stream else whole_body(response, params.max_tokens)
            with contextlib.closing(bodies):
                for count, body in enumerate(bodies):
                    if abandoned.is_set():
                        raise CallError("Cancelled", "nobody waits for this answer", RETRY)
                    with shape_errors():
                        accumulated.add(body)
                    check_size(accumulated, count, params.max_tokens)
        timing = watch.stop_stream([chunks])
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        accumulated.add_counts({name: headers.get(header) for name, header in _TOKEN_HEADERS.items()})
        return accumulated, timing

    def _generated(self, prompt: Prompt, response: ResponseAccumulator, timing: Timing) -> Generated:
        if response.finish_reason is None:
            raise CallError("AnswerCut", "the answer ended without a stop reason", RETRY)
        finish_reason = FINISH_REASONS.get(response.finish_reason.lower(), "unknown")
        if finish_reason == "unknown":
            reason = redact(excerpt(response.finish_reason, 40), self._secrets)
            log.warning("prompt %s: stop reason %r is not known", prompt.id, reason)
        if has_secret(response.text, self._secrets):
            log.warning(REPEATED, prompt.id)
        usage = usage_of(response)
        if usage is None and not self._lacks_usage:
            self._lacks_usage = True
            log.warning("the service's answers have no token counts: their texts are kept, their tokens are not known")
        answer = Answer(text=response.text, finish_reason=finish_reason, usage=usage)
        return Generated(model=self._model.id, timing=timing, answers=(answer,))


def _client_config(*, plain_http: bool, read_timeout_s: float) -> Any:
    from botocore.config import Config

    return Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        read_timeout=read_timeout_s,
        connect_timeout=_CONNECT_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        signature_version="v4" if plain_http else None,  # botocore sends no bearer token over plain http
    )


def _model_info(model: Body) -> ModelInfo:
    inference = ", ".join(model.get("inferenceTypesSupported", ())).lower()
    end_of_life = model.get("modelLifecycle", {}).get("endOfLifeTime")
    detail = f"{model.get('providerName', '')} {inference}".strip()
    shutdown_date = end_of_life.date().isoformat() if end_of_life else None
    return ModelInfo(id=model["modelId"], kind="model", detail=detail, shutdown_date=shutdown_date)


def _profile_info(profile: Body) -> ModelInfo:
    return ModelInfo(
        id=profile["inferenceProfileId"], kind="inference profile", detail=profile.get("inferenceProfileName", "")
    )


_OPERATIONS: Mapping[tuple[Api, bool], str] = {
    ("converse", False): "converse",
    ("converse", True): "converse_stream",
    ("invoke", False): "invoke_model",
    ("invoke", True): "invoke_model_with_response_stream",
}
"""The client's method, by api and stream."""
