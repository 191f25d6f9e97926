"""Batch jobs of provider=openai and provider=azure, hook by hook, against a local service with both services' paths."""

import asyncio
import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
from openai.types import Batch, FileObject

from runner.config.schema import GenerationParams, RunConfig
from runner.errors import ConfigError
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.providers.openai.jobs import JobRequestProvider
from runner.providers.protocols import JobProvider, JobResult
from runner.types import Generated
from tests.conftest import Compose
from tests.factories import prompts
from tests.servers.batch_service import BatchService, Line, Style, shuffled
from tests.servers.openai_server import KEY, OpenAIServer

ENDPOINTS = ("chat", "responses", "completions")
STYLES: tuple[Style, ...] = ("openai", "azure-v1", "azure-dated")
LINE_URLS = {"openai": "/v1/chat/completions", "azure-v1": "/v1/chat/completions", "azure-dated": "/chat/completions"}
JOB_ENDPOINTS = {**LINE_URLS, "azure-v1": "/chat/completions"}
TEXTS = ("one", "one two", "one two three", "un deux trois quatre é 漢")


class Hooks:
    """A provider whose service is local, and a job of it."""

    def __init__(self, provider: JobRequestProvider, config: RunConfig, service: BatchService) -> None:
        self.provider, self.config, self.service, self.params = provider, config, service, config.params()

    def file(self, texts: tuple[str, ...] = TEXTS) -> io.BytesIO:
        lines = [self.provider.job_line(prompt.id, prompt, self.params) for prompt in prompts(*texts)]
        return io.BytesIO(b"".join(line + b"\n" for line in lines))

    def created(self, name: str = "run-0", texts: tuple[str, ...] = TEXTS) -> str:
        return self.provider.create(self.provider.upload(self.file(texts), name), name)

    def ended(self, name: str = "run-0", texts: tuple[str, ...] = TEXTS) -> str:
        """Return the id of a job that has ended."""
        job_id = self.created(name, texts)
        while self.provider.poll(job_id).phase == "open":
            pass
        return job_id

    def results(self, job_id: str) -> list[JobResult]:
        return list(self.provider.collect(job_id, self.params))

    def generated(self, job_id: str) -> dict[str, Generated]:
        return {result.custom_id: result.generated for result in self.results(job_id) if result.generated is not None}


