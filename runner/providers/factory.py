"""Builds the provider of a configuration, and refuses settings that the provider does not support."""

import importlib
import inspect

from pydantic import ValidationError

from runner.config.messages import explain, unknown_key
from runner.config.schema import RunConfig
from runner.errors import ConfigError
from runner.providers.protocols import Provider

_DEFAULTS = {"temperature": 0.0, "top_p": None, "top_k": None, "stop_sequences": (), "n": 1}
"""Values of generation keys that every provider supports."""


def build(config: RunConfig) -> Provider:
    """Construct the provider and validate its settings and the generation keys. Loads and sends nothing.

    Raises:
        ConfigError: the provider does not have a setting, or does not support a generation key or its value.
    """
    provider_type = provider_class(config)
    setting_names = [name for name in inspect.signature(provider_type).parameters if name != "model"]
    if "model" in config.provider.settings:
        raise ConfigError(f"{unknown_key('provider.model', setting_names)}; the model is model.id")
    try:
        provider = provider_type(model=config.model, **config.provider.settings)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(explain(error, section="provider", arguments=setting_names)) from None
    _refuse_unsupported(config, provider)
    provider.validate(config.params())
    return provider


def provider_class(config: RunConfig) -> type[Provider]:
    """Import the class that `provider._target_` names. The schema has checked that it is below `runner.providers`.

    Raises:
        ConfigError: there is no such class, or the class is no provider.
    """
    module_name, _, class_name = config.provider.target.rpartition(".")
    try:
        provider_type = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError):
        raise ConfigError(f"provider._target_={config.provider.target!r}: there is no such provider") from None
    if not (isinstance(provider_type, type) and hasattr(provider_type, "default_mode")):
        raise ConfigError(f"provider._target_={config.provider.target!r} is not a provider")
    return provider_type


def _refuse_unsupported(config: RunConfig, provider: Provider) -> None:
    for name, default in _DEFAULTS.items():
        value = getattr(config.generation, name)
        if value != default and name not in provider.supported_params:
            raise ConfigError(
                f"generation.{name}={value!r}: provider {provider.name!r} does not support {name}: "
                f"leave it at {default!r} or choose another provider"
            )
