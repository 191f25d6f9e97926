"""Blocking requests about files and batch jobs over OpenAI's API: errors, bounds, pages, lines of a file."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from runner.providers.errors import CallError, ErrorPolicy
from runner.providers.openai.client import Client
from runner.providers.openai.job_results import read_lines
from runner.providers.responses import bounded_bytes, shape_errors

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

_RETENTION = timedelta(days=30)
"""How long a service keeps the files of a job: an older job cannot be collected."""
_PAGE = 100
"""Jobs in one page of the list, the most that the API takes."""
_MAX_REPLY_BYTES = 1 << 26
"""A bound of every reply but a file's content: a page of jobs, each with the errors of its file, has a few MB."""
_GONE = ErrorPolicy(fatal=True, not_billed=True)


class JobClient:
    """Requests about files and jobs. The connection is opened by the first of them.

    Args:
        client: has the address and the credential.
        model_id: for messages.
    """

    def __init__(self, client: Client, model_id: str) -> None:
        self._client, self._model_id = client, model_id
        self._connection: OpenAI | None = None

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def requests(self, subject: str | None = None) -> Iterator["OpenAI"]:
        """Yield the SDK's client for requests whose replies are bounded.

        Args:
            subject: what an answer of 404 says is not there; None if that is the address.

        Raises:
            CallError: for every error of a request, with secrets redacted.
        """
        with bounded_bytes(_MAX_REPLY_BYTES), self._errors(subject):
            yield self._open_connection

    def batch(self, job_id: str) -> "Batch":
        """Return a job as the service describes it now."""
        with self.requests(f"job {job_id}") as client:
            return client.batches.retrieve(job_id)

    def recent_batches(self) -> Iterator["Batch"]:
        """Yield the account's jobs whose results are still there, newest first."""
        oldest, seen, page = (datetime.now(UTC) - _RETENTION).timestamp(), set[str](), None
        while page is None or page.has_next_page():
            with self.requests() as client, shape_errors():
                page = client.batches.list(limit=_PAGE) if page is None else page.get_next_page()
                batches = [batch for batch in page.data if batch.id not in seen]
                seen |= {batch.id for batch in batches}
                is_last = all(batch.created_at < oldest for batch in batches)
            yield from batches
            if is_last:  # also of a page without a new job: some servers have one page, again and again
                return

    def lines(self, file_id: str, max_line_bytes: int, max_lines: int) -> Iterator[bytes | None]:
        """Yield the lines of a file as they are received; None for one that is longer than `max_line_bytes`."""
        with ExitStack() as stack:
            stack.enter_context(self._errors(f"file {file_id}"))
            with bounded_bytes(max_line_bytes * max_lines):
                response = stack.enter_context(self._open_connection.files.with_streaming_response.content(file_id))
            yield from read_lines(response.iter_bytes(), max_line_bytes)

    @property
    def _open_connection(self) -> "OpenAI":
        if self._connection is None:
            self._connection = self._client.connect_blocking()
        return self._connection

    @contextmanager
    def _errors(self, subject: str | None) -> Iterator[None]:
        import openai

        with self._client.errors(self._model_id):
            try:
                yield
            except openai.NotFoundError as error:
                if subject is None:
                    raise
                advice = "it belongs to another project or resource than the key, or was removed"
                raise CallError("NotFound", f"the service has no {subject}: {advice}", _GONE) from error
