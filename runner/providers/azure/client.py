"""A client of an Azure OpenAI resource: the v1 API, or a dated one; with the resource's key, or Microsoft Entra ID."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import ConfigError, MissingPackageError
from runner.providers.errors import CallError, ErrorPolicy
from runner.providers.openai.client import (
    ApiKey,
    BlockingSecret,
    Client,
    Credential,
    Secret,
    address_in,
    blocking_client_settings,
    client_settings,
    open_blocking_plain,
    open_plain,
)
from runner.text import first_line

if TYPE_CHECKING:
    from azure.identity.aio import DefaultAzureCredential
    from openai import AsyncOpenAI, OpenAI

Auth = Literal["key", "entra"]
_SCOPE = "https://ai.azure.com/.default"
_API_PATH = re.compile(r"/openai/(v1|deployments)\b.*")
"""The end of the portal's target URI, after the resource's address; the client adds its own."""


class EntraId:
    """Tokens of Microsoft Entra ID for one scope, through azure-identity (environment, managed identity, az login ...).

    Attributes:
        advice: for a message, where the service does not accept the identity.
        secrets: the tokens fetched so far.
    """

    advice = "the identity is not accepted: check its role on the resource (Cognitive Services OpenAI User)"

    def __init__(self, scope: str) -> None:
        self.secrets: set[str] = set()
        self._scope = scope
        self._identity: DefaultAzureCredential | None = None
        self._fetch: Callable[[], Awaitable[str]] | None = None

    def secret(self) -> Callable[[], Awaitable[str]]:
        """Return what fetches a token. Imports azure-identity, so that no request's latency includes the import.

        Raises:
            MissingPackageError: azure-identity is not installed.
        """
        try:
            import azure.identity.aio  # noqa: F401
        except ModuleNotFoundError:
            raise MissingPackageError.for_extra(
                "provider.auth=entra", package="azure-identity", extra="azure"
            ) from None
        return self.token

    async def token(self) -> str:
        """Return a token that is valid for some more minutes.

        Raises:
            CallError: Entra ID gives this identity no token.
        """
        from azure.core.exceptions import AzureError
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider

        try:
            if self._fetch is None:
                self._identity = DefaultAzureCredential()
                self._fetch = get_bearer_token_provider(self._identity, self._scope)
            token = await self._fetch()
        except AzureError as error:
            message = f"no token for {self._scope}: {first_line(error)}: sign in (az login), or check the identity"
            raise CallError("EntraID", message, ErrorPolicy(fatal=True, not_billed=True)) from None
        self.secrets.add(token)
        return token

    async def close(self) -> None:
        """Close the connections that fetched tokens."""
        identity, self._identity, self._fetch = self._identity, None, None
        if identity is not None:
            await identity.close()


def azure_client(azure_endpoint: str | None, api_version: str | None, auth: Auth, api_key_env: str) -> Client:
    """Return the client of a resource.

    Args:
        azure_endpoint: the resource's address; None is the variable AZURE_OPENAI_ENDPOINT.
        api_version: a dated API's version; None is the v1 API, for which the SDK's plain client takes keys and tokens.
        auth: how requests are authenticated.
        api_key_env: the name of the environment variable that holds the resource's key.
    """
    credential: Credential = EntraId(_SCOPE)
    argument = "azure_ad_token_provider"
    if auth == "key":
        credential, argument = ApiKey(provider="azure", variable=api_key_env), "api_key"
    path = "/openai/v1/" if api_version is None else ""
    return Client(
        provider="azure",
        address=partial(_address, azure_endpoint, path),
        credential=credential,
        open=open_plain if api_version is None else partial(_open_dated, api_version, argument),
        open_blocking=(
            open_blocking_plain if api_version is None else partial(_open_blocking_dated, api_version, argument)
        ),
        description={"gen_ai.provider.name": "azure.ai.openai", "api_version": api_version or "v1", "auth": auth},
    )


def _open_dated(api_version: str, argument: str, address: str, secret: Secret) -> "AsyncOpenAI":
    """Return the SDK's client of the dated API, which takes keys and tokens under different names."""
    from openai import AsyncAzureOpenAI

    credential: dict[str, Any] = {argument: secret}
    return AsyncAzureOpenAI(azure_endpoint=address, api_version=api_version, **credential, **client_settings(address))


def _open_blocking_dated(api_version: str, argument: str, address: str, secret: BlockingSecret) -> "OpenAI":
    """Return the SDK's blocking client of the dated API."""
    from openai import AzureOpenAI

    credential: dict[str, Any] = {argument: secret}
    settings = blocking_client_settings(address)
    return AzureOpenAI(azure_endpoint=address, api_version=api_version, **credential, **settings)


def _address(configured: str | None, path: str) -> str:
    address = configured or address_in("AZURE_OPENAI_ENDPOINT")
    if not address:
        raise ConfigError(
            "provider 'azure' needs the resource's address: set "
            "provider.azure_endpoint=https://NAME.openai.azure.com or the variable AZURE_OPENAI_ENDPOINT"
        )
    return _API_PATH.sub("", address).rstrip("/") + path
