"""`python -m runner.models provider=NAME`: lists the models that this account or this machine can use."""

from collections.abc import Sequence
from dataclasses import asdict

from runner.cli import common, terminal
from runner.config.schema import RunConfig
from runner.errors import AccessError, ConfigError
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.providers.protocols import ModelInfo, ModelLister


def models(config: RunConfig) -> Sequence[ModelInfo]:
    """Return the models that the provider lists.

    Raises:
        ConfigError: the provider cannot list models.
        AccessError: the service refuses the list.
    """
    provider = build(config)
    if not isinstance(provider, ModelLister):
        raise ConfigError(f"provider {config.provider.name!r} cannot list its models: see its documentation")
    try:
        return provider.list_models()
    except CallError as error:
        raise AccessError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """List the models of the command line's provider."""
    common.run_query("models", str(__doc__), arguments, _print)


def _print(config: RunConfig, as_json: bool) -> None:
    listed = models(config)
    if as_json:
        terminal.print_json([asdict(model) for model in listed])
    else:
        rows = [(model.id, model.kind, model.detail, model.shutdown_date or "") for model in listed]
        terminal.print_table(f"{len(rows)} models", ("model.id", "kind", "detail", "shut down"), rows, text_columns=4)
