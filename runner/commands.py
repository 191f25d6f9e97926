"""What the commands beside the run itself share: how they find a folder, compose a configuration, and answer."""

import argparse
import logging.config
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from runner.commandline import compose_config, one_message
from runner.config import CONF_DIR, RunConfig
from runner.errors import RecordError


def find_folder(run: str, tracking_uri: str | None) -> Path:
    """Return the folder that RUN or SWEEP names: itself, or an MLflow run id.

    Raises:
        RequestError: there is no such run.
    """
    if Path(run).expanduser().is_dir():
        return Path(run).expanduser().absolute()
    from runner.tracking.address import sqlite_path

    uri = tracking_uri or compose_config([]).tracking.uri
    store = sqlite_path(uri) if uri else None
    if uri is None or not re.fullmatch(r"[0-9a-f]{32}", run) or (store and not store.exists()):
        raise RecordError(f"{run!r}: no such run or sweep (looked for the folder {Path(run).absolute()})")
    from runner.tracking.find import folder_of

    return folder_of(run, uri)


def log_into(directory: Path) -> None:
    """Log as a run does: our own messages on the terminal, everything in runner.log."""
    settings = yaml.safe_load((CONF_DIR / "hydra" / "job_logging" / "runner.yaml").read_text(encoding="utf-8"))
    settings["handlers"]["file"]["filename"] = str(directory / "runner.log")
    logging.config.dictConfig(settings)


def small_command(
    name: str, doc: str, arguments: Sequence[str] | None, answer: Callable[[RunConfig, bool], None]
) -> None:
    """Run a command that only answers a question: compose what is asked, and answer it as a table or as JSON.

    Args:
        name: the module's, as in `python -m runner.NAME`.
        doc: what --help says first.
        arguments: the command line's; None is sys.argv's.
        answer: is handed the configuration, and whether JSON is wanted.
    """
    parser = argparse.ArgumentParser(prog=f"python -m runner.{name}", description=doc)
    parser.add_argument("overrides", nargs="*", help="as for python -m runner: KEY=VALUE, GROUP=OPTION")
    parser.add_argument("--config-dir", help="a folder with options of your own")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    given = parser.parse_args(arguments)
    with one_message():
        answer(compose_config(given.overrides, config_dir=given.config_dir), given.json)
