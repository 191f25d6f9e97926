"""A client of OpenAI's API: the address, the credential, and the SDK's clients for both."""

import asyncio
import importlib
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runner.config.schema import web_address
from runner.errors import ConfigError
from runner.providers.errors import redact_errors, require_packages, warn_of_plain_http
from runner.providers.openai.errors import call_errors

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

_PACKAGES = ("openai", "aiohttp")
OPENAI_ADDRESS = "https://api.openai.com/v1"
NO_KEY = "none"
"""Sent to a server that takes no key: the SDK wants one."""
_MAX_CONNECTIONS = 1_000_000
"""Never reached: the batch mode alone decides how many there are. None would be aiohttp's own limit, which is 100."""

_BLOCKING_TIMEOUT_S = 300.0
"""How long a blocking request may take without a byte: an answer to an upload of 200 MB takes a while."""
_TOKEN_S = 240.0
"""How long blocking requests use a fetched token: what a credential returns is valid for five minutes or more."""

Secret = str | Callable[[], Awaitable[str]]
"""A key, or a function that fetches a token, which the SDK calls for every request."""
BlockingSecret = str | Callable[[], str]
"""The same for blocking requests."""


class Credential(Protocol):
    """Authenticates requests to a service."""

    @property
    def advice(self) -> str:
        """For a message, where the service does not accept the credential: what to do."""

    @property
    def secrets(self) -> set[str]:
        """Keys and tokens returned so far, to be redacted in error messages."""

    def secret(self) -> Secret:
        """Return the key, or the function that fetches tokens.

        Raises:
            UsageError: there is no key, or the package that fetches tokens is missing.
        """

    async def close(self) -> None:
        """Close the connections that fetched tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key in an environment variable, read only when a client is made.

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
        """For a message, where the service does not accept the key: what to do."""
        if self.variable is None:
            return "the server asks for a key: name the environment variable that holds it in provider.api_key_env"
        return "the key is not accepted: check the environment variable that provider.api_key_env names"

    def secret(self) -> str:
        """Return the key.

        Raises:
            ConfigError: the variable is not set, or has a character that no header can have.
        """
        if self.variable is None:
            return NO_KEY
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
        """Close nothing: a key needs no connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An authenticated connection to a service that has OpenAI's API; nothing is open before `connect`.

    Attributes:
        provider: the provider's name, which is also that of the extra with its packages.
        address: returns where requests go; raises ConfigError where the environment has no usable address.
        credential: authenticates requests.
        open: returns the SDK's asynchronous client for an address and a secret.
        open_blocking: returns the SDK's blocking client.
        description: entries of environment.json besides the address.
    """

    provider: str
    address: Callable[[], str]
    credential: Credential
    open: Callable[[str, Secret], "AsyncOpenAI"]
    open_blocking: Callable[[str, BlockingSecret], "OpenAI"]
    description: Mapping[str, str]

    def check(self) -> None:
        """Check that address, secret and packages are there, before anything is sent.

        Raises:
            UsageError: one of them is missing.
        """
        address, secret = self.address(), self.credential.secret()
        require_packages(self.provider, *_PACKAGES)
        if not (isinstance(secret, str) and secret == NO_KEY):
            warn_of_plain_http(address)

    def load(self) -> None:
        """Check, and import the packages, so that no request's latency includes the import.

        Raises:
            UsageError: as for `check`.
        """
        self.check()
        for package in _PACKAGES:
            importlib.import_module(package)

    def connect(self) -> "AsyncOpenAI":
        """Return the SDK's client. The caller closes it, and then the credential."""
        return self.open(self.address(), self.credential.secret())

    def connect_blocking(self) -> "OpenAI":
        """Return the SDK's blocking client, whose requests have a timeout. The caller closes it."""
        secret = self.credential.secret()
        return self.open_blocking(
            self.address(), secret if isinstance(secret, str) else _BlockingToken(secret, self.credential)
        )

    @contextmanager
    def errors(self, model_id: str) -> Iterator[None]:
        """Raise CallError, with secrets redacted, for every error of a request."""
        with redact_errors(self.credential.secrets), call_errors(model_id, key_advice=self.credential.advice):
            yield


class _BlockingToken:
    """Fetches tokens in an event loop of its own, and uses each for some minutes.

    Args:
        fetch: fetches a token.
        credential: whose connections are closed after each time.
    """

    def __init__(self, fetch: Callable[[], Awaitable[str]], credential: Credential) -> None:
        self._fetch, self._credential = fetch, credential
        self._token, self._valid_until = "", 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self._valid_until:
            self._token, self._valid_until = asyncio.run(self._fetched()), time.monotonic() + _TOKEN_S
        return self._token

    async def _fetched(self) -> str:
        try:
            return await self._fetch()
        finally:
            await self._credential.close()


def openai_client(base_url: str | None, api_key_env: str | None) -> Client:
    """Return the client of OpenAI, or of a compatible server."""
    return Client(
        provider="openai",
        address=lambda: base_url or address_in("OPENAI_BASE_URL") or OPENAI_ADDRESS,
        credential=ApiKey(provider="openai", variable=api_key_env),
        open=open_plain,
        open_blocking=open_blocking_plain,
        description={"gen_ai.provider.name": "openai"},
    )


def open_plain(base_url: str, secret: Secret) -> "AsyncOpenAI":
    """Return the SDK's plain client."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=base_url, api_key=secret, **client_settings(base_url))


def open_blocking_plain(base_url: str, secret: BlockingSecret) -> "OpenAI":
    """Return the SDK's plain blocking client."""
    from openai import OpenAI

    return OpenAI(base_url=base_url, api_key=secret, **blocking_client_settings(base_url))


def client_settings(address: str) -> dict[str, Any]:
    """Return arguments for every SDK client: no retries, no timeout, and no limit of connections.

    Compressed answers are not asked for: their chunks would come when the compressor lets them.

    The default transport's pool gets slower with every connection; aiohttp's does not. Connections are as many as the
    batch mode asks for.
    """
    import httpx2
    from openai import DefaultAioHttpClient

    from runner.providers.openai.hooks import event_hooks

    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS)
    http_client = DefaultAioHttpClient(
        limits=limits,
        timeout=httpx2.Timeout(None, connect=10.0),
        headers={"Accept-Encoding": "identity"},
        event_hooks=event_hooks(address),
    )
    return {"max_retries": 0, "timeout": httpx2.Timeout(None, connect=10.0), "http_client": http_client}


def blocking_client_settings(address: str) -> dict[str, Any]:
    """Return arguments for every blocking SDK client: no retries, a timeout, and answers that are not compressed."""
    import httpx2
    from openai import DefaultHttpxClient

    from runner.providers.openai.hooks import blocking_event_hooks

    timeout = httpx2.Timeout(_BLOCKING_TIMEOUT_S, connect=10.0)
    http_client = DefaultHttpxClient(
        timeout=timeout, headers={"Accept-Encoding": "identity"}, event_hooks=blocking_event_hooks(address)
    )
    return {"max_retries": 0, "timeout": timeout, "http_client": http_client}


def address_in(variable: str) -> str | None:
    """Return the address in an environment variable, None where there is none.

    Raises:
        ConfigError: the variable holds no address, or one with a password. The value is not repeated.
    """
    try:
        return web_address(os.environ[variable]) if os.environ.get(variable) else None
    except ValueError as error:
        raise ConfigError(f"the environment variable {variable}: {error}") from None
