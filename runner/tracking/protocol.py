"""What the run's process and its tracking worker say to each other, in lines of JSON."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

FINISH = "finish"
"""The run's command to its worker: the run has ended, publish its record."""


class State(StrEnum):
    """How far a worker is."""

    STARTING = "starting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    OPEN = "open"
    PUBLISHING = "publishing"
    DONE = "done"
    UNREACHABLE = "unreachable"
    CRASHED = "crashed"


ENDED = (State.DONE, State.UNREACHABLE, State.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a worker.

    Attributes:
        state: how far it is.
        message: what a person should know, where something is wrong.
        traceback: of a defect, for the log.
    """

    state: State
    message: str = ""
    traceback: str = ""

    def to_line(self) -> str:
        """Return it as one line, with its end."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Report":
        """Return what `to_line` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "state": State(fields["state"])})
