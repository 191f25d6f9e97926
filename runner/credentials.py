"""Where a secret may stand: what looks like one, and how it is kept out of what is written. Reads and knows none."""

import re
from collections.abc import Collection

_VARIABLE = re.compile(r"[A-Za-z_]\w{0,59}", re.ASCII)
_LIKE_A_KEY = re.compile(r"sk.*|(?=.*[a-z])(?=.*[0-9]).{20,}")
"""Keys of which every character may stand in a variable's name: sk_..., or long with small letters and digits."""
_SHORTEST = 4
"""Of a shorter key, hiding it would make a riddle of every message."""


def is_variable_name(text: str) -> bool:
    """Return whether a text is the name of an environment variable, and not the secret itself in its place."""
    return bool(_VARIABLE.fullmatch(text)) and not _LIKE_A_KEY.fullmatch(text)


def has_user(address: str) -> bool:
    """Return whether an address may hold a user name, and with it a password."""
    return "@" in address


def has_password(address: str) -> bool:
    """Return whether an address holds a password; a database's may hold a user name alone."""
    return re.search(r"://[^/?#]*:[^/?#]*@", address) is not None


def hidden(text: str, secrets: Collection[str]) -> str:
    """Return the text without these secrets, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text
