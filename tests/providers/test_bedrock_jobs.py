"""provider=bedrock: its hooks of batch jobs, against a local control plane and moto's S3."""

import asyncio
import io
import json
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runner.config.schema import RunConfig
from runner.errors import ConfigError
from runner.providers.bedrock import BedrockProvider
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.providers.protocols import JobProvider, JobResult
from runner.types import Prompt
from tests.conftest import Compose
from tests.providers.bedrock import FAMILIES, SECRET, ComposeBedrock, prompt
from tests.servers.bedrock_jobs_server import BUCKET, INPUT, OPEN, SUBMITTED, BedrockJobs, Error, Script
from tests.servers.bedrock_server import BedrockServer, Refusal

pytestmark = pytest.mark.usefixtures("aws_credentials")
NAME = "runner-5f2c-0"


@pytest.fixture
def service() -> Iterator[BedrockJobs]:
    with BedrockJobs() as serving:
        yield serving


@pytest.fixture
def jobs(config: Compose, service: BedrockJobs) -> ComposeBedrock:
    """Compose a configuration for the local service; keyword arguments are settings of jobs."""

    def composed(*overrides: str, **settings: object) -> RunConfig:
        return config(
            "provider=bedrock",
            "provider.region=us-east-1",
            "batch.mode=job",
            *service.overrides(**settings),
            *overrides,
        )

    return composed


def prompts(texts: Sequence[str]) -> dict[str, Prompt]:
    return {f"id{number}": prompt(text, id=f"id{number}") for number, text in enumerate(texts)}


def file_of(provider: JobProvider, config: RunConfig, asked: dict[str, Prompt]) -> io.BytesIO:
    lines = [provider.job_line(custom_id, one, config.params()) for custom_id, one in asked.items()]
    return io.BytesIO(b"".join(line + b"\n" for line in lines))


def submit(provider: JobProvider, config: RunConfig, asked: dict[str, Prompt]) -> tuple[str, str]:
    """Upload and create a job; return where its records are, and its id."""
    source = provider.upload(file_of(provider, config, asked), NAME)
    return source, provider.create(source, NAME)


def end(provider: JobProvider, job_id: str) -> str:
    """Poll a job to its end; return its last state."""
    while (status := provider.poll(job_id)).phase == "open":
        pass
    return status.state


def results(config: RunConfig, asked: dict[str, Prompt]) -> list[JobResult]:
    """Return the results of a whole job."""
    with opened(config) as provider:
        _, job_id = submit(provider, config, asked)
        end(provider, job_id)
        return list(provider.collect(job_id, config.params()))


def opened(config: RunConfig) -> BedrockProvider:
    provider = build(config)
    assert isinstance(provider, BedrockProvider)
    return provider


@pytest.mark.parametrize(("api", "family"), [("converse", "nova"), *(("invoke", family) for family in FAMILIES)])
def test_a_job_answers_every_record_as_a_single_request_is_answered(
    api: str, family: str, jobs: ComposeBedrock, service: BedrockJobs
):
    config = jobs(f"model.id={FAMILIES[family]}", f"provider.api={api}", "generation.max_tokens=3")
    asked = prompts(["one two", "a b c d", "yes"])
    done = {result.custom_id: result.generated for result in results(config, asked)}
    texts = {key: generated.answers[0].text for key, generated in done.items() if generated}
    assert texts == {"id0": "one two", "id1": "a b c", "id2": "yes"}, "an answer repeats up to max_tokens words"
    assert {key: generated.answers[0].finish_reason for key, generated in done.items() if generated} == {
        "id0": "stop", "id1": "length", "id2": "stop",
    }  # fmt: skip
    (job,) = service.jobs
    assert job.request["modelInvocationType"] == ("Converse" if api == "converse" else "InvokeModel")
    assert job.request["modelId"] == FAMILIES[family]


@pytest.mark.parametrize(("api", "family"), [("converse", "anthropic"), *(("invoke", family) for family in FAMILIES)])
def test_a_records_input_is_the_body_of_a_single_request(
    api: str, family: str, jobs: ComposeBedrock, server: BedrockServer
):
    sampling = ["generation.temperature=0.5", "generation.top_p=0.9"]
    sampling += ["generation.top_k=4"] if family in ("anthropic", "nova", "mistral") else []
    config = jobs(
        f"model.id={FAMILIES[family]}", f"provider.api={api}", f"provider.endpoint_url={server.url}", *sampling
    )
    one = prompt("Wie geht's? \U0001f642", system="Be brief.")
    with opened(config) as provider:
        record = json.loads(provider.job_line("id0", one, config.params()))
        asyncio.run(provider.generate(one, config.params()))
    assert record == {"recordId": "id0", "modelInput": server.seen[0].body}