@pytest.fixture
def serve(config: Compose, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hooks]]:
    """Start a service, and build and enter the provider for it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    opened: list[AbstractContextManager[Any]] = []

    def start(style: Style = "openai", *overrides: str, **service: Any) -> Hooks:
        server = BatchService(style=style, **service).__enter__()
        opened.append(server)
        run_config = config(*server.overrides(), *overrides)
        provider = build(run_config)
        assert isinstance(provider, JobRequestProvider)
        opened.append(provider)
        return Hooks(provider.__enter__(), run_config, server)

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)


@pytest.mark.parametrize("style", STYLES)
def test_a_job_is_uploaded_created_polled_and_collected(style: Style, serve: Callable[..., Hooks]):
    hooks = serve(style, rearrange=shuffled)
    source = hooks.provider.upload(hooks.file(), "run-0")
    assert hooks.service.files[source]["filename"] == "run-0.jsonl"
    job_id = hooks.provider.create(source, "run-0")
    states = [hooks.provider.poll(job_id) for _ in range(3)]
    assert [(status.state, status.phase) for status in states] == [
        ("in_progress", "open"), ("finalizing", "open"), ("completed", "ended")
    ]  # fmt: skip
    assert (states[0].total, states[0].completed, states[2].completed, states[2].failed) == (4, 0, 4, 0)
    assert states[2].created_at is not None
    assert states[2].started_at is not None
    assert states[2].ended_at is not None
    assert abs((states[2].created_at - datetime.now(UTC)).total_seconds()) < 60
    texts = {key: generated.answers[0].text for key, generated in hooks.generated(job_id).items()}
    assert texts == {f"p{number}": text for number, text in enumerate(TEXTS)}
    (requests,) = hooks.service.input_lines
    assert {request["url"] for request in requests} == {LINE_URLS[style]}
    (job,) = hooks.service.jobs.values()
    assert job.batch["endpoint"] == JOB_ENDPOINTS[style]
    assert job.batch["metadata"] == {"runner_job": "run-0"}


@pytest.mark.parametrize("style", STYLES)
def test_what_the_service_sends_has_the_shape_of_the_sdks_types(style: Style, serve: Callable[..., Hooks]):
    hooks = serve(style)
    hooks.ended()
    (job,) = hooks.service.jobs.values()
    Batch.model_validate({key: value for key, value in job.batch.items() if not key.startswith("_")}, strict=True)
    for file in hooks.service.files.values():
        FileObject.model_validate({key: value for key, value in file.items() if key != "content"}, strict=True)


def answered_singly(provider: JobRequestProvider, texts: Sequence[str], params: GenerationParams) -> list[Generated]:
    """Send single requests."""

    async def send() -> list[Generated]:
        async with provider:
            return [await provider.generate(prompt, params) for prompt in prompts(*texts)]

    with provider:
        return asyncio.run(send())


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_the_body_of_a_line_is_byte_for_byte_that_of_a_single_request(endpoint: str, hosted: Compose):
    tier = () if endpoint == "completions" else ("provider.service_tier=default", "provider.reasoning_effort=low")
    knobs = ("generation=sampled", "seed=7", "provider.stream=false", f"provider.endpoint={endpoint}", *tier)
    text = 'un deux "é" 漢 \\n'
    with OpenAIServer() as server:
        config = hosted(server, *knobs)
        provider = build(config)
        assert isinstance(provider, JobRequestProvider)
        answered_singly(provider, [text], config.params())
    line = provider.job_line("a", prompts(text)[0], config.params())
    (single,) = server.asked
    assert line.startswith(b'{"custom_id":"a","method":"POST","url":"/v1/')
    assert line.endswith(b',"body":' + single.raw + b"}")
    assert "stream" not in single.body


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_result_is_read_as_the_answer_to_a_single_request(
    endpoint: str, hosted: Compose, serve: Callable[..., Hooks]
):
    knobs = (f"provider.endpoint={endpoint}", "generation.max_tokens=3", "provider.stream=false")
    hooks = serve("openai", *knobs)
    from_job = hooks.generated(hooks.ended())
    with OpenAIServer() as server:
        config = hosted(server, *knobs)
        provider = build(config)
        assert isinstance(provider, JobRequestProvider)
        single = answered_singly(provider, TEXTS, config.params())
    assert [from_job[f"p{number}"].answers for number in range(len(TEXTS))] == [result.answers for result in single]
    assert [from_job[f"p{number}"].model for number in range(len(TEXTS))] == [result.model for result in single]
    assert from_job["p3"].answers[0].finish_reason == "length"
    assert {result.timing.latency_s for result in from_job.values()} == {None}
    assert hooks.provider.describe()["system_fingerprint"] == provider.describe()["system_fingerprint"]


def test_n_answers_of_a_prompt_are_one_request_of_the_job(serve: Callable[..., Hooks]):
    hooks = serve("openai", "generation=sampled", "generation.n=3")
    job_id = hooks.ended(texts=("one two",))
    (requests,) = hooks.service.input_lines
    assert [request["body"]["n"] for request in requests] == [3]
    assert len(hooks.generated(job_id)["p0"].answers) == 3


def test_fewer_answers_than_n_are_a_failure_and_not_fewer_answers(serve: Callable[..., Hooks]):
    hooks = serve(
        "openai", "generation=sampled", "generation.n=3", body=lambda body: {**body, "choices": body["choices"][:1]}
    )
    error = hooks.generated(hooks.ended(texts=("one two",)))["p0"].error
    assert error is not None
    assert (error.type, error.retryable) == ("AnswersMissing", False)


def test_a_failed_request_is_a_failure_with_the_services_words(serve: Callable[..., Hooks]):
    hooks = serve(status=lambda number: {1: 400, 2: 500}.get(number, 200))
    generated = hooks.generated(hooks.ended())
    refused, failed = generated["p1"], generated["p2"]
    assert refused.error is not None
    assert failed.error is not None
    assert (refused.error.type, refused.error.message, refused.error.retryable) == (
        "invalid_request_error", "request 1 failed", False
    )  # fmt: skip
    assert (failed.error.type, failed.error.retryable) == ("server_error", True)
    assert (refused.lost_answers, failed.lost_answers, refused.answers) == (0, 0, ())
    assert refused.model == hooks.config.model.id
    status = hooks.provider.poll("batch_0000")
    assert (status.total, status.completed, status.failed) == (4, 2, 2)


ODD_RESULTS: dict[str, tuple[dict[str, Any], str, bool, int]] = {
    "timed-out": ({"response": None, "error": {"code": "request_timeout", "message": "too long"}}, "request_timeout", True, 1),
    "status-0": ({"response": {"status_code": 0, "body": None}}, "NoAnswer", True, 1),
    "no-response": ({"response": None, "error": None}, "NoAnswer", True, 1),
    "rate-limited": ({"response": {"status_code": 429, "body": {"error": {"message": "slow"}}}}, "Status429", True, 0),
    "plain-text": ({"response": {"status_code": 503, "body": "busy"}}, "Status503", True, 0),
    "not-an-object": ({"response": {"status_code": 200, "body": "text"}}, "MalformedAnswer", True, 1),
    "error-in-a-200": (
        {"response": {"status_code": 200, "body": {"error": {"code": "content_filter", "message": "no"}}}},
        "content_filter", False, 1,
    ),
}  # fmt: skip
"""A result's fields; the type of the failure, whether it is retryable, and answers that may have been billed."""


