"""Whole runs with batch jobs of OpenAI and of both of Azure's APIs, against a local service: kills, detaching, expiry."""

import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.cli.compose import compose_config
from runner.config.waits import Waits
from runner.record.folder import RunFolder
from runner.types import Completion, Failure, Outcome
from tests import processes
from tests.factories import summary_of
from tests.processes import Process
from tests.servers.batch_service import BatchService, Line, Style, shuffled
from tests.servers.openai_server import KEY

STYLES: tuple[Style, ...] = ("openai", "azure-v1", "azure-dated")
PROMPTS = 200
QUICK = ("in_progress", "completed")
FAILING = (3, 50)
"""Numbers of the requests within each job that the service answers with an error."""
WAITS = Waits(min_poll_s=0.05, max_poll_s=0.2)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"q{n}", "prompt": f"say {n} é"}) + "\n" for n in range(PROMPTS)))
    return path


def failing(number: int) -> int:
    return 400 if number in FAILING else 200


class Run:
    """A run in mode job, process after process."""

    def __init__(self, service: BatchService, prompt_file: Path, folder: Path) -> None:
        self.service, self.folder = service, folder / "run"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.overrides = [
            *service.overrides(), "prompts=file", f"prompts.path={prompt_file}", "batch.mode=job", "batch.size=100",
            "tracking=off", f"hydra.run.dir={self.folder}",
        ]  # fmt: skip

    def start(self, *arguments: str, module: str = "runner") -> Process:
        """Start a process; one that resumes the run works in another folder than the one that began it."""
        if module == "runner":
            given, cwd = [*self.overrides, *arguments], self.elsewhere
        else:
            given, cwd = [str(self.folder), *arguments], self.folder.parent
        return processes.start([module, *given], cwd=cwd, stderr=subprocess.STDOUT)

    def process(self, *arguments: str, module: str = "runner") -> tuple[int, str]:
        """Return the exit code of a process, which is 1 where prompts failed, and what it printed."""
        with self.start(*arguments, module=module) as process:
            printed, _ = process.communicate(timeout=120)
        return process.wait(), printed

    def resume(self, *arguments: str) -> tuple[int, str]:
        return self.process(*arguments, module="runner.resume")

    @property
    def outcomes(self) -> list[Outcome]:
        return list(RunFolder(self.folder).outcomes.read())

    def assert_whole(self, *, jobs: int = 2, failures: int = 4) -> None:
        """Check that each prompt has one outcome, each part one job, each answer its own text, and no file is left."""
        assert Counter(outcome.prompt_id for outcome in self.outcomes) == {f"q{n}": 1 for n in range(PROMPTS)}
        answered = [outcome for outcome in self.outcomes if isinstance(outcome, Completion)]
        assert all(outcome.text == f"say {outcome.prompt_id[1:]} é" for outcome in answered)
        assert len(answered) == PROMPTS - failures
        assert len(self.service.jobs) == jobs
        assert set(self.service.jobs_by_name.values()) == {1}
        assert not self.service.files, "the files of the jobs, and of lost uploads, are removed"


KILLS: list[tuple[Style, str, int, bool]] = [
    *(("openai", step, part, done) for step in ("upload", "create") for part in (0, 1) for done in (False, True)),
    *(("openai", "poll", number, True) for number in (0, 2)),
    *(("openai", "download", number, done) for number in (0, 3) for done in (False, True)),
    ("openai", "delete", 0, True),
    *((style, step, 1, True) for style in STYLES[1:] for step in ("upload", "create")),
]
"""The service, the step at which the process is killed, how often the step came before, and whether it was done."""


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(("style", "step", "number", "is_after"), KILLS)
def test_a_run_that_is_killed_at_a_step_ends_with_one_outcome_a_prompt_and_one_job_a_part(
    style: Style, step: str, number: int, is_after: bool, prompt_file: Path, tmp_path: Path
):
    started, ended = threading.Event(), threading.Event()
    running: list[Process] = []

    def kill() -> None:
        started.wait(60)
        running[0].kill()
        ended.wait(60)

    def fault(at: str, count: int) -> dict[str, Any] | None:
        if (at, count) != (step, number) or ended.is_set():
            return None
        return {"lost": True, "after" if is_after else "instead": kill}

    with BatchService(style=style, states=lambda _: QUICK, status=failing, rearrange=shuffled, fault=fault) as service:
        run = Run(service, prompt_file, tmp_path)
        running.append(run.start())
        started.set()
        with running[0]:
            assert running[0].wait(120) == -9
        ended.set()
        code, printed = run.resume("--keep-failures")
        assert code == 1, printed
        run.assert_whole()


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("style", STYLES)
def test_a_detached_run_of_each_service_is_collected_elsewhere_in_whatever_order(
    style: Style, prompt_file: Path, tmp_path: Path
):
    states = ("validating", *["in_progress"] * 1000)

    def oddities(lines: list[Line]) -> list[Line]:
        """Return the lines shuffled, with a doubled result and one of a request that was never sent."""
        return shuffled([*lines, lines[0], {**lines[1], "custom_id": "unknown"}])

    with BatchService(style=style, states=lambda _: states, status=failing, rearrange=oddities) as service:
        run = Run(service, prompt_file, tmp_path)
        code, printed = run.process("batch.detach=true")
        assert (code, summary_of(run.folder).status) == (0, "SUBMITTED"), printed
        assert "2 jobs of 200 prompts submitted" in printed
        assert not run.outcomes
        code, printed = run.resume("batch.detach=true")
        assert (code, summary_of(run.folder).status) == (0, "SUBMITTED"), printed
        for job in service.jobs.values():
            job.states = ["in_progress", "completed"]
        code, printed = run.resume("--keep-failures")
        assert (code, summary_of(run.folder).status) == (1, "FINISHED"), printed
        assert "came twice" in printed
        assert "not its own ('unknown')" in printed
        run.assert_whole()


