"""Finish an interrupted run, in its own folder and its own MLflow run: generates only prompts without an answer.

Failed prompts are generated again. With nothing left to generate, publishes to MLflow what MLflow does not have yet.
"""

import argparse
import sys
from collections.abc import Sequence

from runner.cli import common
from runner.cli.compose import parse_overrides
from runner.cli.foreign import ACCEPT_FLAG, refuse_foreign
from runner.cli.observer import TerminalObserver
from runner.record.folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> None:
    """Resume the run that the command line names, and exit with its code."""
    options = _parse(arguments)
    with common.report_errors():
        common.handle_termination_signals()
        overrides = parse_overrides(options.overrides)
        directory = common.find_folder(options.run, options.tracking_uri)
        folder = RunFolder(directory)
        folder.refuse_what_is_no_file()
        folder.read_manifest()
        common.log_into(directory)
        refuse_foreign(folder, accepted=options.accept_endpoint, changed=overrides.keys())
        from runner import app  # here, so that --help and a wrong RUN answer at once

        try:
            result = app.resume(
                directory,
                keep_failures=options.keep_failures,
                accept_changes=options.accept_endpoint,
                overrides=overrides,
                repair=options.repair,
                observer=TerminalObserver(),
            )
        except KeyboardInterrupt:
            common.print_resume_command(folder)
            raise
        sys.exit(result.exit_code)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runner.resume", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, or its MLflow run id")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="a limit, price, batch.size or tracking.uri for this process; no key of texts",
    )
    parser.add_argument("--keep-failures", action="store_true", help="do not generate failed prompts again")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="set damaged lines of outcomes.jsonl aside, and generate their prompts again",
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="the MLflow store of the run id (default: tracking.uri)")
    parser.add_argument(
        ACCEPT_FLAG,
        action="store_true",
        help="send to, load and run what another's folder names; go on where address or model changed",
    )
    return parser.parse_intermixed_args(arguments)