@pytest.mark.parametrize("case", ODD_RESULTS)
def test_a_result_that_is_no_answer_fails_its_own_prompt(case: str, serve: Callable[..., Hooks]):
    fields, error_type, retryable, lost = ODD_RESULTS[case]
    hooks = serve(rearrange=lambda lines: [lines[0] | fields, *lines[1:]])
    generated = hooks.generated(hooks.ended())
    error = generated["p0"].error
    assert error is not None
    assert (error.type, error.retryable, generated["p0"].lost_answers) == (error_type, retryable, lost)
    assert [generated[f"p{number}"].error for number in (1, 2, 3)] == [None] * 3


def test_lines_that_are_no_results_are_skipped_and_said_once(
    serve: Callable[..., Hooks], caplog: pytest.LogCaptureFixture
):
    hooks = serve()
    job_id = hooks.ended()
    output = hooks.service.files[hooks.service.jobs[job_id].batch["output_file_id"]]
    first, *rest = output["content"].splitlines(keepends=True)
    long = b'{"custom_id": "p9", "x": "' + b"x" * 2_000_000 + b'"}\n'  # the bound is 1 MiB and 4,096 bytes a token
    output["content"] = b"\n".join([b"{half", b"[1]", b'{"id": 1}', b'{"custom_id": 5}', b"", long + first, *rest])
    with caplog.at_level(logging.WARNING):
        assert sorted(hooks.generated(job_id)) == ["p0", "p1", "p2", "p3"]
    (record,) = caplog.records
    assert "5 lines are no results and are skipped; line 1:" in record.getMessage()


@pytest.mark.parametrize(("state", "cases"), [("expired", (True, False)), ("cancelled", (False, False))])
def test_what_a_job_did_not_come_to_is_told_apart_from_what_failed(
    state: str, cases: tuple[bool, bool], serve: Callable[..., Hooks]
):
    executed = dict(enumerate(cases))
    hooks = serve(
        states=lambda _: ["validating", "in_progress", state], executed=lambda number: executed.get(number, False)
    )
    job_id = hooks.ended()
    status = hooks.provider.poll(job_id)
    assert (status.state, status.phase) == (state, "ended")
    assert status.ended_at is not None
    results = hooks.results(job_id)
    assert {result.custom_id for result in results if result.generated is None} == {
        f"p{number}" for number in range(4) if not executed.get(number, False)
    }
    assert len(results) == 4


def test_a_file_that_is_refused_ends_with_the_services_reasons_line_by_line(serve: Callable[..., Hooks]):
    hooks = serve("openai", "provider.job.line_url=/v1/completions")
    job_id = hooks.ended(texts=("a", "b"))
    status = hooks.provider.poll(job_id)
    assert (status.state, status.phase) == ("failed", "refused")
    assert status.reasons == tuple(
        f"line {line}: The url /v1/completions does not match /v1/chat/completions. (url_mismatch)" for line in (1, 2)
    )
    assert hooks.results(job_id) == []


