"""The server behind `tests.processes`: imports once, forks a child for each request, and reports its exit code.

`python -m tests.fork_server SOCKET NAME...`, where NAMEs are imported first. A request is one byte on the socket with
four descriptors: the child's standard streams, and a socket that has the request as JSON and takes pid and exit code.
"""

import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CODE = struct.Struct("i")
"""A size, a pid or an exit code on a status socket."""
_READ_AT_START = ("PYTHON", "LC_", "LANG", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "OMP_", "MKL_", "OPENBLAS_", "MPL")
"""Variables that an interpreter or a library reads once. A child in which one of them differs is started cold."""
_DESCRIPTORS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a child is to be.

    Attributes:
        arguments: what follows `python -m`.
        ignored: signals that are ignored, as under nohup.
        limits: soft resource limits by their number.
        cold: start a new interpreter.
    """

    arguments: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    ignored: Sequence[int] = ()
    limits: Mapping[int, int] = field(default_factory=dict)
    new_session: bool = False
    cold: bool = False


def receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise RuntimeError("the fork server has ended: see its standard error")
        received += part
    return received


def _serve(control: socket.socket) -> Request | None:
    """Fork a child for each request. Returns the request in each child, and None in the server at its end."""
    wakeup, written = socket.socketpair()
    written.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    statuses: dict[int, socket.socket] = {}
    while True:
        readable, _, _ = select.select([control, wakeup], [], [])
        if wakeup in readable:
            wakeup.recv(4096)
            _report_ended(statuses)
        if control not in readable:
            continue
        _, descriptors, _, _ = socket.recv_fds(control, 1, _DESCRIPTORS)
        if not descriptors:
            return None
        *streams, last = descriptors
        status = socket.socket(fileno=last)
        (size,) = CODE.unpack(receive(status, CODE.size))
        request = Request(**json.loads(receive(status, size)))
        pid = _fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            _become(request, streams)
            for connection in (control, wakeup, written, status, *statuses.values()):
                connection.close()
            return request
        for descriptor in streams:
            os.close(descriptor)
        status.sendall(CODE.pack(pid))
        statuses[pid] = status


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's linear algebra has threads, and ends them in a fork by itself
        return os.fork()


def _report_ended(statuses: dict[int, socket.socket]) -> None:
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with statuses.pop(pid) as connection:
            try:
                connection.sendall(CODE.pack(os.waitstatus_to_exitcode(status)))
            except OSError:  # the test does not wait for it
                continue


def _become(request: Request, streams: Sequence[int]) -> None:
    """Turn this forked process into what a new interpreter of the request would be."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    for descriptor in set(streams) - {0, 1, 2}:
        os.close(descriptor)
    if request.new_session:
        os.setsid()
    os.chdir(request.cwd)
    _reset_signals(request.ignored)
    for limit, value in request.limits.items():
        resource.setrlimit(int(limit), (value, resource.getrlimit(int(limit))[1]))
    if request.cold or _read_at_start(os.environ) != _read_at_start(request.env):
        os.execve(sys.executable, [sys.executable, "-m", *request.arguments], dict(request.env))  # noqa: S606
    os.environ.clear()
    os.environ.update(request.env)
    time.tzset()
    sys.path[0] = request.cwd
    _open_streams()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()


def _reset_signals(ignored: Sequence[int]) -> None:
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored_number in ignored:
        signal.signal(ignored_number, signal.SIG_IGN)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


def _open_streams() -> None:
    """Open the standard streams anew: whether they are terminals decides how they are buffered."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        old = getattr(sys, f"__{name}__")
        line_buffered = mode == "w" and (number == 2 or os.isatty(number))
        new = open(  # noqa: SIM115 - a standard stream
            number, mode, buffering=1 if line_buffered else -1, encoding=old.encoding, errors=old.errors, closefd=False
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _import(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from runner.config.schema import CONF_DIR

    with initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="runner"):
        compose("config", ["provider=echo"])  # finds Hydra's plugins, builds its parser's tables
    GlobalHydra.instance().clear()
    gc.collect()
    gc.freeze()  # the children write to no page of these objects


if __name__ == "__main__":
    _import(sys.argv[2:])
    if (child := _serve(socket.socket(fileno=int(sys.argv[1])))) is None:
        sys.exit()
    module, *sys.argv[1:] = child.arguments
    del child
    runpy.run_module(module, run_name="__main__", alter_sys=True)