def in_process(service: BatchService, prompt_file: Path, folder: Path, *overrides: str) -> list[Outcome]:
    """Run, or resume, in this process with short waits, and return the outcomes."""
    if folder.exists():
        app.resume(folder, waits=WAITS)
    else:
        folder.mkdir()
        given = [
            *service.overrides(),
            "prompts=file",
            f"prompts.path={prompt_file}",
            "batch.mode=job",
            "batch.size=auto",
        ]
        app.run(compose_config([*given, "tracking=off", *overrides]), folder, waits=WAITS)
    return list(RunFolder(folder).outcomes.read())


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("endpoint", ["chat", "responses", "completions"])
def test_every_endpoint_has_jobs(endpoint: str, prompt_file: Path, tmp_path: Path):
    with BatchService(rearrange=shuffled) as service:
        outcomes = in_process(service, prompt_file, tmp_path / "run", f"provider.endpoint={endpoint}")
    texts = {outcome.prompt_id: outcome.text for outcome in outcomes if isinstance(outcome, Completion)}
    assert texts == {f"q{n}": f"say {n} é" for n in range(PROMPTS)}
    metrics = summary_of(tmp_path / "run").metrics
    assert metrics["output_tokens"] == 3 * PROMPTS
    assert not [name for name in metrics if name.startswith(("latency", "time_to_first"))], "a job has none"


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("style", STYLES)
def test_an_expired_job_keeps_what_it_did_and_only_the_rest_is_sent_again(
    style: Style, prompt_file: Path, tmp_path: Path
):
    def states(number: int) -> Sequence[str]:
        return ("in_progress", "expired" if number == 0 else "completed")

    with BatchService(style=style, states=states, executed=lambda number: number < 120) as service:
        first = in_process(service, prompt_file, tmp_path / "run")
        kept = {outcome.prompt_id for outcome in first if isinstance(outcome, Completion)}
        assert len(kept) == 120
        failures = [outcome.error for outcome in first if isinstance(outcome, Failure)]
        assert {(error.type, error.retryable) for error in failures} == {("expired", True)}
        outcomes = in_process(service, prompt_file, tmp_path / "run")
        assert len(outcomes) == PROMPTS
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        again = {request["body"]["messages"][-1]["content"] for request in service.input_lines[1]}
    assert again == {f"say {n} é" for n in range(PROMPTS) if f"q{n}" not in kept}
    assert len(service.jobs) == 2


@pytest.mark.usefixtures("keys")
def test_a_file_that_is_refused_ends_the_run_with_the_services_words(prompt_file: Path, tmp_path: Path):
    with BatchService() as service:
        run = Run(service, prompt_file, tmp_path)
        code, printed = run.process("provider.job.line_url=/v1/completions", "batch.size=auto")
    assert code == 1
    assert "line 1: The url /v1/completions does not match /v1/chat/completions. (url_mismatch)" in printed
    assert "runner.resume" in printed
    assert "Traceback" not in printed


@pytest.mark.usefixtures("keys")
def test_a_full_queue_is_waited_for_and_the_part_created_again(prompt_file: Path, tmp_path: Path):
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}

    def states(number: int) -> Sequence[str]:
        return ("validating", "failed") if number == 1 else ("validating", "in_progress", "in_progress", "completed")

    with BatchService(states=states, errors=[full]) as service:
        outcomes = in_process(service, prompt_file, tmp_path / "run", "batch.size=100")
        assert len({outcome.prompt_id for outcome in outcomes if isinstance(outcome, Completion)}) == PROMPTS
        assert [job.batch["status"] for job in service.jobs.values()] == ["completed", "failed", "completed"]
        assert not service.files