def test_an_account_whose_queue_is_full_is_no_refusal(serve: Callable[..., Hooks]):
    error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m. Limit: 90,000 tokens."}
    hooks = serve(states=lambda _: ["validating", "failed"], errors=[error])
    status = hooks.provider.poll(hooks.ended())
    assert status.phase == "queue_full"
    assert status.reasons == ("Enqueued token limit reached for m. Limit: 90,000 tokens. (token_limit_exceeded)",)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": "token_limit_exceeded", "message": "The enqueued tokens exceed the quota."}}),
        (400, {"error": {"code": "BadRequest", "message": "token_limit_exceeded: enqueued tokens exceed the quota"}}),
        (429, {"error": {"code": None, "message": "You have created too many batches in an hour."}}),
    ],
)
def test_a_queue_that_is_full_before_the_file_is_read_asks_for_patience(
    status: int, body: Any, serve: Callable[..., Hooks]
):
    hooks = serve("azure-v1", fault=lambda step, _: {"status": status, "body": body} if step == "create" else None)
    with pytest.raises(CallError) as caught:
        hooks.created()
    assert caught.value.policy.throttled
    assert caught.value.policy.not_billed


def test_a_file_that_the_service_still_checks_is_waited_for(serve: Callable[..., Hooks]):
    hooks = serve("azure-dated")
    source = hooks.provider.upload(hooks.file(), "run-0")
    hooks.service.files[source]["status"] = "pending"
    with pytest.raises(CallError) as caught:
        hooks.provider.create(source, "run-0")
    assert (caught.value.type, caught.value.policy.retryable) == ("FileNotReady", True)
    assert not hooks.service.jobs
    hooks.service.files[source]["status"] = "processed"
    assert hooks.provider.create(source, "run-0")


@pytest.mark.parametrize("style", STYLES)
def test_a_job_whose_creation_was_not_answered_is_found_by_its_name(style: Style, serve: Callable[..., Hooks]):
    hooks = serve(style, fault=lambda step, number: {"lost": True} if (step, number) == ("create", 1) else None)
    other = hooks.created("run-1")
    source = hooks.provider.upload(hooks.file(), "run-0")
    assert hooks.provider.find("run-0") is None
    with pytest.raises(CallError) as caught:
        hooks.provider.create(source, "run-0")
    assert (caught.value.type, caught.value.policy.retryable) == ("ConnectionLost", True)
    assert not caught.value.policy.not_billed, "the job may exist"
    found = hooks.provider.find("run-0")
    assert found is not None
    assert found != other
    assert hooks.service.jobs[found].batch["input_file_id"] == source
    assert hooks.service.jobs_by_name == {"run-0": 1, "run-1": 1}


def test_a_job_is_found_behind_a_thousand_others_and_not_behind_a_month(serve: Callable[..., Hooks]):
    hooks = serve()
    wanted = hooks.created("run-0")
    (job,) = hooks.service.jobs.values()
    for number in range(1, 1001):
        job_id = f"batch_{number:04d}"
        hooks.service.jobs[job_id] = type(job)({**job.batch, "id": job_id, "metadata": None}, job.states, [])
    assert hooks.provider.find("run-0") == wanted
    assert hooks.service.steps["list"] == 11, "pages of 100"
    for other in hooks.service.jobs.values():
        other.batch["created_at"] -= 31 * 86400
    assert hooks.provider.find("run-0") is None or hooks.service.steps["list"] == 12
    assert hooks.service.steps["list"] == 12, "the first page has jobs of last month only"


def test_of_several_jobs_of_a_name_one_that_was_not_refused_is_found(serve: Callable[..., Hooks]):
    error = {"code": "token_limit_exceeded", "message": "full"}
    hooks = serve(
        states=lambda number: ["validating", *(["failed"] if number != 1 else ["in_progress"])], errors=[error]
    )
    refused = hooks.created()
    hooks.provider.poll(refused)
    assert hooks.provider.find("run-0") == refused
    accepted = hooks.created()
    hooks.provider.poll(hooks.created())
    assert hooks.provider.find("run-0") == accepted


