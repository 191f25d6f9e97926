"""Azure OpenAI: OpenAI's wire format behind another address and another way to prove who you are.

The v1 API by default (the plain client on RESOURCE/openai/v1/); the dated API where `api_version` is given. `model.id`
is the name of your deployment, not of the model in it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import validate_call

from runner.config.schema import STRICT, Address, ModelConfig, NonEmptyStr, VariableName
from runner.errors import ConfigError, MissingPackageError
from runner.providers.errors import FATAL, CallError, redact_errors
from runner.providers.openai.provider import Endpoint, Lacks, LimitField, OpenAIProvider, address_in, client_settings
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import shape_errors
from runner.text import excerpt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_SCOPE = "https://ai.azure.com/.default"
_MANAGEMENT_API = "2024-10-01"
_API_PATH = re.compile(r"/openai/(v1|deployments)\b.*")
"""What the portal's target URI has behind the resource's address; the client adds it itself."""


class AzureProvider(OpenAIProvider):
    """Requests to a deployment of an Azure OpenAI resource.

    Args:
        model: its id is the deployment's name.
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

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        azure_endpoint: Address | None,
        api_version: NonEmptyStr | None,
        api_key_env: VariableName,
        auth: Literal["key", "entra"],
        resource_id: NonEmptyStr | None,
        management_url: Address,
        endpoint: Endpoint,
        stream: bool,
        max_tokens_field: LimitField | None,
        service_tier: NonEmptyStr | None,
        reasoning_effort: NonEmptyStr | None,
        prediction: NonEmptyStr | None,
        seed: bool,
        lacks: Lacks,
    ) -> None:
        super().__init__(
            model=model, base_url=None, api_key_env=api_key_env, endpoint=endpoint, stream=stream,
            max_tokens_field=max_tokens_field, service_tier=service_tier, reasoning_effort=reasoning_effort,
            prediction=prediction, seed=seed, lacks=lacks,
        )  # fmt: skip
        self._azure_endpoint = azure_endpoint
        self._api_version = api_version
        self._auth = auth
        self._resource_id = resource_id
        self._management_url = management_url.rstrip("/")
        self._credential: Any = None

    @property
    def price_catalog(self) -> str | None:
        """None: a deployment's name says neither the model nor the kind of deployment, and so no price."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Return where requests go and what they carry."""
        own = {"api_version": self._api_version or "v1", "auth": self._auth}
        return {**super().describe(), "gen_ai.provider.name": "azure.ai.openai", **own}

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        await self._close_credential()

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the resource's deployments, where `resource_id` is set, and the models that could be deployed."""
        deployments = [] if self._resource_id is None else asyncio.run(self._deployments())
        return [*deployments, *super().list_models()]

    async def _deployments(self) -> list[ModelInfo]:
        """Ask Azure Resource Manager: the service itself lists no deployments."""
        import httpx2

        url: str | None = f"{self._management_url}{self._resource_id}/deployments?api-version={_MANAGEMENT_API}"
        found: list[ModelInfo] = []
        with redact_errors(self._secrets), self._management_errors(), shape_errors():
            token = await self._management_token()
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx2.AsyncClient(headers=headers, timeout=LIST_TIMEOUT_S) as client:
                while url:
                    answer = await client.get(url)
                    answer.raise_for_status()
                    page = answer.json()
                    found += [_deployment_info(deployment) for deployment in page["value"]]
                    url = page.get("nextLink")
        return found

    async def _management_token(self) -> str:
        try:
            return await self._token_provider(f"{self._management_url}/.default")()
        finally:
            await self._close_credential()

    @contextmanager
    def _management_errors(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            said = f"{status} for provider.resource_id={self._resource_id!r}: check it and your rights"
            raise CallError("DeploymentsRefused", f"{said}. {excerpt(error.response.text)}", FATAL) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            said = excerpt(str(error) or type(error).__name__)
            raise CallError(
                "DeploymentsUnreadable",
                f"no list of deployments from {self._management_url}: {said}: check provider.management_url and the "
                "network, or set provider.resource_id=null",
                FATAL,
            ) from error

    async def _close_credential(self) -> None:
        if self._credential is not None:
            await self._credential.close()
            self._credential = None

    def _address(self) -> str:
        address = self._azure_endpoint or address_in("AZURE_OPENAI_ENDPOINT")
        if not address:
            raise ConfigError(
                "provider 'azure' needs the resource's address: set "
                "provider.azure_endpoint=https://NAME.openai.azure.com or the variable AZURE_OPENAI_ENDPOINT"
            )
        return _API_PATH.sub("", address).rstrip("/")

    @property
    def _key_advice(self) -> str:
        if self._auth == "entra":
            return "the identity is not accepted: check its role on the resource (Cognitive Services OpenAI User)"
        return super()._key_advice

    def _secret(self) -> str:
        self._address()
        if self._auth == "entra":
            _import_identity()
            return ""
        return super()._secret()

    def _connect(self) -> "AsyncOpenAI":
        from openai import AsyncAzureOpenAI, AsyncOpenAI

        token = self._token_provider(_SCOPE) if self._auth == "entra" else None
        if self._api_version is None:
            key: Any = token or self._secret()
            return AsyncOpenAI(base_url=f"{self._address()}/openai/v1/", api_key=key, **client_settings())
        credential: dict[str, Any] = {"azure_ad_token_provider": token} if token else {"api_key": self._secret()}
        return AsyncAzureOpenAI(
            azure_endpoint=self._address(), api_version=self._api_version, **credential, **client_settings()
        )

    def _token_provider(self, scope: str) -> Callable[[], Awaitable[str]]:
        _import_identity()
        from azure.core.exceptions import AzureError
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider

        self._credential = DefaultAzureCredential()
        provider: Callable[[], Awaitable[str]] = get_bearer_token_provider(self._credential, scope)

        async def token() -> str:
            try:
                found = await provider()
            except AzureError as error:
                said = str(error).partition("\n")[0]
                raise CallError(
                    "EntraID", f"no token for {scope}: {said}: sign in (az login), or check the identity", FATAL
                ) from None
            self._secrets.add(found)
            return found

        return token


def _deployment_info(deployment: Any) -> ModelInfo:
    model = deployment["properties"]["model"]
    sku = deployment.get("sku", {}).get("name", "")
    return ModelInfo(
        id=deployment["name"], kind="deployment", detail=f"{model['name']} {model['version']} {sku}".strip()
    )


def _import_identity() -> None:
    try:
        import azure.identity  # noqa: F401
    except ModuleNotFoundError:
        raise MissingPackageError.for_extra("provider.auth=entra", package="azure-identity", extra="azure") from None
