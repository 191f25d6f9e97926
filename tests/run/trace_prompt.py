"""Runs `python -m runner` and traces the way of one prompt: `python -m tests.run.trace_prompt FILE OVERRIDE...`.

FILE has two call stacks as JSON, outermost first, each a list of our modules: `answer`, when the provider has made the
first answer, and `line`, when the writer writes the first line. Where the answer is made in a thread of its own, its
stack continues the main thread's, which waits for it.
"""

import itertools
import json
import runpy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import runner
from runner.types import Generated

_ROOT = Path(runner.__file__).parent
_WRITER = "record.writer"


class _Trace:
    """A profile function that notes the two stacks."""

    def __init__(self) -> None:
        self.stacks: dict[str, list[str]] = {}

    def __call__(self, frame: FrameType, event: str, function: object) -> None:
        if event == "call" and "answer" not in self.stacks and _is_answer(frame):
            self.stacks["answer"] = [*_waiting_stack(), *_stack(frame)]
        if event == "c_call" and "line" not in self.stacks and _is_line(frame, function):
            self.stacks["line"] = list(_stack(frame))


def _is_answer(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__init__" and type(frame.f_locals.get("self")) is Generated


def _is_line(frame: FrameType, function: object) -> bool:
    return getattr(function, "__name__", "") == "write" and _module(frame) == _WRITER


def _waiting_stack() -> list[str]:
    """Return the main thread's stack, unless the calling thread is the main thread."""
    main = threading.main_thread()
    return [] if threading.current_thread() is main else list(_stack(sys._current_frames()[main.ident or 0]))


def _stack(frame: FrameType | None) -> Iterator[str]:
    modules = []
    while frame is not None:
        if module := _module(frame):
            modules.append(module)
        frame = frame.f_back
    return (module for module, _ in itertools.groupby(reversed(modules)))


def _module(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(_ROOT):
        return None
    return path.relative_to(_ROOT).with_suffix("").as_posix().replace("/", ".")


def main(file: str, *overrides: str) -> None:
    """Run the command under the trace and write what was traced."""
    sys.argv[1:] = overrides
    trace = _Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        runpy.run_module("runner", run_name="__main__", alter_sys=True)
    finally:
        sys.setprofile(None)
        Path(file).write_text(json.dumps(trace.stacks), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
