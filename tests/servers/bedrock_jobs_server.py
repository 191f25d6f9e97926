"""Bedrock's batch jobs on this machine: a control plane in front of moto's S3.

Requests and answers are validated by botocore's own service model. A job reads its records from S3, answers them as
`bedrock_server` answers single requests, and writes its results there. Each poll takes a job one state further.
"""

import json
import logging
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
import botocore.session
from botocore.config import Config
from botocore.model import Shape
from botocore.validate import ParamValidator
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from openai.pagination import SyncCursorPage
from openai.types import Batch
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.servers.bedrock_server import Refusal, invalid_request, whole_answer
from tests.servers.openai_server import Asked
from tests.servers.openai_server import whole_answer as openai_answer

MODEL = botocore.session.get_session().get_service_model("bedrock")
ROLE = "arn:aws:iam::123456789012:role/batch"
BUCKET = "jobs-bucket"
INPUT, OUTPUT = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"
SUBMITTED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BATCHES, BATCH_KEY = "/openai/v1/batches", "bedrock-key-41c2"
OPEN = ("Submitted", "Validating", "Scheduled", "InProgress")
Error = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Script:
    """What becomes of a job.

    Attributes:
        states: at one poll after another; the last one stays.
        processed: how many records are processed; None for all.
        message: the service's words.
        error: what a record with this prompt gets instead of an answer.
        output: changes the text of an answer's line, given its number.
        missing, doubled, unknown: how many results are left out, written twice, or of no record.
        manifest: changes to the counts of the manifest; None where there is no manifest.
    """

    states: tuple[str, ...] = (*OPEN, "Completed")
    processed: int | None = None
    message: str | None = None
    error: Callable[[str], Error | None] = lambda _: None
    output: Callable[[int, str], str] = lambda _, line: line
    missing: int = 0
    doubled: int = 0
    unknown: int = 0
    manifest: Mapping[str, int] | None = field(default_factory=dict)


@dataclass(kw_only=True)
class Job:
    """A job of the service."""

    arn: str
    request: Mapping[str, Any]
    script: Script
    polls: int = 0
    stops: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    is_written: bool = False

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def state(self) -> str:
        if self.stops:
            return "Stopped" if self.polls > 1 else "Stopping"
        return self.script.states[min(max(self.polls, 1), len(self.script.states)) - 1]

    @property
    def operation(self) -> str:
        return str(self.request["modelInvocationType"])


