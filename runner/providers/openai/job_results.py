"""Reads the results of a batch job of OpenAI's API: lines of JSON in any order, each the response to one request."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.providers.errors import FATAL, CallError
from runner.providers.openai.answers import AnswerReader
from runner.providers.openai.client import Client
from runner.providers.openai.endpoints import Endpoint
from runner.providers.openai.errors import error_of_result
from runner.providers.openai.stream import ChoicesMissing
from runner.providers.protocols import JobResult
from runner.providers.responses import shape_errors
from runner.text import excerpt
from runner.types import ErrorInfo, Generated, Timing

log = logging.getLogger(__name__)

_NOT_EXECUTED = ("batch_expired", "batch_cancelled")
"""Codes of requests that the service did not come to before the job ended."""


@dataclass(slots=True, kw_only=True)
class JobResultReader:
    """Reads lines of a job's files.

    Attributes:
        client: redacts secrets in errors.
        endpoint: of the job's requests.
        answers: makes answers of choices.
        count: answers to a prompt.
        timing: of every prompt of the job.
        unreadable: lines that are no result, by their number in the file.
    """

    client: Client
    endpoint: Endpoint
    answers: AnswerReader
    count: int
    timing: Timing
    unreadable: dict[int, str] = field(default_factory=dict)

    def read(self, lines: Iterable[bytes | None], file_id: str) -> Iterator[JobResult]:
        """Yield the results of a file's lines, and warn of lines that are none.

        Args:
            lines: without their ends; None stands for one that is too long.
            file_id: for the warning.
        """
        self.unreadable.clear()
        for number, line in enumerate(lines, start=1):
            if line is None:
                self.unreadable[number] = "it is longer than generation.max_tokens can need"
            elif line.strip() and (result := self._result(number, line)) is not None:
                yield result
        if self.unreadable:
            number, reason = next(iter(self.unreadable.items()))
            log.warning("file %s: %d lines are no results and are skipped; line %d: %s", file_id,
                        len(self.unreadable), number, reason)  # fmt: skip

    def _result(self, number: int, line: bytes) -> JobResult | None:
        """Return a line's result; None for a line without one."""
        try:
            values = json.loads(line)
            custom_id = values["custom_id"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.unreadable[number] = excerpt(str(error) or type(error).__name__)
            return None
        if not isinstance(custom_id, str):
            self.unreadable[number] = "its custom_id is no text"
            return None
        refusal = values.get("error")
        is_executed = not (isinstance(refusal, Mapping) and refusal.get("code") in _NOT_EXECUTED)
        return JobResult(custom_id=custom_id, generated=self._generated(custom_id, values) if is_executed else None)

    def _generated(self, custom_id: str, values: Mapping[str, Any]) -> Generated:
        try:
            with self.client.errors(self.answers.model_id), shape_errors():
                choices = self.endpoint.read_whole(self.endpoint.response(_body(values)), self.count)
                return self.answers.generated(custom_id, choices, choices[0].request_usage, self.timing)
        except ChoicesMissing as error:
            return self._failed(CallError("AnswersMissing", f"{error}: set generation.n=1", FATAL))
        except CallError as error:
            return self._failed(error)

    def _failed(self, error: CallError) -> Generated:
        """Return the failure of a request; one whose answer cannot be read may be billed."""
        info = ErrorInfo(type=error.type, message=error.message, retryable=error.policy.retryable)
        return Generated(
            model=self.answers.model_id, timing=self.timing, error=info, lost_answers=int(not error.policy.not_billed)
        )


def _body(values: Mapping[str, Any]) -> Any:
    """Return the body of a result's response.

    Raises:
        CallError: the request was answered with an error, or not at all.
    """
    response = values.get("response")
    if not isinstance(response, Mapping):
        raise error_of_result(None, values.get("error"))
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        error = body.get("error", body) if isinstance(body, Mapping) else body
        raise error_of_result(status if isinstance(status, int) else None, error or values.get("error"))
    return body


def read_lines(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes | None]:
    """Yield the lines of a stream of bytes without their ends; None for a line of more than `max_bytes`.

    At most a line and a piece are in memory.
    """
    line, is_too_long = bytearray(), False
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            is_too_long = is_too_long or len(line) + len(end) > max_bytes
            yield None if is_too_long else bytes(line + end)
            line, is_too_long = bytearray(), False
        if is_too_long or len(line) + len(rest) > max_bytes:
            line, is_too_long = bytearray(), True
        else:
            line += rest
    if line or is_too_long:
        yield None if is_too_long else bytes(line)
