"""`run` and `resume` of the library, whose workers are forked from a server that has imported MLflow.

A worker is a process as in `runner.tracking.publisher`. Only its cold start, which costs seconds, is saved.
"""

import subprocess
from functools import partial
from pathlib import Path
from typing import cast

from runner import app
from runner.config.waits import Waits
from runner.record.folder import RunFolder
from tests import processes

WORKER = ("tests.tracking.worker_imports",)


def start_worker(folder: RunFolder, uri: str, waits: Waits) -> "subprocess.Popen[str]":
    """Fork the worker of a folder."""
    process = processes.start(
        ["runner.tracking.worker", str(folder.path), uri, str(waits.store_retry_s), str(waits.worker_s)], cwd=Path.cwd(),
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, new_session=True, imports=WORKER,
    )  # fmt: skip
    return cast("subprocess.Popen[str]", process)


run = partial(app.run, start_worker=start_worker)
resume = partial(app.resume, start_worker=start_worker)
