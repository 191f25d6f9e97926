"""`python -m runner` as a process, against a server, that a test sends signals to."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from runner.config.waits import Waits
from tests import processes
from tests.servers.openai_server import OpenAIServer


class Running:
    """A run of `provider=openai` whose requests the server counts.

    Args:
        folder: where the command is given.
        server: what it sends to.
        arguments: overrides.
        stdout: as of `processes.start`.
        stderr: as of `processes.start`.
        ignored: signals that the process ignores, as under nohup.
        waits: shorter waits than the product's; the run is then called as a library's, and its folder is `r`.

    Attributes:
        messages: what the process has printed to standard error, as far as it was read.
    """

    def __init__(
        self, folder: Path, server: OpenAIServer, *arguments: str,
        stdout: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE, ignored: Sequence[signal.Signals] = (),
        waits: Waits | None = None,
    ) -> None:  # fmt: skip
        command = ["runner"] if waits is None else ["tests.run.with_waits", json.dumps(asdict(waits)), "r"]
        self.server = server
        self.process = processes.start(
            [*command, *arguments, "provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4"],
            cwd=folder, env=os.environ | {"OPENAI_API_KEY": "planted"}, stdout=stdout, stderr=stderr, ignored=ignored,
        )  # fmt: skip
        self.messages = ""

    def wait_for_requests(self, count: int) -> None:
        """Wait until the server has had so many requests."""
        while len(self.server.asked) < count:
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.005)

    def wait_for_message(self, text: str) -> None:
        """Wait until standard error has a line with this text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages += line
            if text in line:
                return
        raise AssertionError(self.messages)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        _, rest = self.process.communicate(timeout=25)
        self.messages += rest
        assert "Traceback" not in self.messages
        assert self.process.returncode is not None
        return self.process.returncode
