"""The messages between a run's process and its tracking worker: lines of JSON one way, commands the other."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

FINISH = "finish"
"""The command to the worker: the run has ended, publish its record."""


class State(StrEnum):
    """What a worker is doing, or how it ended."""

    STARTING = "starting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    OPEN = "open"
    PUBLISHING = "publishing"
    DONE = "done"
    UNREACHABLE = "unreachable"
    CRASHED = "crashed"


ENDED = (State.DONE, State.UNREACHABLE, State.CRASHED)
"""States in which the run does not wait for its worker.

A worker that is UNREACHABLE and has not opened its MLflow run tries the store again until a command comes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a worker.

    Attributes:
        state: the worker's.
        message: for the user, if something is wrong.
        traceback: of a defect, for the log.
    """

    state: State
    message: str = ""
    traceback: str = ""

    def to_line(self) -> str:
        """Return the report as one line of JSON, with its newline."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Report":
        """Return the report that `to_line` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "state": State(fields["state"])})