class BedrockJobs:
    """`with BedrockJobs() as service:` serves Bedrock's control plane and S3 until the block ends.

    Attributes:
        jobs: the jobs that exist.
        batches: those of OpenAI's Batch API.
        requests: how many requests of each operation arrived.
        tokens: how many requests to create a job had each token.
        scripts: of the next jobs; others are completed.
        min_records: the quota of records that a job has at least.
        refusals: what the next requests of an operation get instead of an answer.
        on_step: called with the operation of a request before it is handled, and with `created` once a job exists whose
            creation is not answered; True loses the answer.
    """

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.batches: list[Job] = []
        self.requests: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.scripts: deque[Script] = deque()
        self.refusals: dict[str, deque[Refusal]] = {}
        self.on_step: Callable[[str], bool | None] = lambda _: None
        self.min_records = 1
        self.lock = threading.RLock()
        self.counting = threading.Lock()  # of requests to S3 too, which the service sends itself while it has the lock

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        backend = DomainDispatcherApplication(create_backend_app)

        def s3(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            if not environ["PATH_INFO"].startswith("/moto-api"):
                self.step(_s3_operation(environ))
            return backend(environ, start)  # type: ignore[no-any-return]

        self._s3 = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=_S3Handler)
        self._control = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self}))
        self._control.daemon_threads = True
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            for server in (self._s3, self._control)
        ]
        for thread in self._threads:
            thread.start()
        self.storage = boto3.client(
            "s3", endpoint_url=self.s3_url, region_name="us-east-1", aws_access_key_id="stub",
            aws_secret_access_key="stub", config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        for name in self._buckets():
            self._empty(name)
        if BUCKET not in self._buckets():
            self.storage.create_bucket(Bucket=BUCKET)
        self.requests.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._s3, self._control):
            server.shutdown()
        for thread in self._threads:
            thread.join()
        self._s3.server_close()
        self._control.server_close()
        self.storage.close()

    @property
    def s3_url(self) -> str:
        return f"http://127.0.0.1:{self._s3.server_port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self._control.server_port}"

    def overrides(self, **settings: object) -> list[str]:
        """Return the overrides of a run whose jobs are here."""
        job = {
            "role_arn": ROLE, "s3_input": INPUT, "s3_output": OUTPUT, "control_endpoint_url": self.control_url,
            "s3_endpoint_url": self.s3_url, **settings,
        }  # fmt: skip
        return [f"provider.job.{name}={'null' if value is None else value}" for name, value in job.items()]

    def list_keys(self) -> list[str]:
        """Return the keys of all objects."""
        listed = self.storage.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [item["Key"] for item in listed]

    def records(self, uri: str) -> list[dict[str, Any]]:
        """Return the records of an object."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        body = self.storage.get_object(Bucket=bucket, Key=key)["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def step(self, operation: str) -> bool:
        """Count a request, and have the test interfere."""
        with self.counting:
            self.requests[operation] += 1
        return bool(self.on_step(operation))

    # the service

    def create(self, body: Mapping[str, Any]) -> Job:
        with self.lock:
            token = body["clientRequestToken"]
            self.tokens[token] += 1
            for job in self.jobs:
                if job.request["clientRequestToken"] == token:
                    return job
            arn = f"arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/{len(self.jobs):012d}"
            script = self.scripts.popleft() if self.scripts else Script()
            self.jobs.append(Job(arn=arn, request={"modelInvocationType": "InvokeModel", **body}, script=script))
            return self.jobs[-1]

    def poll(self, job: Job) -> dict[str, Any]:
        with self.lock:
            job.polls += 1
            if job.state not in (*OPEN, "Stopping", "Failed") and not job.is_written:
                self.write_results(job)
            return self.describe(job)

    def describe(self, job: Job) -> dict[str, Any]:
        ended = {} if job.state in (*OPEN, "Stopping") else {"endTime": SUBMITTED + timedelta(hours=1)}
        counts = {f"{name}RecordCount": job.counts[name] for name in ("total", "processed", "success", "error")}
        message = {"message": job.script.message} if job.script.message else {}
        return {
            "jobArn": job.arn,
            **{name: job.request[name] for name in job.request if name != "tags"},
            "status": job.state,
            "submitTime": SUBMITTED,
            "lastModifiedTime": SUBMITTED,
            **ended,
            **counts,
            **message,
        }

    def write_results(self, job: Job) -> None:
        """Answer the records, shuffle the answers, and write them with the manifest."""
        source = job.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        records = self.records(source)
        assert len(records) >= self.min_records, "the service would refuse the job"
        processed = records[: job.script.processed]
        lines = [self._answer(job, record) for record in processed]
        job.counts.update(
            total=len(records), processed=len(lines), error=sum("error" in line for line in lines),
            success=sum("error" not in line for line in lines),
        )  # fmt: skip
        job.is_written = True
        if not lines:
            return
        random.Random(0).shuffle(lines)
        extra = [{**lines[0], "recordId": f"unknown-{number}"} for number in range(job.script.unknown)]
        written = [*lines[job.script.missing :], *lines[-job.script.doubled :][: job.script.doubled], *extra]
        text = "\n".join(job.script.output(number, json.dumps(line)) for number, line in enumerate(written))
        folder = job.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].rstrip("/")
        bucket, _, prefix = f"{folder}/{job.id}".removeprefix("s3://").partition("/")
        name = source.rpartition("/")[2]
        self.storage.put_object(Bucket=bucket, Key=f"{prefix}/{name}.out", Body=text.encode())
        if job.script.manifest is not None:
            manifest = {f"{name}RecordCount": count for name, count in job.counts.items()} | dict(job.script.manifest)
            self.storage.put_object(Bucket=bucket, Key=f"{prefix}/manifest.json.out", Body=json.dumps(manifest))

    def _answer(self, job: Job, record: Mapping[str, Any]) -> dict[str, Any]:
        model_id, body = job.request["modelId"], record["modelInput"]
        if invalid := invalid_request(job.operation, model_id, body):
            return {**record, "error": {"errorCode": 400, "errorMessage": invalid}}
        if (error := job.script.error(json.dumps(body))) is not None:
            return {**record, "error": error}
        return {**record, "modelOutput": whole_answer(job.operation, model_id, body)}

    def batch(self, operation: str, batch_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request of OpenAI's Batch API asks for."""
        with self.lock:
            if operation == "ListBatches":
                shown = [self._describe_batch(job) for job in reversed(self.batches)]
                return {"object": "list", "data": shown, "has_more": False}
            if operation == "CreateBatch":
                script = self.scripts.popleft() if self.scripts else Script(states=("in_progress", "completed"))
                self.batches.append(Job(arn=f"batch-{len(self.batches)}", request=body, script=script))
                return self._describe_batch(self.batches[-1])
            job = next(job for job in self.batches if job.id == batch_id)
            job.polls += 1
            if job.state not in ("validating", "in_progress", "failed") and not job.is_written:
                self._write_batch(job)
            return self._describe_batch(job)

    def _describe_batch(self, job: Job) -> dict[str, Any]:
        counts = {name: job.counts[name] for name in ("total", "completed", "failed")}
        errors = [{"message": job.script.message, "line": 1}] if job.script.message else []
        return {
            "id": job.id, "object": "batch", "created_at": int(time.time()), "status": job.state,
            "completion_window": "24h", "endpoint": job.request["endpoint"], "metadata": job.request["metadata"],
            "input_file_id": job.request["input_file_id"], "request_counts": counts,
            **({"errors": {"object": "list", "data": errors}} if errors else {}),
        }  # fmt: skip

    def _write_batch(self, job: Job) -> None:
        """Answer the lines, and write results and errors beside the file."""
        source = job.request["input_file_id"]
        records = self.records(source)
        assert len(records) >= self.min_records, "the service would refuse the job"
        lines: dict[str, list[str]] = {"out": [], "err": []}
        for record in records[: job.script.processed]:
            asked = Asked(path=record["url"], body=record["body"], headers={}, arrived=0.0)
            result: dict[str, Any] = {"id": "r", "custom_id": record["custom_id"], "response": None, "error": None}
            if (error := job.script.error(json.dumps(record["body"]))) is not None:
                result["error"] = {"code": error["errorCode"], "message": error["errorMessage"]}
            else:
                answer = openai_answer(asked)
                result["response"] = {"status_code": 200, "request_id": "q", "body": answer}
            lines["err" if result["error"] else "out"].append(json.dumps(result))
        job.counts.update(total=len(records), completed=len(lines["out"]), failed=len(lines["err"]))
        job.is_written = True
        folder, _, name = source.rpartition("/")
        bucket, _, prefix = folder.removeprefix("s3://").partition("/")
        for suffix, found in lines.items():
            random.Random(0).shuffle(found)
            if found:
                body = "\n".join(found).encode()
                self.storage.put_object(Bucket=bucket, Key=f"{prefix}/{job.id}/{name}.{suffix}", Body=body)

    def _buckets(self) -> list[str]:
        return [bucket["Name"] for bucket in self.storage.list_buckets()["Buckets"]]

    def _empty(self, bucket: str) -> None:
        for item in self.storage.list_objects_v2(Bucket=bucket).get("Contents", []):
            self.storage.delete_object(Bucket=bucket, Key=item["Key"])


