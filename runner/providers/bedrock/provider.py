"""AWS Bedrock: one prompt a request, through Converse (every model) or InvokeModel (the families in `wire`).

boto3 blocks, so every call has a thread. The SDK's retries are off and its read timeout is long: `dispatch` has both.
"""

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import validate_call

from runner.config.schema import STRICT, Address, BatchMode, GenerationParams, ModelConfig, NonEmptyStr
from runner.errors import ConfigError
from runner.providers.bedrock.account import AwsAccount
from runner.providers.bedrock.errors import GENERATING, LISTING
from runner.providers.bedrock.invocations import ModelInvocations
from runner.providers.bedrock.job_settings import JobSettings
from runner.providers.bedrock.job_storage import JobStorage
from runner.providers.bedrock.jobs import BedrockJobs, JobApi
from runner.providers.bedrock.model_api import AnswerReader, Api, ModelApi
from runner.providers.bedrock.openai_batches import OpenAIBatches
from runner.providers.bedrock.receive import RequestThreads, bound_bodies, check_size, stream_bodies, whole_body
from runner.providers.bedrock.wire import Body, ResponseAccumulator, family_of
from runner.providers.errors import RETRY, CallError, ErrorPolicy
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import bounded_answer, shape_errors
from runner.types import ChunkTimes, Generated, Prompt, Stopwatch, Timing

_READ_TIMEOUT_S = 3600.0
_MAX_ABANDONED = 256
"""Threads of requests that timed out and have not ended, each with a socket."""
_TOKEN_HEADERS = {
    "input_tokens": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cached_input_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_written_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}


class BedrockProvider(BedrockJobs):
    """Requests to Bedrock's runtime, and its batch jobs.

    Credentials are looked up as in every AWS tool; none is a configuration value.

    Args:
        model: its id is a model's, an inference profile's (us., eu., apac., global.), or the ARN of either.
        region: where requests go; null is the AWS profile's or the environment's.
        profile: of the AWS configuration; null is AWS_PROFILE, or the default one.
        endpoint_url: another address than the region's own (a VPC endpoint, a local server); null for none.
        api: converse has the same bodies for all models; invoke has those of the model's family.
        stream: stream the answer, so that time to first token is measured; false for models that cannot stream.
        job: the settings of batch jobs.
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
        job: JobSettings,
    ) -> None:
        account = AwsAccount(region=region, profile=profile)
        self._account, self._reader = account, AnswerReader(model.id, account.secrets)
        self._api = ModelApi(model_id=model.id, api=api, family=family_of(model.id))
        self._model, self._endpoint_url, self._stream = model, endpoint_url, stream
        storage = JobStorage(account, job)
        jobs: JobApi = ModelInvocations(account, storage, self._api, self._reader, job)
        if job.api == "openai":
            jobs = OpenAIBatches(lambda: str(self._client.meta.endpoint_url), storage, model, job)
        super().__init__(jobs, storage, job)
        self._client: Any = None
        self._threads = RequestThreads()
        self._read_timeout_s = _READ_TIMEOUT_S

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the request body has a name for. Never `n`: a call has one answer."""
        return self._api.supported_params

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for a model or a temperature that Bedrock does not take."""
        self._api.validate()
        if self._model.revision is not None:
            raise ConfigError(
                f"model.revision={self._model.revision!r}: Bedrock has the version in model.id: leave it null"
            )
        if params.temperature > 1:
            raise ConfigError(f"generation.temperature={params.temperature}: Bedrock takes 0 to 1: lower it")

    def check(self) -> None:
        """Raise UsageError where boto3, a region or credentials are missing. Fetches credentials that are fetched."""
        self._account.require_credentials("bedrock-runtime", self._endpoint_url)

    def __enter__(self) -> Self:
        self._client = self._account.connect("bedrock-runtime", self._endpoint_url, read_timeout_s=self._read_timeout_s)
        bound_bodies(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_jobs()
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
            "profile": self._account.profile,
            "endpoint": self._client.meta.endpoint_url,
            "api": self._api.api,
            "stream": self._stream,
            "sends_seed": False,
            "boto3": boto3.__version__,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the region's text models and inference profiles."""
        with contextlib.closing(self._account.connect("bedrock", None, read_timeout_s=LIST_TIMEOUT_S)) as client:
            where = f"listing models in region {client.meta.region_name}"
            with self._account.errors(where, rights=LISTING):
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
            return self._reader.generated(prompt.id, response, timing)

    def set_timeout(self, timeout_s: float) -> None:
        """Have no request block its thread for longer than this without a byte from the service."""
        self._read_timeout_s = timeout_s

    def _request(self, prompt: Prompt, params: GenerationParams) -> Mapping[str, Any]:
        body = self._api.body(prompt, params)
        if self._api.api == "invoke":
            return {"modelId": self._model.id, "body": json.dumps(body), "contentType": "application/json"}
        return {"modelId": self._model.id, **body}

    def _send(
        self, request: Mapping[str, Any], params: GenerationParams, abandoned: threading.Event
    ) -> tuple[ResponseAccumulator, Timing]:
        wire_format = self._api.wire_format
        paths = wire_format.chunk if self._stream else wire_format.response
        chunks = ChunkTimes()
        accumulated = ResponseAccumulator(paths, chunks if self._stream else None)
        operation = getattr(self._client, _OPERATIONS[self._api.api, self._stream])
        watch = Stopwatch()
        where = f"model.id={self._model.id!r} in region {self._client.meta.region_name}"
        with self._account.errors(where, rights=GENERATING), bounded_answer(params.max_tokens):
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
