"""Finish an interrupted run, in its own folder and its own MLflow run: generates only what has no answer yet.

Failed prompts are tried again. With nothing left to generate, MLflow is told what it missed.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner import commands, runfiles
from runner.commandline import heed_termination, one_message

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
    given = parser.parse_args(arguments)
    with one_message():
        heed_termination()
        directory = commands.find_folder(given.run, given.tracking_uri)
        _go_where_it_began(directory)
        commands.log_into(directory)
        from runner import app  # here, so that --help and a wrong RUN answer at once

        sys.exit(app.resume(directory, keep_failures=given.keep_failures).exit_code)


def _go_where_it_began(directory: Path) -> None:
    """Change to the folder that relative paths of the run's configuration start in."""
    began_in = runfiles.read_origin(directory).working_dir
    try:
        os.chdir(began_in)
    except OSError as error:
        log.warning("the run began in %s (%s): relative paths start here instead", began_in, error.strerror)


if __name__ == "__main__":
    main()
