"""A run's own end of its tracking: starts the process that tells MLflow, and hears how far it is. Imports no mlflow."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner import runfiles
from runner.runfiles import Tracked, resume_command
from runner.tracking.address import is_server

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
"""How long one step of a slow store is waited for, once the run has ended."""
_UNHEARD_S = 5.0
"""How long a server is waited for that has not answered once: it may accept connections, and never answer."""
_SILENT_S = 1.0
"""How long the waiting needs no explanation."""
_LEAVE_S = 5.0
_ENDED = ("done", "away", "broken")


class Tracker:
    """Tells MLflow of the run in `directory`, in a process of its own. With `uri` None there is nothing to tell.

    That process tells what the folder says of the run's end, though this one may be gone by then; of a run that has not
    closed its record MLflow hears that it was killed. `python -m runner.resume` tells the rest.
    """

    def __init__(self, directory: Path, uri: str | None) -> None:
        self._directory, self.uri = directory, uri
        self._process: subprocess.Popen[str] | None = None
        self._hearing: threading.Thread | None = None
        self._said: Mapping[str, Any] = {"state": "starting"}
        self._heard_at = time.monotonic()
        self._changed = threading.Condition()
        self._explained = False

    def __enter__(self) -> Self:
        if self.uri is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runner.tracking.follow", str(self._directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the run, which then says what to tell
            )
            self._hearing = threading.Thread(target=self._hear, name="tracking", daemon=True)
            self._hearing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.stdin is None:
            return
        if isinstance(error, Exception):
            self.finish()
        with suppress(OSError):
            self._process.stdin.close()
        self._gone()

    @property
    def told(self) -> bool:
        """Whether MLflow has been told everything that there is to tell."""
        return self._process is None or self._said["state"] == "done"

    def opened(self) -> Tracked | None:
        """Return the MLflow run, waiting for it unless the store is away or never answered."""
        if self._process is None:
            return None
        self._wait_for(("open", "telling", *_ENDED))
        return runfiles.read_tracked(self._directory)

    def finish(self) -> None:
        """Have MLflow told what the folder holds, and wait for it as long as it goes on. `told` says how it went."""
        if self._process is None or self._process.stdin is None or self._said["state"] in _ENDED:
            return
        try:
            self._process.stdin.write("finish\n")
            self._process.stdin.flush()
        except OSError:  # it is gone; what it said last says why
            return
        self._wait_for(_ENDED)

    def _gone(self) -> None:
        """Have the process ended, if it is at its end; one that is still telling a slow store goes on by itself."""
        if self._process is not None and self._hearing is not None and self._said["state"] in _ENDED:
            if self._said["state"] == "away":
                self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_S)
            self._hearing.join(_LEAVE_S)

    def _wait_for(self, states: tuple[str, ...]) -> None:
        with self._changed:
            began_at = self._heard_at = time.monotonic()
            while self._said["state"] not in states:
                now = time.monotonic()
                if now - began_at >= _SILENT_S:
                    self._explain()
                left_s = self._heard_at + self._patience_s - now
                if left_s <= 0:
                    return
                self._changed.wait(left_s if self._explained else min(left_s, _SILENT_S))

    @property
    def _patience_s(self) -> float:
        return _UNHEARD_S if self._said["state"] == "connecting" and is_server(str(self.uri)) else _PATIENCE_S

    def _explain(self) -> None:
        if not self._explained:
            self._explained = True
            again = resume_command(self._directory)
            log.info("telling MLflow at %s (Ctrl-C leaves it to %s)", self.uri, again)

    def _hear(self) -> None:
        assert self._process is not None  # noqa: S101 - started in __enter__
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            said = json.loads(line)
            if said["state"] in ("away", "broken") and self._said["state"] != said["state"]:
                log.warning("%s. The run keeps its record in its folder", said["message"])
            if "traceback" in said:
                log.debug("%s", said["traceback"])
            self._note(said)
        self._process.stdout.close()
        if self._said["state"] not in _ENDED:
            self._note({"state": "broken", "message": "the process that tells MLflow ended early"})

    def _note(self, said: Mapping[str, Any]) -> None:
        with self._changed:
            self._said, self._heard_at = said, time.monotonic()
            self._changed.notify_all()
