"""Owns the AWS account that a run uses: its session, its credentials, and the clients of its services."""

import contextlib
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.schema import web_address
from runner.errors import ConfigError
from runner.providers.bedrock.errors import call_errors
from runner.providers.errors import ErrorPolicy, redact_errors, require_packages, warn_of_plain_http
from runner.text import first_line

_CONNECT_TIMEOUT_S = 10
_CONNECTIONS = 10_000
"""An upper bound that is never reached: urllib3 opens connections as needed, and the batch mode decides how many."""
_NO_REGION = "no AWS region: set provider.region=REGION, or AWS_DEFAULT_REGION, or a region in the AWS profile"
_NO_CREDENTIALS = (
    "no AWS credentials: set provider.profile=NAME or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
_S3 = "s3"
_BEARER = ", or AWS_BEARER_TOKEN_BEDROCK (a Bedrock API key; with an https address only)"
_NO_BEARER = ": S3 takes no Bedrock API key"


class AwsAccount:
    """Opens clients with the credentials that every AWS tool finds. None is a configuration value.

    Args:
        region: where requests go; None is the AWS profile's or the environment's.
        profile: of the AWS configuration; None is AWS_PROFILE, or the default one.

    Attributes:
        secrets: those among the credentials, once they were looked up.
    """

    def __init__(self, *, region: str | None, profile: str | None) -> None:
        self._region, self._profile = region, profile
        self.secrets: set[str] = set()

    @property
    def profile(self) -> str | None:
        """The profile of the AWS configuration; None is the default one."""
        return self._profile or os.environ.get("AWS_PROFILE")

    def require_credentials(self, service: str, endpoint_url: str | None) -> None:
        """Raise UsageError where boto3, a region or credentials are missing.

        Credentials that have to be fetched (SSO, a role) are fetched now, before the first paid call.

        A Bedrock API key will do for Bedrock's own services over https.

        Args:
            service: boto3's name of the service.
            endpoint_url: another address than the region's own; None for none.
        """
        with self._configuration_errors():
            session = self._session()
            bearer = service != _S3 and not _is_plain_http(session, service, endpoint_url)
            token = os.environ.get("AWS_BEARER_TOKEN_BEDROCK") if bearer else None
            credentials = None if token else session.get_credentials()
            no_credentials = _NO_CREDENTIALS + (_NO_BEARER if service == _S3 else _BEARER)
            required = ((_NO_REGION, session.region_name), (no_credentials, token or credentials))
            if missing := [message for message, value in required if not value]:
                raise ConfigError("; ".join(missing))
            if credentials is None:
                self.secrets.add(str(token))
            else:
                frozen = credentials.get_frozen_credentials()
                self.secrets |= {secret for secret in (frozen.secret_key, frozen.token) if secret}

    def connect(
        self, service: str, endpoint_url: str | None, *, read_timeout_s: float, max_attempts: int = 1, **config: Any
    ) -> Any:
        """Open a client.

        Args:
            service: boto3's name of the service.
            endpoint_url: another address than the region's own; None for none.
            read_timeout_s: how long a request may wait for a byte.
            max_attempts: of one call; 1 where `dispatch` has the retries.
            config: further values for botocore's Config.

        Raises:
            UsageError: boto3, a region or credentials are missing, or the environment's address is none.
        """
        self.require_credentials(service, endpoint_url)
        with self._configuration_errors():
            from botocore.config import Config

            session = self._session()
            is_plain = service != _S3 and _is_plain_http(session, service, endpoint_url)
            settings = Config(
                retries={"mode": "standard", "total_max_attempts": max_attempts},
                read_timeout=read_timeout_s,
                connect_timeout=_CONNECT_TIMEOUT_S,
                max_pool_connections=_CONNECTIONS,
                tcp_keepalive=True,
                signature_version="v4" if is_plain else None,  # botocore sends no token over plain http
                **config,
            )
            client = session.client(service, endpoint_url=endpoint_url, config=settings)
        try:
            warn_of_plain_http(web_address(client.meta.endpoint_url))
        except ValueError as error:
            client.close()
            variable = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
            raise ConfigError(f"{variable}, or the endpoint_url of AWS's files: {error}") from None
        return client

    @contextlib.contextmanager
    def errors(self, where: str, *, rights: str, policies: Mapping[str, ErrorPolicy] | None = None) -> Iterator[None]:
        """Raise CallError, with secrets redacted, for every error of a call; arguments as for `call_errors`."""
        with redact_errors(self.secrets), call_errors(where, rights=rights, policies=policies or {}):
            yield

    def _session(self) -> Any:
        import boto3

        return boto3.Session(profile_name=self._profile, region_name=self._region)

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


def _is_plain_http(session: Any, service: str, endpoint_url: str | None) -> bool:
    """Return whether requests leave unencrypted: the address may be the environment's or that of AWS's files."""
    if endpoint_url is None and session.region_name is not None:  # without a region, the request is refused
        with contextlib.closing(session.client(service)) as client:
            endpoint_url = str(client.meta.endpoint_url)
    return urllib.parse.urlsplit(endpoint_url or "").scheme == "http"
