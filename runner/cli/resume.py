"""Finish an interrupted run, in its own folder and its own MLflow run: generates only what has no answer yet.

Failed prompts are tried again. With nothing left to generate, MLflow is told what it missed.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.cli import common
from runner.cli.report import TerminalObserver, print_mlflow
from runner.record.folder import RunFolder

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Resume the run that the command line names, and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or its MLflow run id")
    parser.add_argument("--keep-failures", action="store_true", help="leave prompts that failed as they are")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="the MLflow store that knows the id (default: tracking.uri)"
    )
    options = parser.parse_args(arguments)
    with common.report_errors():
        common.handle_termination_signals()
        start = Path.cwd()
        directory = common.find_folder(options.run, options.tracking_uri)
        _change_to_working_dir(directory)
        common.log_into(directory)
        from runner import app  # here, so that --help and a wrong RUN answer at once

        result = app.resume(directory, keep_failures=options.keep_failures, start=start, observer=TerminalObserver())
        print_mlflow(result)
        sys.exit(result.exit_code)


def _change_to_working_dir(directory: Path) -> None:
    """Change to the folder that relative paths of the run's configuration start in."""
    working_dir = RunFolder(directory).read_manifest().working_dir
    try:
        os.chdir(working_dir)
    except OSError as error:
        log.warning("the run began in %s (%s): relative paths start here instead", working_dir, error.strerror)
