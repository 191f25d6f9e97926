"""Azure OpenAI: OpenAI's wire format behind another address and another way to prove who you are.

The v1 API by default (the plain client on RESOURCE/openai/v1/); the dated API where `api_version` is given. `model.id`
is the name of your deployment, not of the model in it.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import validate_call

from runner.config import STRICT, ModelConfig, NonEmptyStr
from runner.errors import ConfigError, MissingPackageError
from runner.providers.openai import Endpoint, OpenAIProvider, client_settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_SCOPE = "https://ai.azure.com/.default"


class AzureProvider(OpenAIProvider):
    """Requests to a deployment of an Azure OpenAI resource.

    Args:
        model: its id is the deployment's name.
        azure_endpoint: the resource's address, such as https://NAME.openai.azure.com; null reads AZURE_OPENAI_ENDPOINT.
        api_version: a dated API's version; null is the v1 API.
        api_key_env: the name of the environment variable that holds the resource's key.
        auth: key, or entra for Microsoft Entra ID through azure-identity (environment, managed identity, az login ...).
        endpoint: as in OpenAIProvider, and so the rest.
    """

    name: ClassVar[str] = "azure"

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        azure_endpoint: NonEmptyStr | None,
        api_version: NonEmptyStr | None,
        api_key_env: NonEmptyStr,
        auth: Literal["key", "entra"],
        endpoint: Endpoint,
        stream: bool,
        max_tokens_field: Literal["max_completion_tokens", "max_tokens"],
        service_tier: NonEmptyStr | None,
        reasoning_effort: NonEmptyStr | None,
        prediction: NonEmptyStr | None,
        seed: bool,
    ) -> None:
        super().__init__(
            model=model, base_url=None, api_key_env=api_key_env, endpoint=endpoint, stream=stream,
            max_tokens_field=max_tokens_field, service_tier=service_tier, reasoning_effort=reasoning_effort,
            prediction=prediction, seed=seed,
        )  # fmt: skip
        self._azure_endpoint = azure_endpoint
        self._api_version = api_version
        self._auth = auth
        self._credential: Any = None

    @property
    def price_list(self) -> str | None:
        """None: a deployment's name says neither the model nor the kind of deployment, and so no price."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Return where requests go and what they carry."""
        own = {"base_url": self._address(), "api_version": self._api_version or "v1", "auth": self._auth}
        return {**super().describe(), **own}

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        if self._credential is not None:
            await self._credential.close()

    def _address(self) -> str:
        address = self._azure_endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not address:
            raise ConfigError(
                "provider 'azure' needs the resource's address: set "
                "provider.azure_endpoint=https://NAME.openai.azure.com or the variable AZURE_OPENAI_ENDPOINT"
            )
        return address.rstrip("/")

    def _secret(self) -> str:
        self._address()
        if self._auth == "entra":
            _import_identity()
            return ""
        return super()._secret()

    def _connect(self) -> "AsyncOpenAI":
        from openai import AsyncAzureOpenAI, AsyncOpenAI

        token = self._token_provider() if self._auth == "entra" else None
        if self._api_version is None:
            key: Any = token or self._secret()
            return AsyncOpenAI(base_url=f"{self._address()}/openai/v1/", api_key=key, **client_settings())
        credential: dict[str, Any] = {"azure_ad_token_provider": token} if token else {"api_key": self._secret()}
        return AsyncAzureOpenAI(
            azure_endpoint=self._address(), api_version=self._api_version, **credential, **client_settings()
        )

    def _token_provider(self) -> Callable[[], Awaitable[str]]:
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider

        self._credential = DefaultAzureCredential()
        provider: Callable[[], Awaitable[str]] = get_bearer_token_provider(self._credential, _SCOPE)
        return provider


def _import_identity() -> None:
    try:
        import azure.identity  # noqa: F401
    except ModuleNotFoundError:
        raise MissingPackageError.for_extra("provider.auth=entra", package="azure-identity", extra="azure") from None