@pytest.mark.usefixtures("keys")
def test_azure_refuses_a_job_before_it_reads_the_file_and_the_job_is_created_later(prompt_file: Path, tmp_path: Path):
    body = {"error": {"code": "BadRequest", "message": "token_limit_exceeded: the enqueued tokens exceed the quota"}}

    def fault(step: str, number: int) -> dict[str, Any] | None:
        return {"status": 400, "body": body} if (step, number) == ("create", 1) else None

    with BatchService(style="azure-v1", fault=fault) as service:
        outcomes = in_process(service, prompt_file, tmp_path / "run", "batch.size=100")
    assert len({outcome.prompt_id for outcome in outcomes if isinstance(outcome, Completion)}) == PROMPTS
    assert set(service.jobs_by_name.values()) == {1}


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["provider.service_tier=flex"], "provider.service_tier='flex' is for single requests"),
        (["provider.job=null"], "provider.job=null says that this server has no batch jobs"),
    ],
)
def test_what_a_job_cannot_have_is_refused_before_anything_is_sent(
    overrides: list[str], words: str, prompt_file: Path, tmp_path: Path
):
    with BatchService() as service:
        run = Run(service, prompt_file, tmp_path)
        code, printed = run.process(*overrides)
        assert not service.headers
    assert code == 2
    assert words in printed


@pytest.mark.usefixtures("keys")
def test_a_lost_answer_to_each_step_changes_nothing(prompt_file: Path, tmp_path: Path):
    lost: set[str] = set()

    def fault(step: str, _number: int) -> dict[str, Any] | None:
        if step in lost:
            return None
        lost.add(step)
        return {"cut": 900} if step == "download" else {"lost": True}

    with BatchService(status=failing, rearrange=shuffled, fault=fault) as service:
        outcomes = in_process(service, prompt_file, tmp_path / "run", "batch.size=100")
        assert lost == {"upload", "file", "create", "list", "poll", "download", "files", "delete"}
        assert Counter(outcome.prompt_id for outcome in outcomes) == {f"q{n}": 1 for n in range(PROMPTS)}
        assert set(service.jobs_by_name.values()) == {1}
        assert len(service.jobs) == 2
        assert not service.files


def interrupted(run: Run, *, answer: Callable[[Process], None]) -> int:
    """Interrupt a run once its jobs are open, and return its exit code."""
    with run.start("batch.size=auto") as process:
        while not any(job.polls for job in run.service.jobs.values()):
            assert process.poll() is None
        answer(process)
        process.communicate(timeout=120)
    return process.wait()


@pytest.mark.usefixtures("keys")
def test_an_interrupted_run_leaves_its_job_and_another_process_collects_it(prompt_file: Path, tmp_path: Path):
    with BatchService(states=lambda _: ("validating", *["in_progress"] * 1000)) as service:
        run = Run(service, prompt_file, tmp_path)
        assert interrupted(run, answer=Process.terminate) in (130, 143)
        (job,) = service.jobs.values()
        assert job.batch["status"] == "in_progress", "without a terminal the job is left as it is"
        job.states = ["in_progress", "completed"]
        code, printed = run.resume()
        assert code == 0, printed
        run.assert_whole(jobs=1, failures=0)


@pytest.mark.usefixtures("keys")
def test_a_job_that_was_cancelled_elsewhere_gives_what_it_did_and_the_rest_is_sent_again(
    prompt_file: Path, tmp_path: Path
):
    with BatchService(states=lambda _: QUICK, executed=lambda number: number < 70) as service:
        run = Run(service, prompt_file, tmp_path)
        service.states = lambda _: ("validating", *["in_progress"] * 1000)
        code, printed = run.process("batch.detach=true", "batch.size=auto")
        assert code == 0, printed
        service.states = lambda _: QUICK
        (job,) = service.jobs.values()
        service._cancel(["batches", job.batch["id"]])
        code, printed = run.resume()
        assert code == 0, printed
        run.assert_whole(jobs=2, failures=0)
        assert [len(lines) for lines in service.input_lines] == [200, 130]


@pytest.mark.usefixtures("keys")
def test_a_plan_of_jobs_sends_nothing(prompt_file: Path, tmp_path: Path):
    with BatchService() as service:
        run = Run(service, prompt_file, tmp_path)
        given = [override for override in run.overrides if not override.startswith("hydra.")]
        done = processes.run(["runner.plan", *given], cwd=run.elsewhere, env=os.environ)
        assert not service.headers
    assert done.returncode == 0, done.stderr
    assert "2" in done.stdout
    assert "up to 24h" in done.stdout
