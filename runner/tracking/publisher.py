"""The run's side of tracking: starts the worker that publishes to MLflow, and reads its reports. Imports no mlflow."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.config.waits import Waits
from runner.record.folder import RunFolder
from runner.record.manifest import MlflowRunRef
from runner.tracking.protocol import ENDED, FINISH, Report, State
from runner.tracking.uri import is_server

log = logging.getLogger(__name__)

_MAX_UNEXPLAINED_S = 1.0
"""How long the run waits for MLflow without a message."""
_ROOT = Path(__file__).resolve().parents[2]
"""The folder that has our own package."""
_EXIT_S = 5.0
"""How long a worker that has reported its end may take to exit."""


def start_worker(folder: RunFolder, uri: str, waits: Waits) -> "subprocess.Popen[str]":
    """Start the worker of a folder: commands go to its standard input, reports come from its standard output.

    The worker imports nothing from the working directory, which may have files from elsewhere.
    """
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "runner.tracking.worker"),
            *(str(folder.path), uri, str(waits.store_retry_s), str(waits.worker_s)),
        ],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the run, which then decides what to publish
    )


StartWorker = Callable[[RunFolder, str, Waits], "subprocess.Popen[str]"]


def _environment() -> Mapping[str, str]:
    """Return the environment, in which a package that was found on a path of this process alone is found as well."""
    root = str(_ROOT)
    if _ROOT.name in ("site-packages", "dist-packages") or root not in map(os.path.abspath, sys.path):
        return os.environ
    paths = [path for path in (root, os.environ.get("PYTHONPATH")) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class RunPublisher:
    """Publishes a run to MLflow in a process of its own. With `uri` None there is nothing to publish.

    The worker publishes the run's end from its folder even if this process is gone by then; a run that has not closed
    its record is KILLED in MLflow. `python -m runner.resume` publishes the rest.

    Args:
        folder: the run's.
        uri: of the MLflow store.
        waits: how long to wait for a slow store.
        start: starts the worker.
    """

    def __init__(self, folder: RunFolder, uri: str | None, waits: Waits, *, start: StartWorker = start_worker) -> None:
        self._folder, self._uri, self._waits, self._start = folder, uri, waits, start
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._report = Report(state=State.STARTING)
        self._reported_at = time.monotonic()
        self._changed = threading.Condition()
        self._explained = False
        self._warned_of: State | None = None
        self._ends_at: float | None = None

    def __enter__(self) -> Self:
        if self._uri is not None:
            self._process = self._start(self._folder, self._uri, self._waits)
            arguments = (self._process,)
            self._reader = threading.Thread(target=self._read_reports, args=arguments, name="tracking", daemon=True)
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker if it has nothing left to do; one that still publishes to a slow store goes on by itself."""
        if self._process is None or self._process.stdin is None or self._reader is None:
            return
        if isinstance(error, Exception):
            self.finish()
        with suppress(OSError):
            self._process.stdin.close()
        if self._report.state in ENDED:
            if self._report.state == State.UNREACHABLE:
                self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_S)
            self._reader.join(_EXIT_S)

    @property
    def is_published(self) -> bool:
        """Whether MLflow has everything that it is to have."""
        return self._process is None or self._report.state == State.DONE

    def wait_until_open(self) -> MlflowRunRef | None:
        """Return the MLflow run, waiting for it unless the store is unreachable."""
        if self._process is None:
            return None
        self._wait_for((State.OPEN, State.PUBLISHING, *ENDED))
        return self._folder.read_mlflow_run()

    def finish(self) -> None:
        """Request that the record is published, and wait while the worker reports progress; see `is_published`."""
        if self._process is None or self._process.stdin is None or self._report.state in ENDED:
            return
        try:
            self._process.stdin.write(f"{FINISH}\n")
            self._process.stdin.flush()
        except OSError:  # the worker is gone; its last report says why
            return
        self._wait_for(ENDED)

    def _wait_for(self, states: Collection[State]) -> None:
        with self._changed:
            start = self._reported_at = time.monotonic()
            self._ends_at = self._ends_at or start + self._waits.publish_whole_s
            while self._report.state not in states:
                now = time.monotonic()
                if now - start >= _MAX_UNEXPLAINED_S and not self._explained:
                    self._explained = True
                    command = self._folder.resume_command
                    log.info("publishing to MLflow at %s (Ctrl-C leaves it to %s)", self._uri, command)
                left_s = min(self._reported_at + self._max_silence_s, self._ends_at) - now
                if left_s <= 0:
                    self._ends_at = now  # a store that hung is waited for once
                    return
                self._changed.wait(left_s if self._explained else min(left_s, _MAX_UNEXPLAINED_S))

    @property
    def _max_silence_s(self) -> float:
        is_unanswered = self._report.state == State.CONNECTING and is_server(str(self._uri))
        return self._waits.connect_s if is_unanswered else self._waits.publish_s

    def _read_reports(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe
        for line in process.stdout:
            report = Report.from_line(line)
            if report.message and report.state != self._warned_of:  # an unreachable store is tried again and again
                log.warning("%s. The run folder keeps the record", report.message)
            if report.message or report.state == State.OPEN:
                self._warned_of = report.state
            if report.traceback:
                log.debug("%s", report.traceback)
            self._set(report)
        process.stdout.close()
        if self._report.state not in ENDED:
            log.warning("the process that publishes to MLflow ended early. The run folder keeps the record")
            self._set(Report(state=State.CRASHED))

    def _set(self, report: Report) -> None:
        with self._changed:
            self._report, self._reported_at = report, time.monotonic()
            self._changed.notify_all()