def violations(value: Any, shape: Shape) -> list[str]:
    """Return what of a value does not have its shape: by botocore's validator, and by the patterns that it ignores."""
    report = ParamValidator().validate(value, shape)
    return [*([report.generate_report()] if report.has_errors() else []), *_mismatches(value, shape)]


def _mismatches(value: Any, shape: Any) -> list[str]:
    if shape.type_name == "structure" and isinstance(value, Mapping):
        unknown = [f"unknown field {name}" for name in value.keys() - shape.members.keys()]
        inner = [_mismatches(item, shape.members[name]) for name, item in value.items() if name in shape.members]
        return [*unknown, *(text for texts in inner for text in texts)]
    pattern = shape.metadata.get("pattern")
    if shape.type_name == "string" and pattern and not re.fullmatch(pattern, value):
        return [f"{value!r} does not match {pattern}"]
    return []


def _s3_operation(environ: WSGIEnvironment) -> str:
    method, key = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/").partition("/")[2]
    return {"PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}.get(
        method, "GetObject" if key else "ListObjectsV2"
    )


class _S3Handler(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: BedrockJobs

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path.startswith(BATCHES):
            self._answer_batch(path.removeprefix(BATCHES), body)
        elif path == "/model-invocation-job":
            self._answer("CreateModelInvocationJob", body, self._create)
        else:
            identifier = unquote(path.removeprefix("/model-invocation-job/").removesuffix("/stop"))
            self._answer("StopModelInvocationJob", {"jobIdentifier": identifier}, self._stop)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith(BATCHES):
            self._answer_batch(parts.path.removeprefix(BATCHES), None)
        elif parts.path == "/model-invocation-jobs":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self._answer("ListModelInvocationJobs", query, self._list)
        else:
            identifier = unquote(parts.path.removeprefix("/model-invocation-job/"))
            self._answer("GetModelInvocationJob", {"jobIdentifier": identifier}, self._get)

    def _answer(
        self, operation: str, sent: Mapping[str, Any], handle: Callable[[Any], dict[str, Any] | Refusal | None]
    ) -> None:
        if self.service.step(operation):
            self.close_connection = True
            return
        model = MODEL.operation_model(operation)
        refusals = self.service.refusals.get(operation)
        if refusals:
            self._refuse(refusals.popleft())
        elif invalid := violations(sent, model.input_shape):
            self._refuse(Refusal(400, "ValidationException", "; ".join(invalid)))
        else:
            answer = handle(sent)
            if answer is None:
                self.close_connection = True
            elif isinstance(answer, Refusal):
                self._refuse(answer)
            else:
                wrong = violations(answer, model.output_shape) if model.output_shape.members else []
                assert not wrong, wrong
                self._send(200, answer, {})

    def _answer_batch(self, path: str, body: Mapping[str, Any] | None) -> None:
        """Answer a request of OpenAI's Batch API."""
        operation = {"": "CreateBatch" if body is not None else "ListBatches"}.get(
            path, "CancelBatch" if path.endswith("/cancel") else "GetBatch"
        )
        if self.service.step(operation):
            self.close_connection = True
            return
        refusals = self.service.refusals.get(operation)
        refusal = refusals.popleft() if refusals else self._batch_refusal(operation, body or {})
        if refusal:
            error = {"message": refusal.message, "type": "invalid_request_error", "code": refusal.code}
            self._send(refusal.status, {"error": error}, {})
            return
        answer = self.service.batch(operation, path.strip("/").removesuffix("/cancel"), body or {})
        shape = SyncCursorPage[Batch] if operation == "ListBatches" else Batch
        shape.model_validate(answer)
        if operation == "CreateBatch" and self.service.on_step("created"):
            self.close_connection = True
            return
        self._send(200, answer, {})

    def _batch_refusal(self, operation: str, body: Mapping[str, Any]) -> Refusal | None:
        if self.headers.get("Authorization") != f"Bearer {BATCH_KEY}":
            return Refusal(401, "invalid_api_key", "The key is not valid")
        if operation != "CreateBatch":
            return None
        if self.headers.get("X-Amzn-Bedrock-RoleArn") != ROLE:
            return Refusal(400, "validation_error", f"Bedrock cannot assume {self.headers['X-Amzn-Bedrock-RoleArn']}")
        wrong = body["endpoint"] != "/v1/chat/completions" or not body["input_file_id"].startswith("s3://")
        if wrong or not self.headers.get("X-Amzn-Bedrock-ModelId", "").startswith("openai."):
            return Refusal(400, "validation_error", f"no batch: {body}")
        return None

    def _create(self, body: Mapping[str, Any]) -> dict[str, Any] | Refusal | None:
        if body["roleArn"] != ROLE:
            return Refusal(400, "ValidationException", f"Bedrock cannot assume the role {body['roleArn']}")
        job = self.service.create(body)
        return None if self.service.on_step("created") else {"jobArn": job.arn}

    def _get(self, sent: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        job = self._find(sent["jobIdentifier"])
        return self.service.poll(job) if job else _NO_JOB

    def _stop(self, sent: Mapping[str, Any]) -> dict[str, Any] | Refusal:
        job = self._find(sent["jobIdentifier"])
        if job is None:
            return _NO_JOB
        if job.state not in OPEN:
            return Refusal(409, "ConflictException", f"The job is {job.state}")
        job.stops, job.polls = True, 0
        return {}

    def _list(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page with one job, the newest first."""
        named = [job for job in reversed(self.service.jobs) if query["nameContains"] in job.request["jobName"]]
        first = int(query.get("nextToken", 0))
        page = {"invocationJobSummaries": [self.service.describe(job) for job in named[first : first + 1]]}
        return page | ({"nextToken": str(first + 1)} if first + 1 < len(named) else {})

    def _find(self, identifier: str) -> Job | None:
        return next((job for job in self.service.jobs if identifier in (job.arn, job.id)), None)

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, {"message": refusal.message}, {"x-amzn-ErrorType": refusal.code})

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        raw = json.dumps(body, default=datetime.isoformat).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


_NO_JOB = Refusal(404, "ResourceNotFoundException", "There is no such job")
