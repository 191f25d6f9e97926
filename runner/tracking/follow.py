"""The process that tells MLflow of one run: `python -m runner.tracking.follow FOLDER`.

It is started by the run and told by it when the run has ended. The run itself never waits for MLflow, imports none of
it and shares no interpreter with it: what is measured stays clean, and a store that is slow or away costs nothing.
It says where it stands in lines of JSON on its standard output, and hears one word on its standard input.
"""

import json
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

from runner import runfiles
from runner.errors import RunnerError
from runner.tracking.run import open_run, publish
from runner.tracking.store import Store, store_errors

FINISH = "finish"
_RETRY_S = 10.0
"""How often a store that is away is tried again."""
_NICE = 10
"""The run comes first where cores are few."""

_LOCK = ".tracking.lock"

Say = Callable[..., None]


def follow(directory: Path, commands: "queue.SimpleQueue[str]", say: Say) -> None:
    """Open the run, wait for its end, and tell everything. Commands: FINISH, or "" when the run's process is gone."""
    run = None
    while True:
        run = run or _open(directory, say)
        try:
            command = commands.get(timeout=None if run else _RETRY_S)
        except queue.Empty:
            continue
        break
    if run is not None:
        _end(directory, *run, command, say)


def _open(directory: Path, say: Say) -> tuple[Store, str] | None:
    uri = str(runfiles.read_origin(directory).config["tracking"]["uri"])
    try:
        with store_errors(uri):  # from here on MLflow is imported: what takes time now is the store
            say("connecting")
            run = open_run(directory, answered=lambda: say("answered"))
    except RunnerError as error:
        say("away", message=str(error))
        return None
    say("open")
    return run


def _end(directory: Path, store: Store, run_id: str, command: str, say: Say) -> None:
    try:
        with store_errors(store.uri):
            if runfiles.read_summary(directory) is None:  # it was killed, or could not write it: a full disk, say
                store.client.set_terminated(run_id, "FAILED" if command == FINISH else "KILLED")
                say("away", message=f"MLflow was not told how the run ended: {directory} has no {runfiles.SUMMARY}")
                return
            for part in publish(store, run_id, directory):
                say("telling", part=part)
    except RunnerError as error:
        say("away", message=str(error))
    else:
        say("done")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time tell of a run: one that was not waited for may be at it when the run is resumed."""
    lock = FileLock(directory / _LOCK)
    with suppress(OSError, NotImplementedError):  # not every file system has locks
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _hear(lines: TextIO, commands: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        commands.put(line.strip())
    commands.put("")


def _say_to(run: TextIO) -> Say:
    def say(state: str, **more: str) -> None:
        with suppress(OSError):  # nobody listens any more; MLflow is told all the same
            run.write(json.dumps({"state": state, **more}) + "\n")
            run.flush()

    return say


def main() -> None:
    """Follow the run in the folder that is named."""
    say, sys.stdout = _say_to(sys.stdout), sys.stderr  # MLflow prints to standard output, which is the run's
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(sys.stdin, commands), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    try:
        with _alone(Path(sys.argv[1])):
            follow(Path(sys.argv[1]), commands, say)
    except Exception as error:
        say("broken", message=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
