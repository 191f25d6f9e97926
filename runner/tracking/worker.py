"""The process that publishes one run to MLflow: `python -m runner.tracking.worker FOLDER RETRY_S`.

The run starts it and tells it when the run has ended. The run itself never waits for MLflow, imports none of it and
shares no interpreter with it: what is measured is not disturbed, and a slow or unreachable store costs nothing.
Reports go to standard output, a line each; commands come from standard input.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from filelock import FileLock

from runner.errors import RunnerError
from runner.record.folder import SUMMARY, RunFolder
from runner.tracking.protocol import FINISH, Report, State
from runner.tracking.publish import open_run, publish
from runner.tracking.store import Store, store_errors

_NICE = 10
"""The run comes first where cores are few."""
_LOCK = ".tracking.lock"

Send = Callable[[Report], None]


def follow(folder: RunFolder, commands: "queue.SimpleQueue[str]", send: Send, *, retry_s: float) -> None:
    """Open the MLflow run, wait for the run's end, and publish. Commands: FINISH, or "" when the run's process is gone.

    Args:
        folder: the run's.
        commands: from the run's process.
        send: takes reports.
        retry_s: seconds between attempts to reach a store.
    """
    run = None
    while True:
        run = run or _open(folder, send)
        try:
            command = commands.get(timeout=None if run else retry_s)
        except queue.Empty:
            continue
        break
    if run is not None:
        _end(folder, *run, command, send)


def _open(folder: RunFolder, send: Send) -> tuple[Store, str] | None:
    uri = str(folder.read_manifest().config["tracking"]["uri"])
    try:
        with store_errors(uri):  # from here on MLflow is imported: what takes time now is the store
            send(Report(state=State.CONNECTING))
            run = open_run(folder, on_connected=lambda: send(Report(state=State.CONNECTED)))
    except RunnerError as error:
        send(Report(state=State.UNREACHABLE, message=str(error)))
        return None
    send(Report(state=State.OPEN))
    return run


def _end(folder: RunFolder, store: Store, run_id: str, command: str, send: Send) -> None:
    try:
        with store_errors(store.uri):
            if folder.read_summary() is None:  # killed, or it could not write one: a full disk, say
                store.client.set_terminated(run_id, "FAILED" if command == FINISH else "KILLED")
                message = f"MLflow does not know how the run ended: {folder.path} has no {SUMMARY}"
                send(Report(state=State.UNREACHABLE, message=message))
                return
            for _ in publish(store, run_id, folder):
                send(Report(state=State.PUBLISHING))
    except RunnerError as error:
        send(Report(state=State.UNREACHABLE, message=str(error)))
    else:
        send(Report(state=State.DONE))


@contextmanager
def _only_worker(folder: RunFolder) -> Iterator[None]:
    """Let one worker at a time publish a run: one that was not waited for may be at it when the run is resumed."""
    lock = FileLock(folder.path / _LOCK)
    with suppress(OSError, NotImplementedError):  # not every file system has locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _receive(lines: TextIO, commands: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        commands.put(line.strip())
    commands.put("")


def _sender(output: TextIO) -> Send:
    def send(report: Report) -> None:
        with suppress(OSError):  # nobody reads any more; the record is published all the same
            output.write(report.to_line())
            output.flush()

    return send


def main() -> None:
    """Publish the run in the folder that is named."""
    send, sys.stdout = _sender(sys.stdout), sys.stderr  # MLflow prints to standard output, which is the run's
    folder, retry_s = RunFolder(Path(sys.argv[1])), float(sys.argv[2])
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin, commands), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    try:
        with _only_worker(folder):
            follow(folder, commands, send, retry_s=retry_s)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        send(Report(state=State.CRASHED, message=message, traceback=traceback.format_exc()))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
