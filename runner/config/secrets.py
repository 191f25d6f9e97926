"""Recognizes secrets: refuses them on a command line, and redacts them in texts. Stores none.

Public contract: `refuse_secrets` and `refuse_secrets_in` before Hydra writes anything, `redact` for every text that may
repeat a secret.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from urllib.parse import quote

from runner.errors import ConfigError

QUERY_NAMES = ("api-version", "sslmode")
"""Names that the query of an address may have."""
_KEY_LIKE = re.compile(
    r"(?i:(^|[^a-z])(api_?key|key|token|secret|password|credentials?))$|[a-z](Key|Token|Secret|Password|Credentials?)$"
)
"""Names of settings whose value is a secret: api_key, OPENAI_API_KEY, sessionToken; not max_tokens, api_key_env."""
_NAME = re.compile(r"[A-Za-z_]\w{0,59}", re.ASCII)
_LIKE_A_KEY = re.compile(r"sk.*|(?=.*[a-z])(?=.*[0-9]).{20,}")
"""Keys made of characters that a variable's name may have: sk_..., or long with small letters and digits."""
_MIN_REDACTED = 4
"""Characters of the shortest secret that is redacted: a shorter one also occurs in ordinary words."""
_SECRET = re.compile(
    r"^[+~]*(?P<key>[\w.@/:]*?(?<![a-z])(api_?key|key|token|secret|password|credentials?))=", re.IGNORECASE
)
_VARIABLE = re.compile(r"^[+~]*(?P<key>[\w.@/:]*_env)=(?P<value>.*)", re.DOTALL)
_ADDRESS = re.compile(r"^[+~]*(?P<key>provider\.\w+)=(?P<value>.*://.*)", re.DOTALL)
_STORE = re.compile(r"^[+~]*(?P<key>tracking\.uri)=(?P<value>.*)", re.DOTALL)


def is_variable_name(text: str) -> bool:
    """Return whether a text looks like the name of an environment variable rather than a secret."""
    return bool(_NAME.fullmatch(text)) and not _LIKE_A_KEY.fullmatch(text)


def has_user(address: str) -> bool:
    """Return whether an address may hold a user name, and with it a password."""
    return "@" in address


def has_password(address: str) -> bool:
    """Return whether an address holds a password; a database's may hold a user name alone.

    A password may hold a slash. A file's address has neither user nor password.
    """
    return not address.startswith("sqlite:") and re.search(r"://[^@]*:[^@]*@", address) is not None


def has_secret_query(address: str) -> bool:
    """Return whether an address has a query with any name but QUERY_NAMES: a query may hold a token or a password."""
    names = re.findall(r"[?&;]([^=&;#]*)", address.partition("://")[2])
    return any(name not in QUERY_NAMES for name in names)


def redact(text: str, secrets: Collection[str]) -> str:
    """Return the text with every secret of at least 4 characters replaced by ***, in its URL-encoded forms too.

    The longest form is replaced first: a shorter one may be a part of a longer one.
    """
    for form in sorted(_forms(secrets), key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def has_secret(text: str, secrets: Collection[str]) -> bool:
    """Return whether a text has a secret that `redact` would replace."""
    return any(form in text for form in _forms(secrets))


def _forms(secrets: Collection[str]) -> set[str]:
    """Return secrets as they are and as addresses and forms have them."""
    long = [secret for secret in secrets if len(secret) >= _MIN_REDACTED]
    encodings = (str, quote, partial(quote, safe=""), lambda secret: quote(secret, safe="").lower())
    return {encode(secret) for secret in long for encode in encodings}


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse overrides that contain a secret, before Hydra writes the overrides to disk.

    Args:
        arguments: the command line without the program's name.

    Raises:
        ConfigError: an override sets a key, token, secret or password, gives a secret instead of the name of its
            environment variable, or has a user name, a password or a query in an address. The message does not repeat
            the value.
    """
    for argument in arguments:
        if match := _SECRET.match(argument):
            raise ConfigError(_secret_setting(match["key"]))
        if (match := _VARIABLE.match(argument)) and not all(map(_names_a_variable, match["value"].split(","))):
            raise ConfigError(
                f"{match['key']}=... is not the name of an environment variable: give the name of the variable that "
                "holds the key, not the key"
            )
        for address, has_secret in ((_ADDRESS, has_user), (_STORE, has_password)):
            if (match := address.match(argument)) and (has_secret(match["value"]) or has_secret_query(match["value"])):
                raise ConfigError(
                    f"{match['key']}=... has a user name, a password or a query in it, and would be written to disk: "
                    "give the address without"
                )


def refuse_secrets_in(value: object, key: str = "") -> None:
    """Refuse a composed configuration with a secret at any depth, before it is written to disk.

    Args:
        value: sections as mappings, lists and leaves; interpolations are not resolved.
        key: the dotted name of `value`.

    Raises:
        ConfigError: a setting has the name of a key, token, secret or password, and a value. The message does not
            repeat the value.
    """
    if isinstance(value, Mapping):
        for name, member in value.items():
            if _KEY_LIKE.search(str(name)) and not isinstance(member, Mapping) and member is not None:
                raise ConfigError(_secret_setting(f"{key}{name}"))
            refuse_secrets_in(member, f"{key}{name}.")
    elif isinstance(value, list):
        for member in value:
            refuse_secrets_in(member, key)


def _secret_setting(key: str) -> str:
    return (
        f"{key} has a value, which would be written to disk: put the secret into an environment variable and give the "
        "variable's name, such as provider.api_key_env=NAME"
    )


def _names_a_variable(value: str) -> bool:
    bare = value.strip("'\" ")
    return bare in ("", "null") or is_variable_name(bare)