def test_a_list_that_is_the_same_page_for_ever_ends(serve: Callable[..., Hooks]):
    page = {
        "object": "list",
        "has_more": True,
        "data": [{"id": "b", "object": "batch", "created_at": int(time.time())}],
    }
    hooks = serve(fault=lambda step, _: {"status": 200, "body": page} if step == "list" else None)
    assert hooks.provider.find("run-0") is None
    assert hooks.service.steps["list"] == 2


@pytest.mark.parametrize("style", STYLES)
def test_a_cancelled_job_keeps_what_was_done(style: Style, serve: Callable[..., Hooks]):
    hooks = serve(style, executed=lambda number: number < 1)
    job_id = hooks.created()
    hooks.provider.poll(job_id)
    hooks.provider.cancel(job_id)
    assert (hooks.provider.poll(job_id).state, hooks.provider.poll(job_id).state) == ("cancelling", "cancelled")
    assert {result.custom_id: result.generated is not None for result in hooks.results(job_id)} == {
        "p0": True, "p1": False, "p2": False, "p3": False
    }  # fmt: skip


def test_cancelling_a_job_that_has_ended_changes_nothing(serve: Callable[..., Hooks]):
    hooks = serve()
    job_id = hooks.ended()
    hooks.provider.cancel(job_id)
    assert hooks.provider.poll(job_id).state == "completed"


@pytest.mark.parametrize("style", STYLES)
def test_a_jobs_files_are_removed_and_those_of_lost_uploads_and_no_others(style: Style, serve: Callable[..., Hooks]):
    hooks = serve(style, status=lambda number: 500 if number == 0 else 200)
    other = hooks.provider.upload(hooks.file(), "run-1")
    lost = hooks.provider.upload(hooks.file(), "run-0")
    source = hooks.provider.upload(hooks.file(), "run-0")
    job_id = hooks.provider.create(source, "run-0")
    while hooks.provider.poll(job_id).phase == "open":
        pass
    hooks.provider.remove_files(source, job_id)
    assert list(hooks.service.files) == [other]
    assert {source, lost} < set(hooks.service.deleted)
    assert len(hooks.service.deleted) == 4, "two inputs, the results, the errors"
    hooks.provider.remove_files(source, job_id)


def test_files_are_kept_where_the_configuration_says_so(serve: Callable[..., Hooks]):
    hooks = serve("openai", "provider.job.keep_files=true")
    job_id = hooks.ended()
    hooks.provider.remove_files(hooks.service.jobs[job_id].batch["input_file_id"], job_id)
    assert len(hooks.service.files) == 2
    assert not hooks.service.deleted


@pytest.mark.parametrize("style", STYLES)
def test_a_wrong_key_ends_in_one_message_with_the_remedy_and_without_the_key(
    style: Style, serve: Callable[..., Hooks], monkeypatch: pytest.MonkeyPatch
):
    hooks = serve(style)
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "another-key-0000")
    with pytest.raises(CallError, match=r"check the environment variable that provider.api_key_env names") as caught:
        hooks.created()
    assert caught.value.policy.fatal
    assert "another-key-0000" not in str(caught.value)


def test_a_key_that_the_service_repeats_is_redacted(serve: Callable[..., Hooks], caplog: pytest.LogCaptureFixture):
    def planted(lines: list[Line]) -> list[Line]:
        error = {"message": f"sent with {KEY}", "type": "invalid_request_error"}
        return [lines[0] | {"response": {"status_code": 400, "body": {"error": error}}}, *lines[1:]]

    hooks = serve(rearrange=planted)
    error = hooks.generated(hooks.ended())["p0"].error
    assert error is not None
    assert error.message == "sent with ***"


def test_no_key_and_no_prompt_is_sent_to_another_host(serve: Callable[..., Hooks]):
    with BatchService() as elsewhere:
        redirect = {"status": 307, "headers": {"location": f"{elsewhere.url}/v1/files"}}
        hooks = serve(fault=lambda step, _: redirect if step == "upload" else None)
        with pytest.raises(CallError) as caught:
            hooks.created()
        assert caught.value.type == "Redirected"
        assert not elsewhere.headers


def test_a_job_that_is_not_the_keys_own_is_named(serve: Callable[..., Hooks]):
    hooks = serve()
    with pytest.raises(CallError, match="the service has no job batch_9: it belongs to another project") as caught:
        hooks.provider.poll("batch_9")
    assert caught.value.policy.fatal


