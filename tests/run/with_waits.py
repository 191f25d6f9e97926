"""Calls `app.run` with waits of its own: `python -m tests.run.with_waits WAITS FOLDER OVERRIDE...`, WAITS as JSON."""

import json
import sys
from pathlib import Path

from runner import app
from runner.cli.common import handle_termination_signals, log_into, report_errors
from runner.cli.compose import compose_config
from runner.cli.observer import TerminalObserver
from runner.config.waits import Waits


def main(waits: str, directory: str, *overrides: str) -> None:
    """Run, and exit with the run's code."""
    folder = Path(directory)
    folder.mkdir()
    handle_termination_signals()
    log_into(folder)
    with report_errors():
        config = compose_config(overrides)
        result = app.run(config, folder, waits=Waits(**json.loads(waits)), observer=TerminalObserver())
        sys.exit(result.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
