"""Exceptions that nobody foresaw in a call of a local model: its prompts fail; where that recurs, the run ends."""

import logging
from collections.abc import Iterable, Sequence

from runner.dispatch.stop import Stopped
from runner.errors import RunnerError, UnforeseenError
from runner.text import excerpt, first_line
from runner.types import ErrorInfo, Generated, Prompt, Stopwatch

log = logging.getLogger(__name__)

_MAX_IN_ROW = 3
"""If so many calls in a row raise the same class of exception, their prompts are not the reason."""


class UnforeseenErrors:
    """The calls of one run, one after another, and how many of them in a row have raised.

    Args:
        model_id: the model that a failure is recorded for.
    """

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._type, self._message, self._in_row = "", "", 0

    def call(
        self, results: Iterable[tuple[Prompt, Generated]], prompts: Iterable[Prompt]
    ) -> Sequence[tuple[Prompt, Generated]]:
        """Return the results of one call; of one that raises, a failure for each of its prompts.

        Args:
            results: makes the call while it is iterated over.
            prompts: those of the call, read once it has raised.

        Raises:
            RunnerError: the call's own, which ends the run.
            Stopped: no further request is to leave.
            MemoryError: this process has no memory left.
        """
        watch = Stopwatch()
        try:
            finished = list(results)
        except (RunnerError, Stopped, MemoryError):
            raise
        except Exception as error:
            if not (failed := list(prompts)):
                raise  # no prompt was taken: there is nothing to go on with
            return self._failures(error, failed, watch)
        if finished:  # a continuous call that has raised ends without a result
            self._in_row = 0
        return finished

    def raise_if_recurring(self) -> None:
        """Raise UnforeseenError once several calls in a row have failed in the same way."""
        if self._in_row >= _MAX_IN_ROW:
            raise UnforeseenError(
                f"stopped: {self._in_row} batches in a row failed with {self._type}: {self._message}; "
                "runner.log has the traceback. Remove the reason, and resume the run"
            )

    def _failures(
        self, error: Exception, prompts: Sequence[Prompt], watch: Stopwatch
    ) -> list[tuple[Prompt, Generated]]:
        log.warning("%d prompts failed in a way that nobody foresaw", len(prompts), exc_info=error)
        name, self._message = type(error).__name__, excerpt(first_line(error))
        self._type, self._in_row = name, self._in_row + 1 if name == self._type else 1
        info = ErrorInfo(type=name, message=f"{self._message}; runner.log has the traceback", retryable=False)
        failure = Generated(model=self._model_id, timing=watch.stop(), error=info)
        return [(prompt, failure) for prompt in prompts]
