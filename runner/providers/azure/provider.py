"""Settings of `provider=azure`: deployments of an Azure OpenAI resource. `openai.jobs` sends the requests."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from pydantic import validate_call

from runner.config.schema import STRICT, Address, ModelConfig, NonEmptyStr, VariableName
from runner.providers.azure.client import Auth, azure_client
from runner.providers.azure.deployments import list_deployments
from runner.providers.openai.endpoints import EndpointName, LimitKey, RequestSettings, UnsupportedParams
from runner.providers.openai.job_settings import AZURE_DATED_JOBS, AZURE_JOBS, JobSettings
from runner.providers.openai.jobs import JobRequestProvider
from runner.providers.protocols import ModelInfo


class AzureProvider(JobRequestProvider):
    """Requests to a deployment of an Azure OpenAI resource.

    Args:
        model: its id is the deployment's name, and says nothing of the model in the deployment. Batch jobs need a
            deployment of their own kind (GlobalBatch or DataZoneBatch).
        azure_endpoint: the resource's address, such as https://NAME.openai.azure.com; null reads AZURE_OPENAI_ENDPOINT.
        api_version: a dated API's version; null is the v1 API.
        api_key_env: the name of the environment variable that holds the resource's key.
        auth: key, or entra for Microsoft Entra ID through azure-identity (environment, managed identity, az login ...).
        resource_id: the resource's path in Azure (/subscriptions/...): lets `runner.models` list deployments, for which
            it needs Entra ID and read rights; null for none.
        management_url: where Azure's management API is; another one in sovereign clouds.
        endpoint: as in OpenAIProvider, and so the rest.
    """

    name: ClassVar[str] = "azure"
    price_catalog: ClassVar[str | None] = None
    """None, because neither model nor kind of deployment, and so no price, follows from a deployment's name."""

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        azure_endpoint: Address | None,
        api_version: NonEmptyStr | None,
        api_key_env: VariableName,
        auth: Auth,
        resource_id: NonEmptyStr | None,
        management_url: Address,
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
            client=azure_client(azure_endpoint, api_version, auth, api_key_env), model=model, endpoint=endpoint,
            settings=settings, stream=stream, unsupported_params=unsupported_params, job=job,
            job_api=AZURE_JOBS if api_version is None else AZURE_DATED_JOBS,
        )  # fmt: skip
        self._resource_id, self._management_url = resource_id, management_url.rstrip("/")

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the resource's deployments, where `resource_id` is set, and the models that could be deployed."""
        deployments: list[ModelInfo] = []
        if self._resource_id is not None:
            deployments = asyncio.run(list_deployments(self._resource_id, self._management_url))
        return [*deployments, *super().list_models()]
