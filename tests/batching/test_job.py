"""Mode job: every prompt gets one outcome and every part one job, whatever the service does and wherever a process dies."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runner.batching.base import PendingPrompts
from runner.batching.job import JOB
from runner.batching.job_context import JobContext
from runner.config.schema import BatchConfig, GenerationParams
from runner.dispatch.budget import Budget
from runner.errors import AccessError, BudgetError, ConfigError, ServiceError, Submitted
from runner.pricing import Price, Rates
from runner.record.folder import RunFolder
from runner.record.jobs import JobLog, JobRecord, as_ranges, duration_s, job_times
from runner.types import Completion, Failure, Outcome
from tests.batching.job_service import JobService, JobServiceProvider, Killed
from tests.conftest import Compose
from tests.factories import numbered

STEPS = (
    *((when, hook) for hook in ("upload", "create", "poll", "collect") for when in ("before", "after")),
    ("after", "results"),
    ("before", "remove_files"),
    ("before", "find"),
)


class JobRun:
    """A run in mode job, process after process, over one service and one folder."""

    def __init__(self, folder: Path, params: GenerationParams, service: JobService, count: int = 20) -> None:
        self.service, self.folder, self.params, self.prompts = service, RunFolder(folder), params, numbered(count)
        self.outcomes: list[Outcome] = []
        self.processes = 0
        self.budget = Budget(None, None)
        self.asked: list[Sequence[JobRecord]] = []

    @property
    def completed(self) -> set[str]:
        return {outcome.prompt_id for outcome in self.outcomes if isinstance(outcome, Completion)}

    @property
    def jobs(self) -> list[JobRecord]:
        return self.folder.read_jobs()

    def process(
        self,
        *,
        keep_failures: bool = False,
        size: int | None = 8,
        detach: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        should_cancel: bool = False,
    ) -> None:
        """Do what one process of the run does, until it is killed or the mode has ended."""

        def cancel(jobs: Sequence[JobRecord]) -> bool:
            self.asked.append(jobs)
            return should_cancel

        context = JobContext(
            run_key="abc", model_id="m", folder=self.folder.path, detach=detach, max_attempts=3,
            jobs=JobLog(self.folder.read_jobs(), self.folder.write_jobs), min_poll_s=0.001, max_poll_s=0.002,
            budget=self.budget, should_cancel=cancel, resume_command="resume RUN",
            recorded_ids=lambda number: {outcome.prompt_id for outcome in self.outcomes if outcome.batch == number},
        )  # fmt: skip
        skipped = {outcome.prompt_id for outcome in self.outcomes} if keep_failures else self.completed
        pending = PendingPrompts(
            prompts=self.prompts, skipped=skipped, segment=self.processes, should_stop=should_stop, jobs=context
        )
        self.processes += 1
        config = BatchConfig(mode="job", size=size or "auto", order="given", warmup=0, detach=detach)
        for outcomes in JOB.generate(JobServiceProvider(self.service), pending, self.params, config):
            self.outcomes += outcomes

    def until_done(self) -> None:
        """Start processes until one is not killed."""
        for _ in range(5):
            try:
                return self.process(keep_failures=True)
            except Killed:
                continue
        raise AssertionError("killed too often")


@pytest.fixture
def params(config: Compose) -> GenerationParams:
    return config("provider=echo").params()


@pytest.fixture
def start(tmp_path: Path, params: GenerationParams) -> Callable[..., JobRun]:
    def start(*, count: int = 20, **service: object) -> JobRun:
        return JobRun(tmp_path, params, JobService(**service), count)  # type: ignore[arg-type]

    return start


def test_prompts_become_jobs_of_batch_size_and_every_prompt_has_its_own_answer(start: Callable[..., JobRun]):
    run = start(count=20)
    run.process(size=8)
    assert [len(job.lines) for job in run.service.jobs.values()] == [8, 8, 4]
    assert {o.prompt_id: o.text for o in run.outcomes if isinstance(o, Completion)} == {
        prompt.id: prompt.text.upper() for prompt in run.prompts
    }
    assert Counter(outcome.batch for outcome in run.outcomes) == {0: 8, 1: 8, 2: 4}
    assert all(outcome.timing.latency_s is None for outcome in run.outcomes)
    assert all(job.is_collected for job in run.jobs)
    assert len(run.service.removed) == 3
    assert not list(run.folder.path.glob("*.jsonl")), "no job file is left"


def test_batch_size_auto_makes_as_few_jobs_as_the_service_takes(start: Callable[..., JobRun]):
    run = start(count=120)
    run.process(size=None)
    assert [len(job.lines) for job in run.service.jobs.values()] == [50, 50, 20]


def test_a_job_file_keeps_to_the_bytes_that_the_service_takes(start: Callable[..., JobRun]):
    run = start(count=10, max_bytes=250)
    run.process(size=8)
    assert len(run.service.jobs) > 2
    assert len(run.completed) == 10


@pytest.mark.parametrize(("when", "hook"), STEPS, ids=lambda part: str(part))
@pytest.mark.parametrize("earlier_kill", [None, "create"])
def test_a_kill_at_any_step_leaves_one_job_per_part_and_one_outcome_per_prompt(
    when: str, hook: str, earlier_kill: str | None, start: Callable[..., JobRun]
):
    run = start(failing={"3"}, oddities=["unknown", "unknown"])
    run.service.kill_after = earlier_kill
    if earlier_kill:
        with pytest.raises(Killed):
            run.process()
    setattr(run.service, f"kill_{when}", hook)
    run.until_done()
    assert len(run.service.jobs) == len({job.name for job in run.service.jobs.values()}) == 3
    assert Counter(outcome.prompt_id for outcome in run.outcomes) == {prompt.id: 1 for prompt in run.prompts}
    assert [outcome.prompt_id for outcome in run.outcomes if isinstance(outcome, Failure)] == [run.prompts[3].id]
    assert all(job.is_collected and job.is_cleaned for job in run.jobs)


def test_detached_jobs_are_collected_by_another_process(start: Callable[..., JobRun]):
    run = start()
    with pytest.raises(Submitted, match=r"3 jobs of 20 prompts submitted \(the service takes a day\); .*resume RUN"):
        run.process(detach=True)
    assert "poll" not in run.service.calls
    with pytest.raises(Submitted):
        run.process(detach=True)
    assert run.service.calls.count("poll") == 3, "a resume that detaches polls each job once"
    run.process()
    assert len(run.completed) == 20
    assert len(run.service.jobs) == 3


def test_what_an_expired_job_finished_is_kept_and_the_rest_is_submitted_on_resume(start: Callable[..., JobRun]):
    run = start(end="expired", answered=5)
    run.process(size=50)
    assert len(run.completed) == 5
    failures = [outcome for outcome in run.outcomes if isinstance(outcome, Failure)]
    assert {failure.error.type for failure in failures} == {"expired"}
    assert len(failures) == 15
    assert all(failure.error.retryable for failure in failures)
    run.service.end, run.service.answered = "completed", None
    run.process(size=50)
    assert len(run.completed) == 20
    assert [len(job.lines) for job in run.service.jobs.values()] == [20, 15]


def test_a_job_that_expired_while_nobody_watched_is_collected_and_its_rest_submitted_at_once(
    start: Callable[..., JobRun],
):
    run = start(end="expired", answered=5, polls_to_end=1)
    with pytest.raises(Submitted):
        run.process(size=50, detach=True)
    run.service.polls_to_end = 2
    next(iter(run.service.jobs.values())).polls = 2
    with pytest.raises(Submitted):
        run.process(size=50, detach=True)
    assert [len(job.lines) for job in run.service.jobs.values()] == [20, 15]
    assert not any(isinstance(outcome, Failure) for outcome in run.outcomes)


def test_too_few_prompts_for_another_job_are_failures_that_a_later_resume_may_submit(start: Callable[..., JobRun]):
    run = start(end="expired", answered=5, min_requests=16)  # which leaves 15
    with pytest.raises(Submitted):
        run.process(size=50, detach=True)
    run.process(size=50)
    failures = [outcome for outcome in run.outcomes if isinstance(outcome, Failure)]
    assert (len(run.completed), len(failures), len(run.service.jobs)) == (5, 15, 1)
    assert all(failure.error.retryable and failure.error.type == "expired" for failure in failures)
    with pytest.raises(ConfigError, match="--keep-failures"):
        run.process(size=50)


def test_a_refused_job_ends_the_run_with_the_services_reasons(start: Callable[..., JobRun]):
    run = start(refusal=("line 3: no such model (model_not_found)",))
    with pytest.raises(
        ServiceError, match=r"job job_0 \(failed\).*8 prompts:\n  line 3: no such model.*\n.*resume RUN"
    ):
        run.process()
    run.service.refusal = ()
    run.process()
    assert len(run.completed) == 20
    assert [len(job.lines) for job in run.service.jobs.values()] == [8, 8, 4, 8]


def test_the_accounts_full_queue_is_waited_for_by_submitting_the_next_part_when_one_ends(start: Callable[..., JobRun]):
    run = start(max_open=1)
    run.process(size=5)
    assert len(run.completed) == 20
    assert len(run.service.jobs) == 4


def test_a_broken_download_is_read_again_and_counts_nothing_twice(start: Callable[..., JobRun]):
    run = start(breaks_after=4)
    run.process()
    assert Counter(outcome.prompt_id for outcome in run.outcomes) == {prompt.id: 1 for prompt in run.prompts}


def test_unknown_results_are_said_and_ignored(start: Callable[..., JobRun], caplog: pytest.LogCaptureFixture):
    run = start(oddities=["nobody"])
    with caplog.at_level(logging.WARNING):
        run.process(size=50)
    assert "1 results of requests that are not its own ('nobody')" in caplog.text
    assert len(run.completed) == 20


def test_few_prompts_are_refused_before_anything_is_uploaded(start: Callable[..., JobRun]):
    run = start(min_requests=15)
    with pytest.raises(ConfigError, match=r"20 prompts in jobs of batch.size=16 would leave a job of 4.*15 at least"):
        run.process(size=16)
    assert not run.service.calls


def test_a_prompt_that_no_file_can_hold_fails_alone(start: Callable[..., JobRun]):
    run = start(unsendable={"3", "19"})
    run.process(size=8)
    failures = {o.prompt_id: o.error.type for o in run.outcomes if isinstance(o, Failure)}
    assert failures == {"p3": "Unsendable", "p19": "Unsendable"}
    assert len(run.completed) == 18
    assert [len(job.lines) for job in run.service.jobs.values()] == [7, 8, 3]


@pytest.mark.parametrize("should_cancel", [False, True])
def test_a_stop_leaves_the_jobs_unless_a_person_cancels_them(should_cancel: bool, start: Callable[..., JobRun]):
    run = start(polls_to_end=10**6)
    run.process(size=50, should_stop=lambda: "poll" in run.service.calls, should_cancel=should_cancel)
    assert len(run.asked) == 1
    assert run.service.calls.count("cancel job_0") == should_cancel
    assert not run.outcomes
    run.service.polls_to_end = 1
    run.process(size=50)
    assert len(run.completed) == 20


def test_a_part_that_could_pass_the_budget_is_not_uploaded(start: Callable[..., JobRun], params: GenerationParams):
    run = start(count=10)
    rates = Rates(above_tokens=-1, input_usd=0, cached_input_usd=0, cache_written_usd=0, output_usd=1.0)
    part = 5 * params.max_tokens
    run.budget = Budget(part - 1, Price(rates=(rates,), source="a test"))
    with pytest.raises(BudgetError, match=r"limits\.max_cost_usd"):
        run.process(size=5)
    assert not run.service.calls
    # room for one part at its worst: the second is formed when the first has ended, and its answers (2 tokens each) count
    run.budget = Budget(part + 11, Price(rates=(rates,), source="a test"))
    run.process(size=5)
    assert len(run.completed) == 10


def test_a_service_that_refuses_the_first_request_is_a_wrong_request(start: Callable[..., JobRun]):
    run = start(max_open=0)

    class Refusing(JobServiceProvider):
        def upload(self, file: object, name: str) -> str:
            from runner.providers.errors import FATAL, CallError

            # the message has the advice, as every provider's
            raise CallError("AccessDenied", "not authorized: check the role", replace(FATAL, advice="check the role"))

    jobs = JobLog([], run.folder.write_jobs)
    context = JobContext(
        run_key="abc", model_id="m", folder=run.folder.path, detach=False, max_attempts=3, jobs=jobs,
        min_poll_s=0.001, max_poll_s=0.002, budget=run.budget, should_cancel=lambda _: False,
        resume_command="resume RUN", recorded_ids=lambda _: set(),
    )  # fmt: skip
    pending = PendingPrompts(prompts=run.prompts, jobs=context)
    config = BatchConfig(mode="job", size=5, order="given", warmup=0, detach=False)
    with pytest.raises(AccessError, match=r"^AccessDenied: not authorized: check the role$"):
        list(JOB.generate(Refusing(run.service), pending, run.params, config))


def test_ranges_and_times_of_jobs(start: Callable[..., JobRun]):
    assert as_ranges([0, 1, 2, 5, 7, 8]) == ((0, 2), (5, 5), (7, 8))
    run = start()
    run.process()
    assert job_times(run.jobs) == {"job_queue_s": 10.0, "job_run_s": 20.0}
    planned = [replace(job, planned_at=job.created_at or job.planned_at) for job in run.jobs]
    assert duration_s(planned) == 30.0
    assert job_times([replace(run.jobs[0], started_at=None), *run.jobs[1:]]) == {}
    assert duration_s([replace(job, ended_at=None) for job in run.jobs]) is None
