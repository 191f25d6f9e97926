"""Settings of `provider=openai`: OpenAI, and every server with its API. `requests` and `jobs` send the requests."""

from typing import ClassVar

from pydantic import validate_call

from runner.config.schema import STRICT, Address, ModelConfig, NonEmptyStr, VariableName
from runner.providers.openai.client import OPENAI_ADDRESS, openai_client
from runner.providers.openai.endpoints import EndpointName, LimitKey, RequestSettings, UnsupportedParams
from runner.providers.openai.job_settings import OPENAI_JOBS, JobSettings
from runner.providers.openai.jobs import JobRequestProvider
from runner.providers.protocols import JobDiscount


class OpenAIProvider(JobRequestProvider):
    """Requests to OpenAI, or to a compatible server at `base_url`.

    Args:
        model: its id is the request's `model`.
        base_url: the server's address up to and including /v1; null is the variable OPENAI_BASE_URL, which the SDK
            would read in any case, or OpenAI's own address. environment.json says which it was.
        api_key_env: the name of the environment variable that holds the key; null for servers that take none.
        endpoint: chat, responses or completions.
        stream: stream the response, so that time to first token is real; false where a server cannot. The requests of a
            batch job are never streamed.
        max_tokens_field: what the server calls the limit of new tokens in chat requests; null is the API's own name.
        service_tier: as in the API (auto, default, flex, priority); another tier than the standard has no known price.
        reasoning_effort: as in the API; null sends none, for models that do not reason refuse any.
        prediction: the text that the answer is expected to repeat (predicted outputs, chat only).
        seed: send a seed; false where the server has no such field. Responses have none.
        unsupported_params: generation keys that this server is known to ignore: they are refused.
        job: settings of batch jobs; null for a server that has none.
    """

    name: ClassVar[str] = "openai"

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        base_url: Address | None,
        api_key_env: VariableName | None,
        endpoint: EndpointName,
        stream: bool,
        max_tokens_field: LimitKey | None,
        service_tier: NonEmptyStr | None,
        reasoning_effort: NonEmptyStr | None,
        prediction: NonEmptyStr | None,
        seed: bool,
        unsupported_params: UnsupportedParams,
        job: JobSettings | None,
    ) -> None:
        settings = RequestSettings(
            model=model.id, max_tokens_field=max_tokens_field, service_tier=service_tier,
            reasoning_effort=reasoning_effort, prediction=prediction, seed=seed,
        )  # fmt: skip
        super().__init__(
            client=openai_client(base_url, api_key_env), model=model, endpoint=endpoint, settings=settings,
            stream=stream, unsupported_params=unsupported_params, job=job, job_api=OPENAI_JOBS,
        )  # fmt: skip

    @property
    def price_catalog(self) -> str | None:
        """OpenAI's list for OpenAI's own address and standard tier; any other price is not known."""
        return "openai" if self._is_openai and self._settings.service_tier in (None, "auto", "default") else None

    def job_discount(self) -> JobDiscount:
        """Return OpenAI's discount for OpenAI's own address; what another server takes off is not known."""
        if self._is_openai:
            return super().job_discount()
        source = f"no discount of {self._client.address()} is known: model.price.batch_discount sets one"
        return JobDiscount(ratio=0.0, source=source)

    @property
    def _is_openai(self) -> bool:
        return self._client.address().rstrip("/") == OPENAI_ADDRESS