def test_a_download_that_is_cut_may_be_tried_again(serve: Callable[..., Hooks]):
    hooks = serve(fault=lambda step, number: {"cut": 500} if (step, number) == ("download", 0) else None)
    job_id = hooks.ended()
    with pytest.raises(CallError) as caught:
        hooks.results(job_id)
    assert caught.value.policy.retryable
    assert len(hooks.results(job_id)) == 4


def test_an_unreachable_service_may_be_tried_again(serve: Callable[..., Hooks]):
    hooks = serve()
    hooks.service.__exit__()
    with pytest.raises(CallError) as caught:
        hooks.created()
    assert (caught.value.type, caught.value.policy.retryable) == ("ConnectionError", True)


def test_a_service_that_answers_something_else_is_said_to_be_no_such_service(serve: Callable[..., Hooks]):
    hooks = serve(fault=lambda step, _: {"status": 200, "body": ["hello"]} if step in ("poll", "upload") else None)
    for request in (lambda: hooks.provider.poll("b"), hooks.created):
        with pytest.raises(CallError) as caught:
            request()
        assert caught.value.type == "MalformedAnswer"


@pytest.mark.parametrize("provider", ["openai", "azure"])
@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_service_tier_is_refused_before_anything_is_sent(provider: str, tier: str, config: Compose):
    built = build(config(f"provider={provider}", f"provider.service_tier={tier}"))
    assert isinstance(built, JobProvider)
    with pytest.raises(ConfigError, match=f"provider.service_tier='{tier}'.*provider.service_tier=null"):
        built.validate_jobs(config().params())


@pytest.mark.parametrize("tier", ["null", "auto", "default"])
def test_the_standard_tier_is_taken(tier: str, config: Compose):
    built = build(config("provider=openai", f"provider.service_tier={tier}"))
    assert isinstance(built, JobProvider)
    built.validate_jobs(config().params())


@pytest.mark.parametrize("provider", ["vllm", "ollama", "llama-server", "transformers-serve"])
def test_a_local_server_has_no_batch_jobs(provider: str, config: Compose):
    built = build(config(f"provider={provider}"))
    assert isinstance(built, JobProvider)
    with pytest.raises(ConfigError, match=r"provider.job=null.*batch.mode=concurrent"):
        built.validate_jobs(config().params())
    assert "job" not in built.describe()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("provider.job.endpoint=https://elsewhere/v1", "provider.job.endpoint"),
        ("provider.job.line_url=v1/chat", "provider.job.line_url"),
        ("provider.job.max_requests=0", "provider.job.max_requests"),
        ("+provider.job.window=24h", "provider.job.window"),
    ],
)
def test_a_wrong_setting_of_jobs_is_refused_by_its_name(override: str, message: str, config: Compose):
    with pytest.raises(ConfigError, match=message):
        build(config("provider=openai", override))


@pytest.mark.parametrize(
    ("overrides", "requests", "window", "ratio"),
    [
        (("provider=openai",), 50_000, "up to 24h, and then ends a job with what it has", 0.5),
        (
            ("provider=openai", "provider.job.max_requests=10"),
            10,
            "up to 24h, and then ends a job with what it has",
            0.5,
        ),
        (("provider=azure",), 100_000, "24h as a target, and ends no job that takes longer", 0.5),
        (("provider=openai", "provider.base_url=http://127.0.0.1:9/v1"), 50_000, "up to 24h, and", 0.0),
    ],
)
def test_limits_window_and_discount_are_the_services(
    overrides: tuple[str, ...],
    requests: int,
    window: str,
    ratio: float,
    config: Compose,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://name.openai.azure.com")
    provider = build(config(*overrides))
    assert isinstance(provider, JobProvider)
    limits, discount = provider.job_limits(), provider.job_discount()
    assert (limits.min_requests, limits.max_requests, limits.max_bytes) == (1, requests, 200_000_000)
    assert limits.window.startswith(window)
    assert discount.ratio == ratio
    assert discount.source


def test_a_prompt_that_cannot_be_written_is_named(serve: Callable[..., Hooks]):
    hooks = serve()
    (prompt,) = prompts("lone \ud800")
    with pytest.raises(CallError) as caught:
        hooks.provider.job_line("a", prompt, hooks.params)
    assert caught.value.type == "UnsendablePrompt"
