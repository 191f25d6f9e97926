"""What commands share: signals, errors as one message, run folders by path or MLflow id, and read-only commands."""

import argparse
import contextlib
import logging
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
from runner.cli.trust import TRUST_FLAG, refuse_code
from runner.config.schema import CONF_DIR, RunConfig
from runner.errors import Interrupted, RecordError, RunnerError, UsageError
from runner.record.folder import LOG, RunFolder
from runner.text import first_line

log = logging.getLogger(__name__)


def find_folder(run: str, tracking_uri: str | None) -> Path:
    """Return the folder of a RUN or SWEEP.

    Args:
        run: the folder, or an MLflow run id.
        tracking_uri: the MLflow store of the id; None is the configured one.

    Raises:
        RecordError: there is no such run.
        TrackingError: the store cannot be read.
    """
    if Path(run).expanduser().is_dir():
        return Path(run).expanduser().absolute()
    from runner.tracking.uri import sqlite_path

    uri = tracking_uri or compose_config([]).tracking.uri
    store = sqlite_path(uri) if uri else None
    if uri is None or not re.fullmatch(r"[0-9a-f]{32}", run) or (store and not store.exists()):
        raise RecordError(
            f"{run!r}: no such run or sweep (looked for the folder {Path(run).absolute()}): give its folder "
            "or its MLflow run id"
        )
    from runner.tracking.find import folder_of

    return folder_of(run, uri)


def log_into(directory: Path) -> None:
    """Log as a run does: the runner's messages on the terminal, everything in runner.log."""
    settings = yaml.safe_load((CONF_DIR / "hydra" / "job_logging" / "runner.yaml").read_text(encoding="utf-8"))
    settings["handlers"]["file"]["filename"] = str(directory / LOG)
    try:
        logging.config.dictConfig(settings)
    except ValueError as error:  # whose cause is the error of the file
        reason = first_line(error.__cause__ or error)
        raise RecordError(f"{directory / LOG} cannot be written: {reason}: give yourself the right to write") from None


def handle_termination_signals() -> None:
    """Handle SIGTERM (docker stop, a scheduler) and SIGHUP as Ctrl-C, so that the record is closed before the end.

    SIGHUP stays ignored where the process ignores it, as under nohup.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def print_resume_command(folder: RunFolder) -> None:
    """Print how an interrupted run goes on, unless it was interrupted before its record began."""
    with contextlib.suppress(RecordError):
        folder.read_manifest()
        log.warning("to finish the run: %s", folder.resume_command)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Print an error of the runner or of Hydra as one message and exit with its code. A defect keeps its traceback."""
    try:
        yield
    except RunnerError as error:
        terminal.print_error(str(error))
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if hydra_errors.tracebacks_requested():
            raise
        terminal.print_error(hydra_errors.explain(error))
        sys.exit(UsageError.exit_code)
    except KeyboardInterrupt:
        terminal.print_error("interrupted")
        sys.exit(Interrupted.exit_code)


def run_query(
    name: str, description: str, arguments: Sequence[str] | None, show: Callable[[RunConfig, bool], None]
) -> None:
    """Run a command that generates nothing: compose its configuration, and print a table or JSON.

    Args:
        name: the module's, as in `python -m runner.NAME`.
        description: the beginning of --help.
        arguments: the command line's; None is sys.argv's.
        show: prints for a configuration; its second argument is whether to print JSON.
    """
    parser = argparse.ArgumentParser(prog=f"python -m runner.{name}", description=description)
    parser.add_argument("overrides", nargs="*", help="as for python -m runner: KEY=VALUE, GROUP=OPTION")
    parser.add_argument("--config-dir", help="a folder with configuration files of your own")
    parser.add_argument(TRUST_FLAG, action="store_true", help="let that folder name code, which Hydra then runs")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    options = parser.parse_args(arguments)
    with report_errors():
        if not options.trust_config:
            refuse_code([*options.overrides, *(["--config-dir", options.config_dir] if options.config_dir else [])])
        show(compose_config(options.overrides, config_dir=options.config_dir), options.json)
        terminal.raise_if_output_lost()
