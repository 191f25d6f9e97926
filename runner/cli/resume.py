"""Finish an interrupted run, in its own folder and its own MLflow run: generates only prompts without an answer.

Failed prompts are generated again. With nothing left to generate, publishes to MLflow what MLflow does not have yet.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.cli import common
from runner.cli.compose import parse_overrides
from runner.cli.observer import TerminalObserver
from runner.record.folder import RunFolder

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Resume the run that the command line names, and exit with its code."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or its MLflow run id")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="a limit, price or batch.size for this process; no key of texts",
    )
    parser.add_argument("--keep-failures", action="store_true", help="do not generate failed prompts again")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="set damaged lines of outcomes.jsonl aside, and generate their prompts again",
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="the MLflow store of the run id (default: tracking.uri)")
    options = parser.parse_intermixed_args(arguments)
    with common.report_errors():
        common.handle_termination_signals()
        overrides = parse_overrides(options.overrides)
        start = Path.cwd()
        directory = common.find_folder(options.run, options.tracking_uri)
        _change_to_working_dir(directory)
        common.log_into(directory)
        from runner import app  # here, so that --help and a wrong RUN answer at once

        try:
            result = app.resume(
                directory,
                keep_failures=options.keep_failures,
                overrides=overrides,
                repair=options.repair,
                start=start,
                observer=TerminalObserver(),
            )
        except KeyboardInterrupt:
            common.print_resume_command(RunFolder(directory, start))
            raise
        sys.exit(result.exit_code)


def _change_to_working_dir(directory: Path) -> None:
    """Change to the run's working directory, in which relative paths of its configuration start."""
    working_dir = RunFolder(directory).read_manifest().working_dir
    try:
        os.chdir(working_dir)
    except OSError as error:
        log.warning(
            "the run's working directory %s cannot be entered (%s): relative paths start in the present one; "
            "create it, or resume where the paths exist",
            working_dir,
            error.strerror,
        )
