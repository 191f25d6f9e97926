"""Owns the terminal: progress, tables, messages. Shows texts of models and files as plain text."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import IO, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from runner.errors import RunnerError
from runner.metrics.definitions import format_metric
from runner.text import one_line, strip_control
from runner.types import Completion, Outcome

log = logging.getLogger(__name__)


class _Console(Console):
    """A console that stops printing when its pipe is closed or its terminal hangs up.

    The run continues. Rich's own console would end the process.
    """

    def on_broken_pipe(self) -> None:
        """Stop printing."""
        self.quiet = True
        discard(self.file)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                _lost_output.append(str(error.strerror))
            self.on_broken_pipe()


_lost_output: list[str] = []
"""Why standard output or standard error could not be written; a reader that is gone has read enough."""


_bars: list[Progress] = []
"""The progress that is shown now."""


def confirm(question: str) -> bool:
    """Ask a person at the terminal; return whether the answer is yes. Without a terminal, nobody is asked."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    for bar in _bars:
        bar.stop()  # which would be drawn over the answer
    _stderr.print(question, end="", markup=False, highlight=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def raise_if_output_lost() -> None:
    """End a command whose purpose is its output, if the output could not be written.

    Raises:
        RunnerError: a disk is full, say.
    """
    if _lost_output:
        raise RunnerError(f"the output cannot be written: {_lost_output[0]}: make room, or write to another place")


def discard(stream: IO[str]) -> None:
    """Send a stream whose reader is gone to /dev/null. Else the interpreter fails to flush the stream at its end."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as devnull:  # noqa: PTH123 - no file
        os.dup2(devnull.fileno(), stream.fileno())


_stderr = _Console(stderr=True)
"""One console for progress and messages, so that neither overwrites the other."""

_REDRAW_S = 0.2
"""Between two redraws of the bar."""
_HEARTBEAT_S = 30.0
"""Between two lines of progress in the log. Only without a terminal."""


class LogHandler(logging.Handler):
    """Prints the runner's log messages on the console of the progress bar; a traceback goes to runner.log only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message, unwrapped, so that it can be searched for."""
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        with suppress(RuntimeError):  # a signal handler logs while another message is printed: runner.log has both
            _stderr.print(Text(level + strip_control(record.getMessage())), soft_wrap=True)


class LogFile(logging.FileHandler):
    """Writes runner.log. A full disk causes no traceback here: the record reports it.

    Text from elsewhere commands no terminal that shows the file, and begins no line of its own: lines that continue a
    message are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the message without control characters, its further lines indented."""
        return strip_control(super().format(record)).replace("\n", "\n    ")

    def _open(self) -> TextIOWrapper:
        """Open the file itself: a link in its place is not followed, and a pipe without a reader is not waited for."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        return TextIOWrapper(
            os.fdopen(os.open(self.baseFilename, flags, 0o666), "ab"), encoding=self.encoding, errors=self.errors
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Ignore a file that cannot be written. Any other error is a defect, and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def print_error(message: str) -> None:
    """Print one message to stderr, unwrapped, so that it can be searched for."""
    _stderr.print(Text(f"error: {strip_control(message)}"), soft_wrap=True)


@contextmanager
def progress(total: int, *, completed: int) -> Iterator["Ticker"]:
    """Show prompts completed, tokens per second and the time left; without a terminal, show nothing.

    Args:
        total: prompts in the set.
        completed: of them, those that were completed before.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(
        *columns, console=_stderr, disable=not _stderr.is_terminal, transient=True, refresh_per_second=4
    ) as bar:
        _bars.append(bar)
        try:
            yield Ticker(bar, total, completed)
        finally:
            _bars.remove(bar)


@contextmanager
def progress_of(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of how many are done, as the yielded function is called with; without a terminal, show nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_stderr, disable=not _stderr.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class Ticker:
    """Counts outcomes for the progress bar, or for regular lines in the log."""

    def __init__(self, bar: Progress, total: int, completed: int) -> None:
        self._bar, self._total = bar, total
        self._task = bar.add_task("generating", total=total, completed=completed, rate="")
        self._start = time.monotonic()
        self._next_draw = self._start
        self._done, self._tokens = completed, 0
        self._next_log = self._start + _HEARTBEAT_S

    def tick(self, outcomes: Sequence[Outcome]) -> None:
        """Count a call's outcomes. The bar is redrawn at most five times a second."""
        self._done += sum(outcome.choice == 0 for outcome in outcomes)
        usages = [outcome.usage for outcome in outcomes if isinstance(outcome, Completion)]
        self._tokens += sum(usage.output_tokens for usage in usages if usage is not None)
        now = time.monotonic()
        if now >= self._next_draw or self._done == self._total:
            self._next_draw = now + _REDRAW_S
            self._show(self._tokens / max(now - self._start, 1e-9), now)

    def _show(self, rate: float, now: float) -> None:
        if not self._bar.disable:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f} tokens/s")
        elif now >= self._next_log:
            self._next_log = now + _HEARTBEAT_S
            log.info("%d of %d prompts, %.0f output tokens/s", self._done, self._total, rate)


def print_samples(outcomes: Iterable[Outcome]) -> None:
    """Print the beginnings of a few answers, a line each."""
    console = _Console()
    for outcome in outcomes:
        text = outcome.text if isinstance(outcome, Completion) else f"({outcome.error.message})"
        line = Text.assemble((strip_control(outcome.prompt_id), "bold"), "  ", one_line(strip_control(text)))
        console.print(line, no_wrap=True, overflow="ellipsis")


def print_metrics(title: str, metrics: Mapping[str, float]) -> None:
    """Print a run's metrics as a table, in their given order."""
    table = Table(title=_line(title), title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, value in metrics.items():
        table.add_row(Text(strip_control(name)), Text(format_metric(name, value), justify="right"))
    _Console().print(table)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int) -> None:
    """Print a table of texts. The first `text_columns` columns are left-aligned, the others right-aligned."""
    console = _Console()
    if not console.is_terminal:
        console.width = 100
    widths = (max(map(len, cells)) for cells in zip(columns, *rows, strict=True))
    gap = 2 if sum(width + 2 for width in widths) <= console.width else 1
    table = Table(title=_line(title), title_justify="left", box=None, header_style="bold")
    table.padding = (0, gap, 0, 0)
    for index, name in enumerate(columns):
        justify: Literal["left", "right"] = "left" if index < text_columns else "right"
        table.add_column(Text(strip_control(name)), justify=justify, vertical="bottom", overflow="fold")
    for row in rows:
        table.add_row(*(Text(strip_control(cell)) for cell in row))
    console.print(table)


def _line(text: str) -> Text:
    return Text(one_line(strip_control(text)), style="bold")


def print_json(value: object) -> None:
    """Print a value as JSON, without markup."""
    _Console().out(json.dumps(value, indent=2), highlight=False)


def print_line(text: str) -> None:
    """Print one line to stdout, unwrapped."""
    _Console().print(Text(strip_control(text)), soft_wrap=True)
