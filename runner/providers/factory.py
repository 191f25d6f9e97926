"""From configuration to a provider: finds its class, builds it, and checks that it can honour every key."""

import importlib
import inspect

from pydantic import ValidationError

from runner.config.messages import explain, unknown_key
from runner.config.schema import RunConfig
from runner.errors import ConfigError
from runner.providers.protocols import Provider

_NEUTRAL = {"temperature": 0.0, "top_p": None, "top_k": None, "stop_sequences": (), "n": 1}
"""Values of generation keys that ask nothing of a provider."""


def build(config: RunConfig) -> Provider:
    """Construct the provider and check that it can do what the configuration asks. Loads and sends nothing.

    Raises:
        ConfigError: a setting or a generation key is not something this provider has.
    """
    kind = provider_class(config)
    known = [name for name in inspect.signature(kind).parameters if name != "model"]
    if "model" in config.provider.settings:
        raise ConfigError(f"{unknown_key('provider.model', known)}; the model is model.id")
    try:
        provider = kind(model=config.model, **config.provider.settings)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(explain(error, {"provider": known})) from None
    _refuse_unsupported(config, provider)
    provider.validate(config.params())
    return provider


def provider_class(config: RunConfig) -> type[Provider]:
    """Import the class that `provider._target_` names; its place was checked with the configuration."""
    module_name, _, class_name = config.provider.target.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError):
        raise ConfigError(f"provider._target_={config.provider.target!r}: there is no such provider") from None
    if not (isinstance(kind, type) and hasattr(kind, "default_mode")):
        raise ConfigError(f"provider._target_={config.provider.target!r} is not a provider")
    return kind


def _refuse_unsupported(config: RunConfig, provider: Provider) -> None:
    for name, neutral in _NEUTRAL.items():
        value = getattr(config.generation, name)
        if value != neutral and name not in provider.supported_params:
            raise ConfigError(
                f"generation.{name}={value!r}: provider {provider.name!r} cannot honour {name}: "
                f"leave it at {neutral!r} or choose another provider"
            )
