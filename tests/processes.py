"""Our commands as real processes, forked from a server that has imported what they import.

`run` and `start` stand for `subprocess.run` and `subprocess.Popen` of `python -m ...`. A forked child has its own pid,
working directory, environment and standard streams, and it receives real signals. Only the imports, which cost seconds
in a cold start, have been done before. `cold=True` starts a new interpreter: for tests whose subject is the start.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

from tests.fork_server import CODE, Request, receive

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "runner.app", "runner.cli.main", "runner.cli.resume", "runner.cli.plan", "runner.cli.models", "runner.cli.compare",
    "runner.cli.report", "runner.cli.sweep", "hydra._internal.hydra", "hydra.core.utils", "hydra.core.override_parser",
    "runner.comparison.present.output", "runner.comparison.present.page", "runner.comparison.present.plots.catalog",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "jinja2",
    "runner.providers.echo", "runner.providers.openai", "openai", "aiohttp", "httpx2", "genai_prices", "runner.providers.bedrock", "boto3", "botocore.session",
)  # fmt: skip
LOCAL_MODELS = (*COMMANDS, "torch", "transformers", "transformers.models.llama", "accelerate", "gguf")


class Process:
    """A child of the server: what `subprocess.Popen` is to its own children, as far as tests need it.

    The streams are text where a pipe was asked for, else None.
    """

    def __init__(self, request: Request, status: socket.socket, pipes: Sequence[IO[str] | None]) -> None:
        self.args = list(request.arguments)
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._status = status
        self._readers: list[threading.Thread] = []
        (self.pid,) = CODE.unpack(receive(status, CODE.size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.join()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs for longer.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            (self.returncode,) = CODE.unpack(receive(self._status, CODE.size))
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends, wait for the process's end, and return the texts.

        Raises:
            subprocess.TimeoutExpired: it runs for longer.
        """
        until = None if timeout is None else time.monotonic() + timeout
        texts = {1: "", 2: ""}

        def read(number: int, stream: IO[str]) -> None:
            texts[number] = stream.read()

        self._readers = [
            threading.Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in ((1, self.stdout), (2, self.stderr))
            if stream is not None and not stream.closed
        ]
        if self.stdin is not None:
            self.stdin.close()
        for reader in self._readers:
            reader.start()
        for reader in self._readers:
            reader.join(None if until is None else max(0.0, until - time.monotonic()))
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        return texts[1], texts[2]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def start(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.PIPE,
    stderr: int | IO[Any] = subprocess.PIPE,
    ignored: Sequence[signal.Signals] = (),
    limits: Mapping[int, int] | None = None,
    new_session: bool = False,
    cold: bool = False,
    imports: tuple[str, ...] = COMMANDS,
) -> Process:
    """Start `python -m` with these arguments.

    Args:
        arguments: what follows `python -m`, such as `["runner", "provider=echo"]`.
        cwd: where.
        env: the whole environment; None is this process's.
        stdin: as of `subprocess.Popen`: PIPE, DEVNULL, STDOUT, a descriptor or a file.
        stdout: as `stdin`.
        stderr: as `stdin`.
        ignored: signals that are ignored, as under nohup. All others are as in a terminal.
        limits: soft resource limits, such as `{resource.RLIMIT_FSIZE: 25_000}`.
        new_session: give the child its own session and process group.
        cold: start a new interpreter.
        imports: what the server has imported; LOCAL_MODELS has torch too, and another server.
    """
    request = Request(
        arguments=list(arguments), cwd=str(cwd), env=dict(os.environ if env is None else env),
        ignored=[int(number) for number in ignored], limits=dict(limits or {}), new_session=new_session, cold=cold,
    )  # fmt: skip
    kept: list[IO[str] | None] = []
    given: list[int] = []
    to_close: list[int] = []
    for number, stream in enumerate((stdin, stdout, stderr)):
        pipe = None
        if stream == subprocess.PIPE:
            reader, writer = os.pipe()
            kept_end, given_end = (writer, reader) if number == 0 else (reader, writer)
            pipe = os.fdopen(kept_end, "w" if number == 0 else "r", encoding="utf-8", errors="replace")
            to_close.append(given_end)
        elif stream == subprocess.DEVNULL:
            given_end = os.open(os.devnull, os.O_RDWR)
            to_close.append(given_end)
        elif stream == subprocess.STDOUT:
            given_end = given[1]
        else:
            given_end = stream if isinstance(stream, int) else stream.fileno()
        kept.append(pipe)
        given.append(given_end)
    try:
        return Process(request, _server(imports).fork(request, given), kept)
    finally:
        for descriptor in to_close:
            os.close(descriptor)


def run(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    stderr: int = subprocess.PIPE,
    limits: Mapping[int, int] | None = None,
    cold: bool = False,
    imports: tuple[str, ...] = COMMANDS,
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m` with these arguments to its end, and return its exit code and what it printed.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds, and was killed.
    """
    with start(arguments, cwd=cwd, env=env, stderr=stderr, limits=limits, cold=cold, imports=imports) as process:
        try:
            output, errors = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class _Server:
    """The server's process, seen from the tests. It ends when this process closes the connection, or ends."""

    def __init__(self, imports: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno()), *imports],
                cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal of the tests is not for the server
            )  # fmt: skip
        atexit.register(self.close)

    def fork(self, request: Request, streams: Sequence[int]) -> socket.socket:
        """Ask for a child; return the socket that has its pid and then its exit code."""
        status, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"\0"], [*streams, theirs.fileno()])
        message = json.dumps(asdict(request)).encode()
        status.sendall(CODE.pack(len(message)) + message)
        return status

    def close(self) -> None:
        """End the server; its children go on."""
        self._control.close()
        self._process.wait()


@cache
def _server(imports: tuple[str, ...]) -> _Server:
    return _Server(imports)
