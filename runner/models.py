"""`python -m runner.models provider=NAME`: the models that this account or this machine can use."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from runner import commandline, display
from runner.config import RunConfig
from runner.errors import AccessError, ConfigError
from runner.providers.base import CallError, ModelInfo, ModelLister, build


def models(config: RunConfig) -> Sequence[ModelInfo]:
    """Ask the provider.

    Raises:
        ConfigError: the provider keeps no list.
        AccessError: the service does not show its list.
    """
    provider = build(config)
    if not isinstance(provider, ModelLister):
        raise ConfigError(f"provider {config.provider.name!r} keeps no list of models: see its own documentation")
    try:
        return provider.list_models()
    except CallError as error:
        raise AccessError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """List what the command line asks for, and exit."""
    parser = argparse.ArgumentParser(prog="python -m runner.models", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="provider=NAME, and its keys: provider.region=...")
    parser.add_argument("--config-dir", help="a folder with options of your own")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    given = parser.parse_args(arguments)
    with commandline.one_message():
        found = models(commandline.compose_config(given.overrides, config_dir=given.config_dir))
        if given.json:
            json.dump([asdict(model) for model in found], sys.stdout, indent=2)
            sys.stdout.write("\n")
        else:
            rows = [(model.id, model.kind, model.detail, model.shutdown_date or "") for model in found]
            display.print_table(
                f"{len(rows)} models", ("model.id", "kind", "detail", "shut down"), rows, text_columns=4
            )


if __name__ == "__main__":
    main()
