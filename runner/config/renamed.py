"""Keys that were renamed or added: recorded runs keep working. A new run with an old name is told the new one."""

from collections.abc import Mapping
from typing import Any

from runner.config.schema import leaves
from runner.errors import ConfigError

RENAMED: Mapping[str, str] = {"provider.lacks": "provider.unsupported_params"}
"""The new dotted name of each old one. A key stays in its section."""
ADDED: Mapping[str, Any] = {"batch.detach": False}
"""The value of each key that records of earlier versions lack."""
ADDED_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "runner.providers.bedrock.BedrockProvider": {
        "job": {
            "api": "invocation", "role_arn": None, "s3_input": None, "s3_output": None, "control_endpoint_url": None,
            "s3_endpoint_url": None, "min_records": 100, "timeout_hours": 24, "keep_files": False,
        },
    },
}  # fmt: skip
"""The same for the settings of a provider, by its class."""


def with_current_keys(recorded: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return a recorded configuration with every key under its present name.

    Args:
        recorded: the configuration, or one section of it.
        section: the section's dotted name, with a dot at its end.
    """
    current: dict[str, Any] = {}
    for name, value in dict(recorded).items():
        key = RENAMED.get(f"{section}{name}", f"{section}{name}")
        current[key.removeprefix(section)] = (
            with_current_keys(value, f"{key}.") if isinstance(value, Mapping) else value
        )
    added = {key.removeprefix(section): value for key, value in ADDED.items() if key.rpartition(".")[0] == section[:-1]}
    added |= ADDED_SETTINGS.get(str(current.get("_target_")), {}) if section == "provider." else {}
    return (added if current else {}) | current


def refuse_renamed(raw: Mapping[str, Any]) -> None:
    """Refuse old names in the configuration of a new run.

    Raises:
        ConfigError: there is one; the message has the new name.
    """
    for key, value in leaves(raw):
        if key in RENAMED:
            raise ConfigError(f"{key}={value!r}: {renamed_key(key)}")


def renamed_key(key: str) -> str:
    """Return the message that gives an old key's present name."""
    return f"this key is now {RENAMED[key]}: set {RENAMED[key]}=VALUE"
