"""Whole runs in batch jobs of a local Bedrock: killed at every step, detached, stopped, expired, refused."""

import json
import os
import pty
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from types import MappingProxyType
from typing import Any

import pytest

from tests import processes
from tests.servers.bedrock_jobs_server import BATCH_KEY, BUCKET, BedrockJobs, Error, Script
from tests.servers.bedrock_server import Refusal

SOON = ("InProgress", "Completed")
REFUSED = "refuse this one"
COUNT = 200
"""Two jobs of 100, the least that the service takes."""
FAILING = 10


def refuse(text: str) -> Error | None:
    return {"errorCode": 400, "errorMessage": "content is not allowed"} if REFUSED in text else None


@pytest.fixture
def service() -> Iterator[BedrockJobs]:
    with BedrockJobs() as serving:
        serving.min_records = 100
        serving.scripts.extend(Script(states=SOON, error=refuse) for _ in range(10))
        yield serving


class Run:
    """A run of the product in mode job, process after process."""

    def __init__(self, service: BedrockJobs, folder: Path, count: int = COUNT) -> None:
        self.service, self.folder, self.run = service, folder, folder / "run"
        self.ids = [f"p{number}" for number in range(count)]
        texts = [REFUSED if number % (count // FAILING) == 7 else f"say {number}" for number in range(count)]
        lines = [json.dumps({"id": id_, "prompt": text}) for id_, text in zip(self.ids, texts, strict=True)]
        (folder / "prompts.jsonl").write_text("\n".join(lines))
        self.texts = dict(zip(self.ids, texts, strict=True))

    def begin(
        self, *overrides: str, streams: Mapping[str, int] = MappingProxyType({}), **settings: object
    ) -> processes.Process:
        arguments = [
            "runner", "provider=bedrock", "provider.region=us-east-1", "batch.mode=job", "batch.size=100",
            "prompts=file", f"prompts.path={self.folder / 'prompts.jsonl'}", "tracking=off",
            f"hydra.run.dir={self.run}", *self.service.overrides(**settings), *overrides,
        ]  # fmt: skip
        return self._start(arguments, self.folder, **streams)

    def resume(self, *overrides: str) -> CompletedProcess[str]:
        """Resume in another working directory; failed prompts stay as they are."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return ended(self._start(["runner.resume", str(self.run), "--keep-failures", *overrides], elsewhere))

    def _start(self, arguments: list[str], folder: Path, **streams: int) -> processes.Process:
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "AKIAFAKE", "AWS_SECRET_ACCESS_KEY": "not-a-real-one", "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_BEARER_TOKEN_BEDROCK": BATCH_KEY,
        }  # fmt: skip
        return processes.start(arguments, cwd=folder, env=environment, **streams)  # type: ignore[arg-type]

    def outcomes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "outcomes.jsonl").read_text().splitlines()]

    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return summary

    def check_complete(self, jobs: int = 2) -> None:
        """Check that every prompt has one outcome, its own, and every part one job, and that no file is left."""
        outcomes = self.outcomes()
        assert Counter(outcome["prompt_id"] for outcome in outcomes) == dict.fromkeys(self.ids, 1)
        failed = {outcome["prompt_id"]: outcome["error"] for outcome in outcomes if outcome["error"]}
        assert failed.keys() == {id_ for id_, text in self.texts.items() if text == REFUSED}
        assert {(error["type"], error["message"]) for error in failed.values()} == {("400", "content is not allowed")}
        answers = {outcome["prompt_id"]: outcome["text"] for outcome in outcomes if not outcome["error"]}
        assert answers == {id_: text for id_, text in self.texts.items() if text != REFUSED}
        names = Counter(job.request["jobName"] for job in self.service.jobs)
        assert len(names) == len(self.service.jobs) == jobs
        assert self.service.list_keys() == []


def ended(process: processes.Process, timeout: float = 120) -> CompletedProcess[str]:
    with process:
        output, errors = process.communicate(timeout)
    assert process.returncode is not None
    assert "Traceback" not in errors
    return CompletedProcess(process.args, process.returncode, output, errors)


def test_a_run_in_jobs_has_every_prompts_own_outcome_whatever_their_order(service: BedrockJobs, tmp_path: Path):
    run = Run(service, tmp_path)
    done = ended(run.begin())
    assert done.returncode == 1, "prompts failed"
    run.check_complete()
    metrics = run.summary()["metrics"]
    assert (metrics["completed_prompts"], metrics["failed_prompts"]) == (COUNT - FAILING, FAILING)
    assert not [name for name in metrics if name.startswith(("latency", "time_to_first_token"))], "a job has none"


STEPS = ("PutObject", "CreateModelInvocationJob", "created", "GetModelInvocationJob", "GetObject", "DeleteObject")
"""Upload, create, record (the answer is lost), poll, download, and the removal of files."""


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_at_a_step_goes_on_from_there(step: str, nth: int, service: BedrockJobs, tmp_path: Path):
    run = Run(service, tmp_path)
    began, seen = threading.Event(), Counter[str]()
    process: processes.Process

    def kill(operation: str) -> bool:
        seen[operation] += 1
        is_the_step = operation == step and seen[operation] == nth
        if is_the_step:
            began.wait()
            process.kill()
        return is_the_step  # of the control plane: no answer

    service.on_step = kill
    process = run.begin()
    began.set()
    with process:
        process.communicate(120)
    assert process.returncode == -9
    service.on_step = lambda _: None
    done = run.resume()
    assert "Traceback" not in done.stderr
    run.check_complete()


BATCH_STEPS = ("PutObject", "CreateBatch", "created", "GetBatch", "GetObject", "DeleteObject")


@pytest.mark.parametrize("step", [None, *BATCH_STEPS])
def test_a_run_over_openais_batch_api_that_is_killed_goes_on_and_creates_no_batch_twice(
    step: str | None, service: BedrockJobs, tmp_path: Path
):
    service.scripts = deque(Script(states=("in_progress", "completed"), error=refuse) for _ in range(10))
    run = Run(service, tmp_path)
    killing = threading.Lock()
    process: processes.Process

    def kill(operation: str) -> bool:
        is_the_step = operation == step and killing.acquire(blocking=False)
        if is_the_step:
            process.kill()
        return is_the_step

    service.on_step = kill
    process = run.begin(
        "model.id=openai.gpt-oss-20b-1:0", f"provider.endpoint_url={service.control_url}", api="openai", s3_output=None
    )
    with process:
        process.communicate(120)
    assert process.returncode == (-9 if step else 1)
    if step:
        assert "Traceback" not in run.resume().stderr
    outcomes = run.outcomes()
    assert Counter(outcome["prompt_id"] for outcome in outcomes) == dict.fromkeys(run.ids, 1)
    assert Counter(outcome["error"]["type"] for outcome in outcomes if outcome["error"]) == {"400": FAILING}
    assert len({job.request["metadata"]["runner_job"] for job in service.batches}) == len(service.batches) == 2
    assert (service.list_keys(), service.jobs) == ([], [])


def test_a_detached_run_ends_at_once_and_another_process_collects_it(service: BedrockJobs, tmp_path: Path):
    run = Run(service, tmp_path)
    last_create_s = 0.0

    def note(operation: str) -> None:
        nonlocal last_create_s
        last_create_s = time.monotonic() if operation == "created" else last_create_s

    service.on_step = note
    done = ended(run.begin("batch.detach=true"))
    assert time.monotonic() - last_create_s < 5
    assert done.returncode == 0, done.stderr
    assert "runner.resume" in done.stderr
    assert run.summary()["status"] == "SUBMITTED"
    assert service.requests["GetModelInvocationJob"] == 0
    looked = run.resume("batch.detach=true")
    assert (looked.returncode, run.summary()["status"]) == (0, "SUBMITTED"), "both jobs are in progress"
    assert service.requests["GetModelInvocationJob"] == 2
    run.resume()
    run.check_complete()


def test_an_interrupt_without_a_terminal_leaves_the_jobs_at_the_service(service: BedrockJobs, tmp_path: Path):
    service.scripts = deque(Script(states=("InProgress",) * 3 + ("Completed",), error=refuse) for _ in range(2))
    run = Run(service, tmp_path)
    polled = threading.Event()
    service.on_step = lambda operation: polled.set() if operation == "GetModelInvocationJob" else None
    process = run.begin()
    assert polled.wait(60)
    process.terminate()
    done = ended(process)
    assert done.returncode == 130
    assert "runner.resume" in done.stderr
    assert service.requests["StopModelInvocationJob"] == 0
    run.resume()
    run.check_complete()


@pytest.mark.parametrize(("answer", "stops"), [("y", 2), ("n", 0)])
def test_a_person_who_interrupts_is_asked_and_a_cancelled_job_keeps_what_it_has_done(
    answer: str, stops: int, service: BedrockJobs, tmp_path: Path
):
    open_for_long = ("InProgress",) * 4 + ("Completed",)
    service.scripts = deque(Script(states=open_for_long, processed=processed, error=refuse) for processed in (100, 40))
    run = Run(service, tmp_path)
    polled = threading.Event()
    service.on_step = lambda operation: polled.set() if operation == "GetModelInvocationJob" else None
    terminal, child_side = pty.openpty()
    with run.begin(streams={"stdin": child_side, "stderr": child_side}) as process:
        os.close(child_side)
        assert polled.wait(60)
        process.send_signal(signal.SIGINT)
        shown = read_until(terminal, b"[y/N]")
        os.write(terminal, f"{answer}\n".encode())
        shown += read_until(terminal, None)
        os.close(terminal)
        assert process.wait(60) == 130
    assert b"runner.resume" in shown
    assert service.requests["StopModelInvocationJob"] == stops, shown.decode()
    done = run.resume()
    outcomes = run.outcomes()
    assert Counter(outcome["prompt_id"] for outcome in outcomes) == dict.fromkeys(run.ids, 1)
    left = Counter(outcome["error"]["type"] for outcome in outcomes if outcome["error"])
    assert left == {"400": 7, "Stopped" if stops else "Completed": 60}, "of 40 prompts from the 100th on, two fail"
    assert "(Stopped)" in done.stderr or not stops


def read_until(terminal: int, text: bytes | None) -> bytes:
    """Read a terminal until it shows this text; to its end where that is None."""
    shown = b""
    while text is None or text not in shown:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # its other side is closed
            break
    return shown


def test_an_expired_job_keeps_what_it_has_done_and_the_rest_is_submitted_again(service: BedrockJobs, tmp_path: Path):
    service.scripts.appendleft(Script(states=("InProgress", "Expired"), processed=50, error=refuse))
    run = Run(service, tmp_path)
    done = ended(run.begin("batch.size=200"))
    assert done.returncode == 1
    assert "(Expired)" in done.stderr
    expired = [outcome for outcome in run.outcomes() if outcome["error"] and outcome["error"]["type"] == "Expired"]
    assert len(expired) == 150
    again = ended(run._start(["runner.resume", str(run.run)], tmp_path))
    assert "Traceback" not in again.stderr
    assert [len(job.request) > 0 for job in service.jobs] == [True, True]
    last = {outcome["prompt_id"]: outcome for outcome in run.outcomes()}
    assert {id_ for id_, outcome in last.items() if not outcome["error"]} == {
        id_ for id_, text in run.texts.items() if text != REFUSED
    }
    assert service.list_keys() == []


def test_a_job_that_someone_stopped_is_collected_with_the_services_word(service: BedrockJobs, tmp_path: Path):
    service.scripts.appendleft(Script(states=("InProgress", "Stopped"), processed=120, message="Stopped by user"))
    run = Run(service, tmp_path)
    done = ended(run.begin("batch.size=200"))
    stopped = [outcome for outcome in run.outcomes() if outcome["error"] and outcome["error"]["type"] == "Stopped"]
    assert (done.returncode, len(stopped)) == (1, 80)
    assert "Stopped by user" in stopped[0]["error"]["message"]


def test_a_wrong_role_is_one_message_with_the_remedy_and_a_resume_uploads_again(service: BedrockJobs, tmp_path: Path):
    run = Run(service, tmp_path)
    done = ended(run.begin(role_arn="arn:aws:iam::123456789012:role/other"))
    assert done.returncode == 2
    assert done.stderr.count("Bedrock cannot assume the role") == 1
    assert done.stderr.count("check provider.job.role_arn") == 1
    assert (service.jobs, service.list_keys()) == ([], [])


def test_a_right_that_comes_later_lets_a_resume_submit_what_was_refused(service: BedrockJobs, tmp_path: Path):
    service.refusals["CreateModelInvocationJob"] = deque([Refusal(403, "AccessDeniedException", "no iam:PassRole")])
    run = Run(service, tmp_path)
    done = ended(run.begin())
    assert done.returncode == 2
    assert "no iam:PassRole" in done.stderr
    assert "{rights}" not in done.stderr
    assert service.list_keys() == []
    run.resume()
    run.check_complete()


def test_a_missing_bucket_is_one_message_with_the_remedy(service: BedrockJobs, tmp_path: Path):
    done = ended(Run(service, tmp_path).begin(s3_input="s3://no-such-bucket/in"))
    assert done.returncode == 2
    assert done.stderr.count("NoSuchBucket") == 1
    assert "provider.job.s3_input" in done.stderr


def test_a_failed_validation_is_one_message_and_its_files_are_removed(service: BedrockJobs, tmp_path: Path):
    service.scripts.appendleft(Script(states=("Validating", "Failed"), message="The role cannot read s3://x (line 3)"))
    run = Run(service, tmp_path)
    done = ended(run.begin("batch.size=200"))
    assert done.returncode == 1
    assert done.stderr.count("The role cannot read s3://x (line 3)") == 1
    assert "correct the cause" in done.stderr
    run.resume()
    run.check_complete()


def test_a_full_quota_of_jobs_is_met_by_waiting(service: BedrockJobs, tmp_path: Path):
    full = Refusal(400, "ServiceQuotaExceededException", "2 jobs are in progress")
    created = threading.Event()
    service.on_step = lambda operation: created.set() if operation == "created" else None
    run = Run(service, tmp_path)
    service.refusals["CreateModelInvocationJob"] = deque()
    process = run.begin()
    created.wait(60)
    service.refusals["CreateModelInvocationJob"].append(full)
    ended(process)
    run.check_complete()


def test_a_control_plane_that_throttles_costs_no_run(service: BedrockJobs, tmp_path: Path):
    throttled = Refusal(429, "ThrottlingException", "Rate exceeded")
    service.refusals["GetModelInvocationJob"] = deque([throttled] * 4)
    run = Run(service, tmp_path)
    ended(run.begin())
    run.check_complete()


def test_too_few_prompts_are_refused_before_anything_is_uploaded(service: BedrockJobs, tmp_path: Path):
    done = ended(Run(service, tmp_path, count=50).begin())
    assert done.returncode == 2
    assert "100" in done.stderr
    assert service.requests == Counter()


def test_missing_doubled_and_unknown_results_are_said_and_nothing_counts_twice(service: BedrockJobs, tmp_path: Path):
    service.scripts.appendleft(Script(states=SOON, missing=3, doubled=2, unknown=2))
    run = Run(service, tmp_path)
    done = ended(run.begin("batch.size=200"))
    outcomes = run.outcomes()
    assert Counter(outcome["prompt_id"] for outcome in outcomes) == dict.fromkeys(run.ids, 1)
    assert [outcome["error"]["type"] for outcome in outcomes if outcome["error"]] == ["Completed"] * 3
    assert "2 results came twice" in done.stderr
    assert "unknown-0" in done.stderr
    assert "its manifest counts 200 answers and 0 errors, its files of results have 201 and 0" in done.stderr


def test_files_that_are_to_be_kept_stay(service: BedrockJobs, tmp_path: Path):
    ended(Run(service, tmp_path).begin("batch.size=200", keep_files="true"))
    assert len(service.list_keys()) == 3
    assert service.records(f"s3://{BUCKET}/{service.list_keys()[0]}")