def test_an_answer_of_a_job_has_the_jobs_time_and_no_latency(jobs: ComposeBedrock):
    (result,) = results(jobs(), prompts(["one two"]))
    assert result.generated is not None
    timing = result.generated.timing
    assert (timing.started_at, timing.latency_s, timing.time_to_first_token_s) == (SUBMITTED, None, None)
    (answer,) = result.generated.answers
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 2), "the local model's tokens are words"


def test_polls_have_the_services_words_counters_and_times(jobs: ComposeBedrock):
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts(["a", "b"]))
        statuses = [provider.poll(job_id) for _ in range(5)]
    assert [(status.state, status.phase) for status in statuses] == [
        *((state, "open") for state in OPEN), ("Completed", "ended"),
    ]  # fmt: skip
    assert [status.total for status in statuses] == [None, None, None, None, 2], "0 is not yet counted"
    last = statuses[-1]
    assert (last.completed, last.failed, last.reasons) == (2, 0, ())
    assert (last.created_at, last.started_at, last.ended_at) == (SUBMITTED, None, SUBMITTED + timedelta(hours=1))


@pytest.mark.parametrize(
    ("script", "state", "answered"),
    [
        (Script(states=("InProgress", "PartiallyCompleted"), processed=2), "PartiallyCompleted", 2),
        (Script(states=("Scheduled", "Expired"), processed=0), "Expired", 0),
        (Script(states=("InProgress", "Stopped"), processed=1), "Stopped", 1),
    ],
)
def test_a_job_that_ended_early_keeps_what_it_has_processed(
    script: Script, state: str, answered: int, jobs: ComposeBedrock, service: BedrockJobs
):
    service.scripts.append(script)
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts(["a", "b", "c"]))
        assert end(provider, job_id) == state
        assert len(list(provider.collect(job_id, config.params()))) == answered


def test_a_failed_job_is_refused_with_the_services_words(jobs: ComposeBedrock, service: BedrockJobs):
    service.scripts.append(Script(states=("Validating", "Failed"), message="Line 3: recordId is missing"))
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts(["a"]))
        assert provider.poll(job_id).phase == "open"
        status = provider.poll(job_id)
    assert (status.state, status.phase, status.reasons) == ("Failed", "refused", ("Line 3: recordId is missing",))


def test_a_failed_job_that_has_processed_records_can_be_collected(jobs: ComposeBedrock, service: BedrockJobs):
    service.scripts.append(Script(states=("InProgress", "Failed"), processed=1, message="internal error"))
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts(["a", "b"]))
        service.write_results(service.jobs[0])
        provider.poll(job_id)
        status = provider.poll(job_id)
        assert (status.phase, status.reasons) == ("ended", ("internal error",))
        assert [result.custom_id for result in provider.collect(job_id, config.params())] == ["id0"]


