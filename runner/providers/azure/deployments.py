"""Lists a resource's deployments through Azure Resource Manager: the service itself lists none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from runner.providers.azure.client import EntraId
from runner.providers.errors import FATAL, CallError, redact_errors
from runner.providers.protocols import LIST_TIMEOUT_S, ModelInfo
from runner.providers.responses import shape_errors
from runner.text import excerpt

_API_VERSION = "2024-10-01"


async def list_deployments(resource_id: str, management_url: str) -> list[ModelInfo]:
    """Return the deployments of a resource.

    Args:
        resource_id: the resource's path in Azure (/subscriptions/...).
        management_url: where Azure's management API is.

    Raises:
        CallError: there is no list, or the identity may not read it.
    """
    import httpx2

    url: str | None = f"{management_url}{resource_id}/deployments?api-version={_API_VERSION}"
    deployments: list[ModelInfo] = []
    identity = EntraId(f"{management_url}/.default")
    with redact_errors(identity.secrets), _management_errors(resource_id, management_url), shape_errors():
        try:
            token = await identity.secret()()
        finally:
            await identity.close()
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=LIST_TIMEOUT_S) as client:
            while url:
                response = await client.get(url)
                response.raise_for_status()
                page = response.json()
                deployments += [_deployment_info(deployment) for deployment in page["value"]]
                url = next_page(page, management_url)
    return deployments


def next_page(page: Mapping[str, Any], management_url: str) -> str | None:
    """Return the address of the page after this one; None after the last.

    Raises:
        CallError: the page is at another host, port or scheme, which would get the management token.
    """
    url: str | None = page.get("nextLink")
    if url is not None and urlsplit(url)[:2] != urlsplit(management_url)[:2]:
        message = f"the list of deployments goes on at another host than {management_url}: not followed"
        raise CallError("DeploymentsRefused", message, FATAL)
    return url


@contextmanager
def _management_errors(resource_id: str, management_url: str) -> Iterator[None]:
    import httpx2

    try:
        yield
    except httpx2.HTTPStatusError as error:
        advice = f"{error.response.status_code} for provider.resource_id={resource_id!r}: check it and your rights"
        raise CallError("DeploymentsRefused", f"{advice}. {excerpt(error.response.text)}", FATAL) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise CallError(
            "DeploymentsUnreadable",
            f"no list of deployments from {management_url}: {excerpt(str(error) or type(error).__name__)}: check "
            "provider.management_url and the network, or set provider.resource_id=null",
            FATAL,
        ) from error


def _deployment_info(deployment: Mapping[str, Any]) -> ModelInfo:
    model = deployment["properties"]["model"]
    sku = deployment.get("sku", {}).get("name", "")
    return ModelInfo(
        id=deployment["name"], kind="deployment", detail=f"{model['name']} {model['version']} {sku}".strip()
    )
