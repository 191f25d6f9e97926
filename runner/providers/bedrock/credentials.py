"""What a request to AWS needs besides its text: a region and credentials, looked for before anything is sent."""

import os
from typing import Any

from runner.errors import ConfigError

_NO_REGION = "no AWS region: set provider.region=REGION, or AWS_DEFAULT_REGION, or a region in the AWS profile"
_NO_CREDENTIALS = (
    "no AWS credentials: set provider.profile=NAME or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_BEARER_TOKEN_BEDROCK (a Bedrock API key; with an https address only)"
)


def require_region_and_credentials(session: Any, *, bearer: bool) -> set[str]:
    """Raise ConfigError if either is missing; return the secrets among the credentials.

    Credentials that have to be fetched (SSO, a role) are fetched now, before the first paid call.
    """
    token = os.environ.get("AWS_BEARER_TOKEN_BEDROCK") if bearer else None
    credentials = None if token else session.get_credentials()
    required = ((_NO_REGION, session.region_name), (_NO_CREDENTIALS, token or credentials))
    if missing := [message for message, value in required if not value]:
        raise ConfigError("; ".join(missing))
    if credentials is None:
        return {str(token)}
    frozen = credentials.get_frozen_credentials()
    return {secret for secret in (frozen.secret_key, frozen.token) if secret}
