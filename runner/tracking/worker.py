"""The process that publishes one run to MLflow: `python -m runner.tracking.worker FOLDER URI RETRY_S MAX_PUBLISH_S`.

The run starts the worker and sends FINISH when the run has ended. The run's process never waits for MLflow while
prompts are generated, and imports none of it: MLflow disturbs no measurement, and a slow or unreachable store costs
nothing. Reports go to standard output, a line each; commands come from standard input.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from filelock import FileLock

from runner.errors import RunnerError
from runner.record.folder import SUMMARY, WORKER_LOCK, RunFolder
from runner.tracking import sweep_run
from runner.tracking.protocol import FINISH, Report, State
from runner.tracking.publish import open_run, publish
from runner.tracking.store import StoreRun, store_errors

_NICE = 10
"""The run comes first where cores are few."""
_RUN_IS_GONE = ""
"""Stands for a command when standard input has ended."""

Send = Callable[[Report], None]


def publish_when_ended(
    folder: RunFolder, uri: str, commands: "queue.SimpleQueue[str]", send: Send, *, retry_s: float
) -> None:
    """Open the MLflow run, wait for the run's end, and publish the record.

    Args:
        folder: the run's.
        uri: of the store.
        commands: from the run's process.
        send: takes reports.
        retry_s: seconds between attempts to reach a store.
    """
    run = None
    while True:
        run = run or _open(folder, uri, send)
        try:
            command = commands.get(timeout=None if run else retry_s)
        except queue.Empty:
            continue
        break
    if run is not None:
        _publish(folder, run, command, send)


def _open(folder: RunFolder, uri: str, send: Send) -> StoreRun | None:
    try:
        with store_errors(uri):  # which imports MLflow: what takes time from here on is the store
            send(Report(state=State.CONNECTING))
            run = open_run(folder, uri, on_connected=lambda: send(Report(state=State.CONNECTED)))
    except RunnerError as error:
        send(Report(state=State.UNREACHABLE, message=str(error)))
        return None
    send(Report(state=State.OPEN))
    return run


def _publish(folder: RunFolder, run: StoreRun, command: str, send: Send) -> None:
    try:
        with store_errors(run.store.uri):
            if folder.read_summary() is None:  # the run was killed, or could not write its summary: a full disk, say
                run.store.client.set_terminated(run.run_id, "FAILED" if command == FINISH else "KILLED")
                sweep_run.end_if_abandoned(folder, run.store)
                message = f"how the run ended is not in MLflow: {folder.path} has no {SUMMARY}: resume the run"
                send(Report(state=State.UNREACHABLE, message=message))
                return
            publish(run, folder, on_progress=lambda: send(Report(state=State.PUBLISHING)))
            sweep_run.end_if_abandoned(folder, run.store)
    except RunnerError as error:
        send(Report(state=State.UNREACHABLE, message=str(error)))
    else:
        send(Report(state=State.DONE))


def _receive(lines: TextIO, commands: "queue.SimpleQueue[str]", max_publish_s: float) -> None:
    """Put the run's commands into the queue. From the first on, a store has limited time: this process ends with it."""
    for line in lines:
        commands.put(line.strip())
        _end_after(max_publish_s)
    commands.put(_RUN_IS_GONE)
    _end_after(max_publish_s)


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _send(output: TextIO, report: Report) -> None:
    with suppress(OSError):  # the run's process is gone; the record is published all the same
        output.write(report.to_line())
        output.flush()


def main() -> None:
    """Publish the run in the folder that the command line names."""
    send, sys.stdout = partial(_send, sys.stdout), sys.stderr  # MLflow prints to standard output, which is the run's
    folder, uri = RunFolder(Path(sys.argv[1])), sys.argv[2]
    retry_s, max_publish_s = float(sys.argv[3]), float(sys.argv[4])
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin, commands, max_publish_s), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    lock = FileLock(folder.path / WORKER_LOCK)  # the worker of the run's earlier process may still publish
    try:
        with suppress(OSError, NotImplementedError):  # not every file system has locks
            lock.acquire()
        publish_when_ended(folder, uri, commands, send, retry_s=retry_s)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        send(Report(state=State.CRASHED, message=message, traceback=traceback.format_exc()))
        raise SystemExit(1) from None
    finally:
        lock.release()


if __name__ == "__main__":
    main()
