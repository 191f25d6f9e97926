"""What commands share: signals, errors as one message, a folder by its name or id, and a question's answer."""

import argparse
import contextlib
import logging.config
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from runner.cli import hydra_errors, terminal
from runner.cli.compose import compose_config
from runner.config.schema import CONF_DIR, RunConfig
from runner.errors import Interrupted, RecordError, RunnerError, UsageError


def find_folder(run: str, tracking_uri: str | None) -> Path:
    """Return the folder that RUN or SWEEP names: itself, or an MLflow run id.

    Raises:
        UsageError: there is no such run.
    """
    if Path(run).expanduser().is_dir():
        return Path(run).expanduser().absolute()
    from runner.tracking.uri import sqlite_path

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


def handle_termination_signals() -> None:
    """Take a request to end (docker stop, a scheduler) as Ctrl-C: the record is closed before the process ends.

    So is a terminal that hangs up, unless that is ignored, as by nohup.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Turn what is wrong with a request into one message and its exit code; anything else keeps its traceback."""
    try:
        yield
    except RunnerError as error:
        terminal.print_error(str(error))
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if hydra_errors.tracebacks_wanted():
            raise
        terminal.print_error(hydra_errors.explain(error))
        sys.exit(UsageError.exit_code)
    except KeyboardInterrupt:
        terminal.print_error("interrupted")
        sys.exit(Interrupted.exit_code)


def question(name: str, doc: str, arguments: Sequence[str] | None, answer: Callable[[RunConfig, bool], None]) -> None:
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
    with report_errors():
        answer(compose_config(given.overrides, config_dir=given.config_dir), given.json)
