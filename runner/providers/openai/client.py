"""A client of OpenAI's API: where requests go, what proves who sends them, and the SDK client for both."""

import importlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runner.config.schema import web_address
from runner.errors import ConfigError, MissingPackageError
from runner.providers.errors import redact_errors
from runner.providers.openai.errors import call_errors

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_ADDRESS = "https://api.openai.com/v1"
_MAX_CONNECTIONS = 1_000_000
"""Out of reach: the batch mode alone decides how many there are. None would be aiohttp's own limit, which is 100."""

Secret = str | Callable[[], Awaitable[str]]
"""A key, or what fetches a token whenever the SDK needs one."""


class Credential(Protocol):
    """What proves to a service who sends a request."""

    @property
    def advice(self) -> str:
        """What to do where the service does not accept the credential."""

    @property
    def secrets(self) -> set[str]:
        """What was handed out so far; no error message may repeat any of it."""

    def secret(self) -> Secret:
        """Return what requests carry.

        Raises:
            UsageError: there is none, or a package is missing that fetches one.
        """

    async def close(self) -> None:
        """Close what fetched tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, read from the environment at the last moment.

    Attributes:
        provider: the provider's name, for messages.
        variable: the name of the environment variable; None for a server that takes no key.
        secrets: the key, once it was read.
    """

    provider: str
    variable: str | None
    secrets: set[str] = field(default_factory=set)

    @property
    def advice(self) -> str:
        """What to do where the service does not accept the key."""
        if self.variable is None:
            return "the server asks for a key: name the environment variable that holds it in provider.api_key_env"
        return "the key is not accepted: check the environment variable that provider.api_key_env names"

    def secret(self) -> str:
        """Return the key.

        Raises:
            ConfigError: the variable is not set, or holds what no header can carry.
        """
        if self.variable is None:
            return "none"
        key = os.environ.get(self.variable)
        if not key:
            raise ConfigError(
                f"provider {self.provider!r} needs a key in the environment variable {self.variable}, which is not "
                "set: export it, or name another variable in provider.api_key_env"
            )
        if not re.fullmatch("[!-~]+", key):
            raise ConfigError(
                f"the key in the environment variable {self.variable} has a character that no key has (a space, a "
                "line's end, a letter with an accent): copy it again"
            )
        self.secrets.add(key)
        return key

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An authenticated connection to a service that has OpenAI's API; nothing is open before `connect`.

    Attributes:
        provider: the provider's name, which is also that of the extra with its packages.
        address: returns where requests go; raises ConfigError where the environment has no usable address.
        credential: what proves who sends them.
        open: makes the SDK's client of an address and a secret.
        description: what the run's record says of the client, besides the address.
    """

    provider: str
    address: Callable[[], str]
    credential: Credential
    open: Callable[[str, Any], "AsyncOpenAI"]
    description: Mapping[str, str]

    def check(self) -> None:
        """Find packages, address and secret before anything is sent.

        Raises:
            UsageError: one of them is missing.
        """
        for package in ("openai", "aiohttp"):
            try:
                importlib.import_module(package)
            except ModuleNotFoundError:
                raise MissingPackageError.for_extra(
                    f"provider={self.provider}", package=package, extra=self.provider
                ) from None
        self.address()
        self.credential.secret()

    def connect(self) -> "AsyncOpenAI":
        """Return the SDK's client. The caller closes it, and then the credential."""
        return self.open(self.address(), self.credential.secret())

    @contextmanager
    def errors(self, model_id: str) -> Iterator[None]:
        """Raise CallError for all that a request can meet, with no secret in its message."""
        with redact_errors(self.credential.secrets), call_errors(model_id, key_advice=self.credential.advice):
            yield


def openai_client(base_url: str | None, api_key_env: str | None) -> Client:
    """Return the client of OpenAI, or of a compatible server."""
    return Client(
        provider="openai",
        address=lambda: base_url or address_in("OPENAI_BASE_URL") or OPENAI_ADDRESS,
        credential=ApiKey(provider="openai", variable=api_key_env),
        open=open_plain,
        description={"gen_ai.provider.name": "openai"},
    )


def open_plain(base_url: str, secret: Secret) -> "AsyncOpenAI":
    """Return the SDK's plain client."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=base_url, api_key=secret, **client_settings())


def client_settings() -> dict[str, Any]:
    """Return what every SDK client is made with: no retries and no timeout of its own, and no limit of connections.

    The default transport's pool gets slower with every connection; aiohttp's does not. Connections are as many as the
    batch mode asks for.
    """
    import httpx2
    from openai import DefaultAioHttpClient

    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
    http_client = DefaultAioHttpClient(limits=limits, timeout=httpx2.Timeout(None, connect=10.0))
    return {"max_retries": 0, "timeout": httpx2.Timeout(None, connect=10.0), "http_client": http_client}


def address_in(variable: str) -> str | None:
    """Return the address in an environment variable, None where there is none.

    Raises:
        ConfigError: the variable holds no address, or one with a password. The value is not repeated.
    """
    try:
        return web_address(os.environ[variable]) if os.environ.get(variable) else None
    except ValueError as error:
        raise ConfigError(f"the environment variable {variable}: {error}") from None
