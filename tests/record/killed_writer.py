"""Writes outcomes and kills itself: `python -m tests.record.killed_writer FOLDER COUNT`."""

import os
import signal
import sys
from pathlib import Path

from runner.record.folder import RunFolder
from runner.record.writer import OutcomeWriter
from tests.factories import completion


def main(directory: str, count: str) -> None:
    """Append `count` outcomes, then end as if the machine's memory had run out."""
    folder = RunFolder(Path(directory))
    with OutcomeWriter(folder, resume=folder.outcomes.path.exists()) as writer:
        for number in range(int(count)):
            writer.append([completion(str(number))])
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
