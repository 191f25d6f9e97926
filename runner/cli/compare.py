"""`python -m runner.compare RUN|SWEEP ...`: what batching did to speed, cost and the text, run against run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from runner.cli import common, terminal
from runner.errors import UsageError

_HELP = """\
RUN is the folder of a run, SWEEP that of a sweep; or give the MLflow id of the run or the sweep's parent.
Runs are matched prompt by prompt.

  python -m runner.compare outputs/sweeps/DATE/TIME_ID            a sweep again
  python -m runner.compare RUN RUN RUN --reference RUN            any runs, against the one you name
  python -m runner.compare SWEEP --json                           for scripts

Without --reference, a run is compared with the one of its model, generation parameters and prompts
that has the smallest batch. Only such runs have their texts compared; of the others you are told
what differs. Exit codes: 0 done, 1 a record is damaged, 2 the request was wrong.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m runner.compare",
        description=__doc__,
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN|SWEEP", help="what to compare")
    parser.add_argument("--reference", metavar="RUN", help="the run to compare the others with")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="where page, data and plots go (default: the sweep, or outputs/comparisons/)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the comparison as JSON, for scripts; --output also writes the files"
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="the MLflow store that knows ids (else tracking.uri)")
    given = parser.parse_args(arguments)
    with common.report_errors():
        named = [common.find_folder(name, given.tracking_uri) for name in given.runs]
        reference = common.find_folder(given.reference, given.tracking_uri) if given.reference else None
        compare(named, reference=reference, output=given.output, as_json=given.json)


def compare(named: Sequence[Path], *, reference: Path | None, output: Path | None, as_json: bool) -> None:
    """Compare runs and sweeps by name, leave the files and print the outcome.

    Raises:
        UsageError: a name is no run's and no sweep's, or the files cannot be written.
    """
    from runner.cli import sweep
    from runner.cli.report import print_comparison
    from runner.comparison.compare import compare_folders  # here, so that --help answers at once
    from runner.comparison.load import folders, is_sweep
    from runner.comparison.present.json import as_data
    from runner.comparison.present.output import default_folder, write

    listed = [folder for name in named for folder in folders(name)]
    comparison = compare_folders(listed, reference=_one(folders(reference), reference) if reference else None)
    of_sweep = len(named) == 1 and is_sweep(named[0])
    title = f"Sweep {named[0].name}" if of_sweep else f"{len(comparison.runs)} runs"
    directory = output or (named[0] if of_sweep else default_folder())
    files = None if as_json and output is None else write(comparison, directory, title=title)
    if as_json:
        terminal.print_json(as_data(comparison))
        return
    print_comparison(comparison, files, title=title)
    if of_sweep and files:
        sweep.publish(named[0], comparison, files)


def _one(found: Sequence[Path], name: Path) -> Path:
    if len(found) > 1:
        raise UsageError(
            f"--reference {str(name)!r} is a sweep of {len(found)} runs: name one of them, such as {found[0]}"
        )
    return found[0]
