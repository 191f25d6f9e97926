"""`python -m runner.compare RUN|SWEEP ...`: compares speed, cost and texts of runs."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli import common, terminal
from runner.cli.compose import compose_config
from runner.errors import TrackingError, UsageError
from runner.record.lock import is_running
from runner.record.relocate import absolute_uri

if TYPE_CHECKING:
    from runner.comparison.compare import Comparison

log = logging.getLogger(__name__)

_HELP = """\
RUN is the folder of a run, SWEEP that of a sweep. The MLflow id of a run or of a sweep's parent run works too.
Texts are compared prompt by prompt.

  python -m runner.compare outputs/sweeps/DATE/TIME_ID            a sweep again
  python -m runner.compare RUN RUN RUN --reference RUN            any runs, with a named reference
  python -m runner.compare SWEEP --json                           for scripts
  python -m runner.compare SWEEP --explain                        why answers differ: the margin behind each difference

Without --reference, the reference of a run is the run with the smallest batch among those with the same
model, generation parameters and prompts. Texts of other runs are not compared: the output lists what differs.

--explain loads the model of greedy local runs, and computes at the first token where two answers part how far
apart the two tokens were. A difference within what rounding moves is a near-tie; any other is unexplained: a bug.
The model is that of the record for runs that you began here and for embedded models, else that of --model.
Exit codes: 0 done, 1 a record is damaged, 2 the request was wrong.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the runs and sweeps of the command line."""
    options = _parse(arguments)
    with common.report_errors():
        paths = [common.find_folder(name, options.tracking_uri) for name in options.runs]
        reference = common.find_folder(options.reference, options.tracking_uri) if options.reference else None
        if options.model and not options.explain:
            raise UsageError(f"--model {str(options.model)!r} is for --explain: give both")
        compare(
            paths, reference=reference, output=options.output, as_json=options.json, explain=options.explain,
            model=options.model, publish=options.publish,
        )  # fmt: skip
        terminal.raise_if_output_lost()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runner.compare",
        description=__doc__,
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN|SWEEP", help="runs and sweeps to compare")
    parser.add_argument("--reference", metavar="RUN", help="the run to compare the others with")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="folder for page, data and plots (default: the sweep's, or a new one below outputs/comparisons/)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the comparison as JSON, for scripts; --output also writes the files"
    )
    parser.add_argument(
        "--explain", action="store_true", help="measure the margin behind every difference (local models)"
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        type=Path,
        help="with --explain: weights to use, a folder with safetensors",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write the comparison of a SWEEP to the store in its folder (default: only of a sweep that you ran, to "
        "the store of your configuration)",
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="the MLflow store of the ids (default: tracking.uri)")
    return parser.parse_args(arguments)


def compare(
    paths: Sequence[Path],
    *,
    reference: Path | None,
    output: Path | None,
    as_json: bool,
    explain: bool = False,
    model: Path | None = None,
    publish: bool = False,
) -> None:
    """Compare runs and sweeps, write the files and print the comparison.

    Args:
        paths: folders of runs and sweeps.
        reference: the folder of the run to compare with; None chooses.
        output: folder for the files; None is the sweep's, or a new one.
        as_json: print JSON instead of tables; files are then written only where `output` is given.
        explain, model: measure the margin behind every difference, with these weights instead of the recorded ones.
        publish: write the comparison of one sweep to the store that the sweep names, whoever ran it.

    Raises:
        UsageError: a folder is no run's and no sweep's, the reference is a sweep, or the files cannot be written.
    """
    from runner.cli import sweep
    from runner.cli.report import print_comparison
    from runner.comparison.load import folders, is_sweep  # here, so that --help answers at once
    from runner.comparison.present.json import as_data
    from runner.comparison.present.output import default_folder, write

    for path in paths:
        _end_if_abandoned(path)
    comparison = _compare([folder for path in paths for folder in folders(path)], reference, explain, model)
    is_one_sweep = len(paths) == 1 and is_sweep(paths[0])
    title = f"Sweep {paths[0].name}" if is_one_sweep else f"{len(comparison.runs)} runs"
    directory = output or (paths[0] if is_one_sweep else default_folder())
    files = None if as_json and output is None else write(comparison, directory, title=title)
    if as_json:
        terminal.print_json(as_data(comparison))
        return
    print_comparison(comparison, files, title=title)
    if is_one_sweep and files and _is_to_be_published(paths[0], publish):
        sweep.publish(paths[0], comparison, files)


def _end_if_abandoned(directory: Path) -> None:
    """End the parent run that a killed sweep of this user's has left running in the configured store."""
    from runner.tracking import sweep_run

    store = sweep_run.store_of(directory)
    if store is not None and _is_configured(store):
        try:
            if sweep_run.end_abandoned(directory):
                log.warning("the process of %s is gone: the sweep has ended in MLflow too", directory)
        except TrackingError as error:
            log.warning("MLflow may show %s as running: %s; compare it again later", directory, error)


def _is_configured(store: str) -> bool:
    """Return whether a store is that of the user's own configuration."""
    uris, here = (compose_config([]).tracking.uri, os.environ.get("MLFLOW_TRACKING_URI")), Path.cwd()
    return absolute_uri(store, here) in [absolute_uri(uri, here) for uri in uris if uri]


def _is_to_be_published(directory: Path, asked: bool) -> bool:
    """Return whether a sweep's comparison goes to MLflow: as asked for, or the user's own to the configured store.

    A sweep's folder names a store, to which MLflow would send the user's credentials, and a run in it. A sweep that
    still runs publishes its comparison itself.
    """
    from runner.tracking import sweep_run

    store = sweep_run.store_of(directory)
    if store is None:
        return False
    if is_running(directory):
        terminal.print_line("Not in MLflow: the sweep still runs, and publishes its comparison at its end")
        return False
    is_configured = _is_configured(store)
    if asked or (is_configured and sweep_run.is_own(directory)):
        return True
    reason = "that is not the store of your configuration" if not is_configured else "you did not run the sweep here"
    terminal.print_line(f"Not in MLflow: --publish writes the comparison to {store!r} ({reason})")
    return False


def _compare(folders: Sequence[Path], reference: Path | None, explain: bool, model: Path | None) -> "Comparison":
    from runner.comparison.compare import compare_folders
    from runner.comparison.explain_pairs import ExplainRequest
    from runner.comparison.loadable import check_weights

    weights = check_weights(model) if model else None
    one_run = _one_run(reference) if reference else None
    with terminal.progress_of("explaining differences") as on_progress:
        request = ExplainRequest(model=weights, on_progress=on_progress)
        return compare_folders(folders, reference=one_run, explain=request if explain else None)


def _one_run(reference: Path) -> Path:
    from runner.comparison.load import folders

    runs = folders(reference)
    if len(runs) > 1:
        raise UsageError(
            f"--reference {str(reference)!r} is a sweep of {len(runs)} runs: give the folder of one of them, such as "
            f"{runs[0]}"
        )
    return runs[0]