ERRORS: dict[str, tuple[Error, tuple[str, str, bool]]] = {
    "status": ({"errorCode": 400, "errorMessage": "bad request\nmore"}, ("400", "bad request more", False)),
    "throttled": ({"errorCode": 429, "errorMessage": "slow"}, ("429", "slow", True)),
    "server": ({"errorCode": 503, "errorMessage": "later"}, ("503", "later", True)),
    "named": ({"errorCode": "ModelTimeoutException", "errorMessage": "t"}, ("ModelTimeoutException", "t", True)),
    "secret": ({"errorCode": 400, "errorMessage": f"header {SECRET}"}, ("400", "header ***", False)),
    "empty": ({}, ("Refused", "the service gave no reason", False)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_records_error_is_a_failure_with_its_code(name: str, jobs: ComposeBedrock, service: BedrockJobs):
    error, expected = ERRORS[name]
    service.scripts.append(Script(error=lambda text: error if "refuse me" in text else None))
    done = {result.custom_id: result.generated for result in results(jobs(), prompts(["a", "refuse me"]))}
    assert done["id0"] is not None
    assert done["id0"].error is None
    assert done["id1"] is not None
    info = done["id1"].error
    assert info is not None
    assert (info.type, info.message, info.retryable) == expected
    assert (done["id1"].answers, done["id1"].lost_answers) == ((), 0)


@pytest.mark.parametrize(
    ("output", "type_"),
    [
        ({"modelOutput": None}, "AnswerCut"),
        (
            {"modelOutput": {"output": {"message": {"content": [{"text": 7}]}}, "stopReason": "end_turn"}},
            "MalformedAnswer",
        ),
        ({"modelOutput": {"output": {"message": {"content": [{"text": "cut"}]}}}}, "AnswerCut"),
        (
            {
                "modelOutput": {
                    "output": {"message": {"content": [{"text": "x" * (2 << 20)}]}},
                    "stopReason": "end_turn",
                }
            },
            "AnswerTooLarge",
        ),
    ],
)
def test_an_output_that_cannot_be_read_fails_its_own_record(
    output: dict[str, Any], type_: str, jobs: ComposeBedrock, service: BedrockJobs
):
    def spoil(_: int, line: str) -> str:
        record = json.loads(line)
        return json.dumps(record | output) if record["recordId"] == "id1" else line

    service.scripts.append(Script(output=spoil))
    done = {result.custom_id: result.generated for result in results(jobs("generation.max_tokens=8"), prompts("abc"))}
    errors = {key: generated.error for key, generated in done.items() if generated is not None}
    assert errors["id0"] is None and errors["id2"] is None
    assert errors["id1"] is not None and errors["id1"].type == type_
    assert done["id1"] is not None and done["id1"].lost_answers == 1, "it may be billed"


def test_lines_that_are_no_records_are_skipped_and_said(
    jobs: ComposeBedrock, service: BedrockJobs, caplog: pytest.LogCaptureFixture
):
    odd = ["{", '{"recordId": 7}', "[]"]
    service.scripts.append(Script(output=lambda number, line: odd[number] if number < 3 else line))
    assert len(results(jobs(), prompts("abcde"))) == 2
    assert "3 lines of its results cannot be read" in caplog.text
    assert "its manifest counts 5 answers and 0 errors, its files of results have 2 and 0" in caplog.text


def test_a_line_is_held_no_further_than_its_bound(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs("generation.max_tokens=8")
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts("ab"))
        end(provider, job_id)
        (key,) = [key for key in service.list_keys() if key.endswith(".jsonl.out")]
        endless = b'{"recordId": "id0", "x": "' + b"x" * (30 << 20)  # 25,000,000 bytes and those of an answer are held
        line = b'{"recordId": "id1", "error": {"errorCode": 400, "errorMessage": "no"}}'
        service.storage.put_object(Bucket=BUCKET, Key=key, Body=endless + b"\n" + line)
        assert [result.custom_id for result in provider.collect(job_id, config.params())] == ["id1"]


def test_a_manifest_that_counts_as_the_results_do_is_no_news(jobs: ComposeBedrock, caplog: pytest.LogCaptureFixture):
    results(jobs(), prompts("abc"))
    assert "manifest" not in caplog.text


def test_results_without_a_manifest_are_complete(
    jobs: ComposeBedrock, service: BedrockJobs, caplog: pytest.LogCaptureFixture
):
    service.scripts.append(Script(manifest=None))
    assert len(results(jobs(), prompts("abc"))) == 3
    assert "manifest" not in caplog.text


def test_a_file_of_many_parts_arrives_whole(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs()
    text = "word " * 20_000  # 100,000 bytes: 200 records are 20 MB, which is more than two parts of 8 MiB
    asked = prompts([text] * 200)
    with opened(config) as provider:
        source = provider.upload(file_of(provider, config, asked), NAME)
    assert source == f"{INPUT}/{NAME}.jsonl"
    assert [record["recordId"] for record in service.records(source)] == list(asked)


def test_a_lost_answer_to_create_makes_one_job(jobs: ComposeBedrock, service: BedrockJobs):
    lost = iter([True])
    service.on_step = lambda step: step == "created" and next(lost, False)
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts("a"))
        assert provider.find(NAME) == job_id
    assert (len(service.jobs), dict(service.tokens)) == (1, {NAME: 2}), "the SDK has sent the same token again"


def test_a_job_is_found_by_its_whole_name_on_any_page(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs()
    with opened(config) as provider:
        source = provider.upload(file_of(provider, config, prompts("a")), NAME)
        job_id = provider.create(source, NAME)
        provider.create(source, f"{NAME}1")
        provider.create(source, f"{NAME}2")
        assert provider.find(NAME) == job_id
        assert provider.find("runner-5f2c") is None


def test_a_wrong_role_is_refused_with_the_remedy_and_leaves_nothing(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs(role_arn="arn:aws:iam::123456789012:role/other")
    with opened(config) as provider, pytest.raises(CallError) as caught:
        submit(provider, config, prompts("a"))
    assert "cannot assume the role arn:aws:iam::123456789012:role/other" in str(caught.value), "the service's words"
    assert "check provider.job.role_arn" in str(caught.value)
    assert (caught.value.policy.retryable, caught.value.policy.throttled) == (False, False)
    assert service.list_keys() == []


def test_a_refused_job_keeps_its_records_where_files_are_kept(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs(role_arn="arn:aws:iam::123456789012:role/other", keep_files="true")
    with opened(config) as provider, pytest.raises(CallError):
        submit(provider, config, prompts("a"))
    assert service.list_keys() == [f"in/{NAME}.jsonl"]


def test_a_full_quota_of_jobs_is_throttled_and_keeps_the_records(jobs: ComposeBedrock, service: BedrockJobs):
    refusal = Refusal(400, "ServiceQuotaExceededException", "You have 20 jobs in progress")
    service.refusals["CreateModelInvocationJob"] = deque([refusal])
    config = jobs()
    with opened(config) as provider:
        source = provider.upload(file_of(provider, config, prompts("a")), NAME)
        with pytest.raises(CallError, match=r"20 jobs in progress.*Service Quotas") as caught:
            provider.create(source, NAME)
        assert caught.value.policy.throttled
        assert provider.create(source, NAME) == service.jobs[0].arn


@pytest.mark.parametrize(
    ("operation", "refusal", "words"),
    [
        ("CreateModelInvocationJob", Refusal(403, "AccessDeniedException", "not authorized"), "iam:PassRole"),
        ("CreateModelInvocationJob", Refusal(403, "UnrecognizedClientException", "bad token"), "AWS_ACCESS_KEY_ID"),
        ("GetModelInvocationJob", Refusal(403, "AccessDeniedException", "no"), "bedrock:GetModelInvocationJob"),
        ("GetModelInvocationJob", Refusal(403, "ExpiredTokenException", "expired"), "aws sso login"),
    ],
)
def test_a_refusal_of_the_control_plane_names_the_remedy(
    operation: str, refusal: Refusal, words: str, jobs: ComposeBedrock, service: BedrockJobs
):
    service.refusals[operation] = deque([refusal])
    config = jobs()
    with opened(config) as provider, pytest.raises(CallError, match=words) as caught:
        _, job_id = submit(provider, config, prompts("a"))
        provider.poll(job_id)
    assert caught.value.policy.fatal


def test_a_poll_that_is_throttled_is_sent_again(jobs: ComposeBedrock, service: BedrockJobs):
    refusal = Refusal(429, "ThrottlingException", "Rate exceeded")
    service.refusals["GetModelInvocationJob"] = deque([refusal, refusal])
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts("a"))
        assert provider.poll(job_id).state == "Submitted"


def test_a_missing_bucket_is_refused_with_the_remedy(jobs: ComposeBedrock):
    config = jobs(s3_input="s3://no-such-bucket/in")
    with opened(config) as provider, pytest.raises(CallError, match=r"NoSuchBucket.*provider\.job\.s3_input") as caught:
        provider.upload(file_of(provider, config, prompts("a")), NAME)
    assert caught.value.policy.fatal


def test_a_bedrock_key_alone_is_not_enough_for_the_files(jobs: ComposeBedrock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bearer-secret")
    config = jobs()
    with opened(config) as provider, pytest.raises(ConfigError, match="S3 takes no Bedrock API key"):
        provider.upload(file_of(provider, config, prompts("a")), NAME)


def test_a_stopped_job_is_collected_and_one_that_has_ended_is_left(jobs: ComposeBedrock, service: BedrockJobs):
    service.scripts.append(Script(processed=1))
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, prompts("ab"))
        provider.cancel(job_id)
        assert [provider.poll(job_id).state, end(provider, job_id)] == ["Stopping", "Stopped"]
        provider.cancel(job_id)
        assert len(list(provider.collect(job_id, config.params()))) == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_a_jobs_files_are_removed_unless_they_are_kept(keeps: bool, jobs: ComposeBedrock, service: BedrockJobs):
    others = ["in/other.jsonl", "out/000000000001/other.jsonl.out"]
    for key in others:
        service.storage.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    config = jobs(keep_files=str(keeps).lower())
    with opened(config) as provider:
        source, job_id = submit(provider, config, prompts("ab"))
        end(provider, job_id)
        own = set(service.list_keys()) - set(others)
        assert len(own) == 3, "records, results, manifest"
        provider.remove_files(source, job_id)
        provider.remove_files(source, job_id)  # what is gone is gone
    assert set(service.list_keys()) == {*others, *(own if keeps else ())}


def test_a_record_of_a_run_has_nothing_removed_outside_of_the_jobs_folder(jobs: ComposeBedrock, service: BedrockJobs):
    service.storage.put_object(Bucket=BUCKET, Key="payroll/all.jsonl", Body=b"{}")
    with opened(jobs()) as provider:
        provider.remove_files(f"s3://{BUCKET}/payroll/all.jsonl", "arn:aws:bedrock:us-east-1:1:model-invocation-job/x")
    assert service.list_keys() == ["payroll/all.jsonl"]


def test_addresses_of_the_environment_are_used_with_the_bucket_in_the_path(
    jobs: ComposeBedrock, service: BedrockJobs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", service.control_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", service.s3_url.replace("127.0.0.1", "localhost"))
    assert len(results(jobs(control_endpoint_url=None, s3_endpoint_url=None), prompts("ab"))) == 2


def test_limits_and_discount_are_the_services(jobs: ComposeBedrock):
    provider = opened(jobs(min_records=10, timeout_hours=48))
    limits = provider.job_limits()
    assert (limits.min_requests, limits.max_requests, limits.max_bytes) == (10, 50_000, 10**9)
    assert "48 hours" in limits.window
    assert provider.job_discount().ratio == 0.5
    assert "2026" in provider.job_discount().source


@pytest.mark.parametrize("name", ["role_arn", "s3_input", "s3_output"])
def test_a_job_without_a_role_or_a_folder_is_refused(name: str, jobs: ComposeBedrock):
    config = jobs(**{name: None})
    with pytest.raises(ConfigError, match=f"provider.job.{name} is not set"):
        opened(config).validate_jobs(config.params())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"role_arn": "batch"}, "provider.job.role_arn: .*arn:aws:iam::ACCOUNT:role/NAME"),
        ({"role_arn": "arn:aws:iam::12:user/me"}, "provider.job.role_arn"),
        ({"s3_input": "folder/records"}, "provider.job.s3_input: .*s3://BUCKET/FOLDER"),
        ({"s3_output": "s3://Bucket/out"}, "provider.job.s3_output"),
        ({"timeout_hours": 23}, "provider.job.timeout_hours=23"),
        ({"timeout_hours": 169}, "provider.job.timeout_hours=169"),
        ({"s3_endpoint_url": "http://me:planted@127.0.0.1"}, "provider.job.s3_endpoint_url"),
        ({"min_records": 0}, "provider.job.min_records=0"),
        ({"api": "batch"}, "provider.job.api='batch'"),
    ],
)
def test_a_malformed_setting_is_refused(setting: dict[str, object], words: str, jobs: ComposeBedrock):
    with pytest.raises(ConfigError, match=words) as caught:
        build(jobs(**setting))
    assert "planted" not in str(caught.value)


def test_a_provisioned_model_is_refused(jobs: ComposeBedrock):
    config = jobs("model.id=arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc")
    with pytest.raises(ConfigError, match="provisioned"):
        opened(config).validate_jobs(config.params())


def test_no_secret_reaches_the_files_of_a_job(jobs: ComposeBedrock, service: BedrockJobs, tmp_path: Path):
    config = jobs()
    with opened(config) as provider:
        source, _ = submit(provider, config, prompts("ab"))
        assert SECRET not in str(provider.describe())
    assert SECRET not in json.dumps(service.records(source))
