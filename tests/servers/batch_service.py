"""A local service with OpenAI's files, batches and single requests, in the paths of OpenAI and of both of Azure's APIs.

A job's state moves with every poll. Answers are the prompt's words, as those of `openai_server`. The service keeps every
request, refuses what the services refuse, and checks the key as each of them does.
"""

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from tests.servers.openai_server import KEY, Asked, whole_answer

Style = Literal["openai", "azure-v1", "azure-dated"]
ROOTS: dict[Style, str] = {"openai": "/v1", "azure-v1": "/openai/v1", "azure-dated": "/openai"}
_URLS: dict[Style, dict[str, set[str]]] = {
    "openai": {path: {path} for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses")},
    "azure-v1": {
        "/v1/chat/completions": {"/chat/completions", "/v1/chat/completions"},
        "/v1/responses": {"/chat/completions", "/v1/responses"},
    },
    "azure-dated": {"/chat/completions": {"/chat/completions"}, "/v1/responses": {"/v1/responses"}},
}
"""By a line's url, the endpoints that its job may have."""
COMPLETED = ("validating", "in_progress", "finalizing", "completed")
Line = dict[str, Any]
Fault = Callable[[str, int], "dict[str, Any] | None"]
"""Given a step and how often it came, what to do instead: {"status", "body", "headers"} answers so; {"lost": True} does the
step, and then closes the connection; {"cut": bytes} sends so much of a file; {"instead": function} is called instead of the
step, {"after": function} once it is done, before it is answered."""


@dataclass
class Job:
    """A batch, and what becomes of it."""

    batch: dict[str, Any]
    states: list[str]
    requests: list[Line]
    polls: int = 0


@dataclass
class BatchService:
    """`with BatchService(...) as service:` serves at `service.url`.

    Args:
        style: whose paths, urls and header of the key.
        states: of a job, one a poll; the last one stays. Given the job's number, from 0.
        status: of the answer to a request, given its number within the job; 200 is answered.
        executed: whether the service comes to a request before the job expires or is cancelled.
        rearrange: changes the lines of a job's results.
        errors: of a job that ends as failed.
        fault: what to do instead of a step: upload, file, files, create, list, poll, cancel, download, delete, answer.
        body: changes the body of an answer of 200.
        lists_oldest_first: the order of the list of jobs; OpenAI's is newest first.
        token: the token of Entra ID that requests must have; None for the key.
    """

    style: Style = "openai"
    states: Callable[[int], Sequence[str]] = lambda number: COMPLETED
    status: Callable[[int], int] = lambda number: 200
    executed: Callable[[int], bool] = lambda number: True
    rearrange: Callable[[list[Line]], list[Line]] = lambda lines: lines
    errors: Sequence[dict[str, Any]] = ()
    fault: Fault = lambda step, number: None
    body: Callable[[Any], Any] = lambda body: body
    token: str | None = None
    lists_oldest_first: bool = False
    port: int = 0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def __enter__(self) -> "BatchService":
        service, self._lock = self, threading.RLock()

        class Handler(_Handler):
            owner = service

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def jobs_by_name(self) -> Counter[str]:
        """How many jobs were created under each name."""
        return Counter(job.batch["metadata"]["runner_job"] for job in self.jobs.values())

    @property
    def input_lines(self) -> list[list[Line]]:
        """The requests of each job, in the order of creation."""
        return [job.requests for job in self.jobs.values()]

    def overrides(self) -> list[str]:
        """Return the overrides of a run whose service this is."""
        if self.style == "openai":
            return ["provider=openai", f"provider.base_url={self.url}/v1"]
        dated = ["provider.api_version='2024-10-21'"] if self.style == "azure-dated" else []
        return ["provider=azure", f"provider.azure_endpoint={self.url}", "model.id=my-batch-deployment", *dated]

    def handle(self, method: str, target: str, headers: dict[str, str], content: bytes) -> "Reply":
        """Return the reply to a request."""
        address = urlsplit(target)
        with self._lock:
            self.headers.append(headers)
            if error := self._refusal(address.path, parse_qs(address.query), headers):
                return error
            parts = address.path.removeprefix(ROOTS[self.style]).strip("/").split("/")
            step = _STEPS.get((method, parts[0], len(parts)))
            if step is None:
                return _error(404, f"no such path: {method} {address.path}")
            number, self.steps[step] = self.steps[step], self.steps[step] + 1
            fault = self.fault(step, number) or {}
            if "status" in fault:
                return Reply(fault["status"], fault.get("body", {}), headers=fault.get("headers", {}))
            if "instead" in fault:
                fault["instead"]()
                return Reply(500, {}, is_lost=True)
            reply: Reply = getattr(self, f"_{step}")(parts, parse_qs(address.query), headers, content)
        if "after" in fault:
            fault["after"]()
        reply.is_lost, reply.cut = fault.get("lost", False), fault.get("cut")
        return reply

    def _refusal(self, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> "Reply | None":
        takes_key = self.style == "azure-dated" and self.token is None
        key = headers.get("api-key") if takes_key else headers.get("authorization")
        if key != (KEY if takes_key else f"Bearer {self.token or KEY}"):
            return _error(401, "Incorrect API key provided", "invalid_api_key")
        if not path.startswith(f"{ROOTS[self.style]}/") or ("api-version" in query) != (self.style == "azure-dated"):
            return _error(404, f"Resource not found: {path}")
        return None

    # steps

    def _upload(self, _parts: list[str], _query: Any, headers: dict[str, str], content: bytes) -> "Reply":
        raw = b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + content
        parts = {
            str(part.get_param("name", header="content-disposition")): part for part in message_from_bytes(raw).walk()
        }
        payload, purpose = (bytes(parts[name].get_payload(decode=True)) for name in ("file", "purpose"))
        name = parts["file"].get_filename()
        if purpose.strip() != b"batch" or not str(name).endswith(".jsonl"):
            return _error(400, f"not a batch file: {name}")
        return Reply(200, _public(self._store(str(name), "batch", payload)))

    def _file(self, parts: list[str], *_: Any) -> "Reply":
        return (
            Reply(200, _public(self.files[parts[1]])) if parts[1] in self.files else _error(404, "No such File object")
        )

    def _files(self, _parts: list[str], query: dict[str, list[str]], *_: Any) -> "Reply":
        files = [_public(file) for file in reversed(self.files.values()) if file["purpose"] in query.get("purpose", [])]
        return Reply(200, _page(files, query))

    def _delete(self, parts: list[str], *_: Any) -> "Reply":
        if self.files.pop(parts[1], None) is None:
            return _error(404, "No such File object")
        self.deleted.append(parts[1])
        return Reply(200, {"id": parts[1], "object": "file", "deleted": True})

    def _download(self, parts: list[str], *_: Any) -> "Reply":
        if parts[1] not in self.files:
            return _error(404, "No such File object")
        return Reply(200, self.files[parts[1]]["content"])

    def _create(self, _parts: list[str], _query: Any, _headers: Any, content: bytes) -> "Reply":
        body = json.loads(content)
        if body["input_file_id"] not in self.files:
            return _error(400, f"Cannot find file {body['input_file_id']}")
        if body["completion_window"] != "24h":
            return _error(400, f"Invalid value: {body['completion_window']!r}. Value must be '24h'.")
        job_id = f"batch_{len(self.jobs):04d}"
        file = self.files[body["input_file_id"]]
        requests = [json.loads(line) for line in file["content"].splitlines()]
        errors = [*self._validation_errors(requests, body["endpoint"])]
        states = ["validating", "failed"] if errors else list(self.states(len(self.jobs)))
        now = int(time.time())
        batch = {
            "id": job_id, "object": "batch", "endpoint": body["endpoint"], "errors": None,
            "input_file_id": body["input_file_id"], "completion_window": "24h", "status": states[0],
            "output_file_id": None, "error_file_id": None, "created_at": now, "expires_at": now + 86400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": body.get("metadata"),
        }  # fmt: skip
        if self.style != "openai":
            batch |= {"output_file_id": "", "error_file_id": ""}
        if states[-1] == "failed":
            data = errors or list(self.errors)
            batch["_errors"] = {"object": "list", "data": [{"param": None, "line": None, **error} for error in data]}
        self.jobs[job_id] = Job(batch=batch, states=states, requests=requests)
        return Reply(200, _public(batch))

    def _poll(self, parts: list[str], *_: Any) -> "Reply":
        if (job := self.jobs.get(parts[1])) is None:
            return _error(404, f"No batch found with id '{parts[1]}'")
        before = job.batch["status"]
        job.polls += 1
        status = job.batch["status"] = job.states[min(job.polls, len(job.states) - 1)]
        if status != before:
            job.batch[f"{status}_at"] = int(time.time())
            if status in ("completed", "expired", "cancelled"):
                self._finish(job, status)
            elif status == "failed":
                job.batch["errors"] = job.batch["_errors"]
            else:
                job.batch["request_counts"] = {"total": len(job.requests), "completed": 0, "failed": 0}
        return Reply(200, _public(job.batch))

    def _cancel(self, parts: list[str], *_: Any) -> "Reply":
        job = self.jobs[parts[1]]
        if job.batch["status"] in ("completed", "expired", "cancelled", "failed"):
            return _error(400, f"Cannot cancel a batch with status '{job.batch['status']}'.")
        job.states, job.polls = ["cancelling", "cancelling", "cancelled"], 0
        job.batch |= {"status": "cancelling", "cancelling_at": int(time.time())}
        return Reply(200, _public(job.batch))

    def _list(self, _parts: list[str], query: dict[str, list[str]], *_: Any) -> "Reply":
        jobs = list(self.jobs.values()) if self.lists_oldest_first else reversed(self.jobs.values())
        return Reply(200, _page([_public(job.batch) for job in jobs], query))

    def _answer(self, parts: list[str], _query: Any, headers: dict[str, str], content: bytes) -> "Reply":
        asked = Asked(path=f"/v1/{'/'.join(parts)}", headers=headers, body=json.loads(content), arrived=0.0)
        return Reply(200, whole_answer(asked))

    # what becomes of a job

    def _validation_errors(self, requests: list[Line], endpoint: str) -> Iterator[dict[str, Any]]:
        ids = Counter(request["custom_id"] for request in requests)
        models = {request["body"]["model"] for request in requests}
        if len(models) != 1:
            yield {"code": "model_mismatch", "message": f"The models differ: {sorted(models)}"}
        for number, request in enumerate(requests, start=1):
            if ids[request["custom_id"]] > 1:
                yield {"code": "duplicate_custom_id", "line": number, "message": "The custom_id is not unique."}
            if endpoint not in _URLS[self.style].get(request["url"], ()) or request["method"] != "POST":
                message = f"The url {request['url']} does not match {endpoint}."
                yield {"code": "url_mismatch", "line": number, "message": message}
            if "stream" in request["body"]:
                yield {"code": "invalid_request", "line": number, "message": "Streaming is not supported in batches."}

    def _finish(self, job: Job, status: str) -> None:
        lines = self.rearrange([self._line(job, number, status) for number in range(len(job.requests))])
        good, bad = [
            [line for line in lines if ((line.get("response") or {}).get("status_code") == 200) is wanted]
            for wanted in (True, False)
        ]
        for key, chosen in (("output_file_id", good), ("error_file_id", bad)):
            if chosen or (self.style != "openai" and key == "error_file_id"):
                content = b"".join(json.dumps(line).encode() + b"\n" for line in chosen)
                job.batch[key] = self._store(f"{job.batch['id']}_{key}.jsonl", "batch_output", content)["id"]
        executed = [line for line in lines if line.get("response")]
        total = len(job.requests)
        job.batch["request_counts"] = {"total": total, "completed": len(good), "failed": len(executed) - len(good)}

    def _line(self, job: Job, number: int, status: str) -> Line:
        request = job.requests[number]
        line: Line = {"id": f"batch_req_{number}", "custom_id": request["custom_id"], "response": None, "error": None}
        if status != "completed" and not self.executed(number):
            code = f"batch_{status}"
            return {**line, "error": {"code": code, "message": f"This request was not executed: the batch {status}."}}
        status_code = self.status(number)
        if status_code != 200:
            kind = {"type": "server_error"} if status_code >= 500 else {"type": "invalid_request_error"}
            body = {"error": {"message": f"request {number} failed", "param": None, "code": None, **kind}}
        else:
            asked = Asked(path=request["url"], headers={}, body=request["body"], arrived=0.0)
            body = self.body(whole_answer(asked))
        return {**line, "response": {"status_code": status_code, "request_id": f"r{number}", "body": body}}

    def _store(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        file_id = f"file-{self.steps['upload']}-{len(self.files) + len(self.deleted)}"
        self.files[file_id] = {
            "id": file_id, "object": "file", "bytes": len(content), "created_at": int(time.time()), "filename": name,
            "purpose": purpose, "status": "processed", "content": content,
        }  # fmt: skip
        return self.files[file_id]


@dataclass
class Reply:
    """What is sent. Content of bytes is a file's."""

    status: int
    content: Any
    headers: dict[str, str] = field(default_factory=dict)
    is_lost: bool = False
    cut: int | None = None


class _Handler(BaseHTTPRequestHandler):
    owner: BatchService
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("transfer-encoding") == "chunked":
            content = b"".join(self._chunks())
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.owner.handle(self.command, self.path, headers, content)
        is_file = isinstance(reply.content, bytes)
        payload = reply.content if is_file else json.dumps(reply.content).encode()
        self.close_connection = reply.is_lost or reply.cut is not None
        if reply.is_lost:
            return
        self.send_response(reply.status)
        self.send_header("content-type", "application/octet-stream" if is_file else "application/json")
        self.send_header("content-length", str(len(payload)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload[: reply.cut])

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names of http.server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


_STEPS = {
    ("POST", "files", 1): "upload",
    ("GET", "files", 1): "files",
    ("GET", "files", 2): "file",
    ("DELETE", "files", 2): "delete",
    ("GET", "files", 3): "download",
    ("POST", "batches", 1): "create",
    ("GET", "batches", 1): "list",
    ("GET", "batches", 2): "poll",
    ("POST", "batches", 3): "cancel",
    ("POST", "completions", 1): "answer",
    ("POST", "chat", 2): "answer",
}
"""By method, kind of object, and number of the path's parts."""


def shuffled(lines: list[Line]) -> list[Line]:
    """Return the lines in another order."""
    return random.Random(0).sample(lines, len(lines))


def _public(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "content" and not re.match("_", key)}


def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, Any]:
    limit = int(query.get("limit", ["20"])[0])
    after = query.get("after", [None])[0]
    start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), 0)
    page = items[start : start + limit]
    return {"object": "list", "data": page, "has_more": start + limit < len(items)}


def _error(status: int, message: str, code: str | None = None) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
