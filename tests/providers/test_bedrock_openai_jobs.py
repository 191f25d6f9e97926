"""provider=bedrock with provider.job.api=openai: OpenAI's Batch API over S3, against a local Bedrock."""

import io
import json
from collections import deque
from collections.abc import Iterator

import pytest

from runner.config.schema import RunConfig
from runner.errors import ConfigError
from runner.providers.bedrock import BedrockProvider
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.providers.openai import OpenAIProvider
from tests.conftest import Compose
from tests.providers.bedrock import ComposeBedrock, prompt
from tests.servers.bedrock_jobs_server import BATCH_KEY, INPUT, BedrockJobs, Script
from tests.servers.bedrock_server import Refusal

pytestmark = pytest.mark.usefixtures("aws_credentials")
MODEL, NAME = "openai.gpt-oss-20b-1:0", "runner-5f2c-0"


@pytest.fixture
def service() -> Iterator[BedrockJobs]:
    with BedrockJobs() as serving:
        yield serving


@pytest.fixture
def jobs(config: Compose, service: BedrockJobs, monkeypatch: pytest.MonkeyPatch) -> ComposeBedrock:
    """Compose a configuration for the local service; keyword arguments are settings of jobs."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BATCH_KEY)

    def composed(*overrides: str, **settings: object) -> RunConfig:
        chosen = {"api": "openai", "s3_output": None, **settings}
        return config(
            "provider=bedrock", "provider.region=us-east-1", f"provider.endpoint_url={service.control_url}",
            "batch.mode=job", f"model.id={MODEL}", *service.overrides(**chosen), *overrides,
        )  # fmt: skip

    return composed


def opened(config: RunConfig) -> BedrockProvider:
    provider = build(config)
    assert isinstance(provider, BedrockProvider)
    provider.validate_jobs(config.params())
    return provider


def submit(provider: BedrockProvider, config: RunConfig, *texts: str) -> tuple[str, str]:
    """Upload and create a job; return where its file is, and its id."""
    asked = [prompt(text, id=f"p{number}") for number, text in enumerate(texts)]
    lines = [provider.job_line(f"id{number}", one, config.params()) for number, one in enumerate(asked)]
    source = provider.upload(io.BytesIO(b"".join(line + b"\n" for line in lines)), NAME)
    return source, provider.create(source, NAME)


def test_a_batch_is_answered_from_the_files_beside_its_own(jobs: ComposeBedrock, service: BedrockJobs):
    error = {"errorCode": "content_filter", "errorMessage": "not allowed"}
    service.scripts.append(
        Script(
            states=("validating", "in_progress", "completed"), error=lambda text: error if "refuse" in text else None
        )
    )
    config = jobs("generation.max_tokens=2")
    with opened(config) as provider:
        source, job_id = submit(provider, config, "one two three", "refuse me", "yes")
        assert (source, provider.find(NAME)) == (f"{INPUT}/{NAME}.jsonl", job_id)
        states = [provider.poll(job_id) for _ in range(3)]
        assert [(status.state, status.phase) for status in states] == [
            ("validating", "open"), ("in_progress", "open"), ("completed", "ended"),
        ]  # fmt: skip
        assert (states[-1].total, states[-1].completed, states[-1].failed) == (3, 2, 1)
        done = {result.custom_id: result.generated for result in provider.collect(job_id, config.params())}
        failed = done.pop("id1")
        assert failed is not None and failed.error is not None
        assert (failed.error.type, failed.error.message) == ("content_filter", "not allowed")
        texts = {key: generated.answers[0].text for key, generated in done.items() if generated}
        assert texts.keys() == {"id0", "id2"}
        assert all(generated.timing.latency_s is None for generated in done.values() if generated)
        provider.remove_files(source, job_id)
    assert service.list_keys() == []


def test_a_line_is_that_of_openais_own_service(jobs: ComposeBedrock, config: Compose, monkeypatch: pytest.MonkeyPatch):
    run_config = jobs()
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    openai = build(config("provider=openai", f"model.id={MODEL}", "batch.mode=job"))
    assert isinstance(openai, OpenAIProvider)
    one = prompt("Wie geht's?", system="Be brief.")
    line = opened(run_config).job_line("id0", one, run_config.params())
    assert line == openai.job_line("id0", one, run_config.params())
    assert json.loads(line)["body"]["model"] == MODEL


def test_a_wrong_role_is_refused_with_the_remedy_and_leaves_nothing(jobs: ComposeBedrock, service: BedrockJobs):
    config = jobs(role_arn="arn:aws:iam::123456789012:role/other")
    with opened(config) as provider, pytest.raises(CallError) as caught:
        submit(provider, config, "a")
    assert "cannot assume arn:aws:iam::123456789012:role/other" in str(caught.value), "the service's words"
    assert "check provider.job.role_arn" in str(caught.value)
    assert (service.list_keys(), service.batches) == ([], [])


def test_a_full_queue_is_throttled_and_keeps_the_file(jobs: ComposeBedrock, service: BedrockJobs):
    service.refusals["CreateBatch"] = deque([Refusal(429, "rate_limit_exceeded", "too many batches")])
    config = jobs()
    with opened(config) as provider, pytest.raises(CallError, match="too many batches") as caught:
        submit(provider, config, "a")
    assert caught.value.policy.throttled
    assert service.list_keys() == [f"in/{NAME}.jsonl"]


def test_a_key_that_is_not_accepted_is_said_without_the_key(jobs: ComposeBedrock, monkeypatch: pytest.MonkeyPatch):
    config = jobs()
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "planted-key-77d1")
    with opened(config) as provider, pytest.raises(CallError, match="AWS_BEARER_TOKEN_BEDROCK") as caught:
        submit(provider, config, "a")
    assert "planted-key-77d1" not in str(caught.value)


def test_a_cancelled_batch_keeps_what_it_has_done(jobs: ComposeBedrock, service: BedrockJobs):
    service.scripts.append(Script(states=("in_progress", "cancelling", "cancelled"), processed=1))
    config = jobs()
    with opened(config) as provider:
        _, job_id = submit(provider, config, "a", "b")
        provider.cancel(job_id)
        while provider.poll(job_id).phase == "open":
            pass
        assert [result.custom_id for result in provider.collect(job_id, config.params())] == ["id0"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"s3_output": f"{INPUT}-other"}, "set provider.job.s3_output=null"),
        ({"timeout_hours": 48}, "provider.job.timeout_hours=48"),
        ({"role_arn": None}, "provider.job.role_arn is not set"),
    ],
)
def test_a_setting_of_the_other_api_is_refused(settings: dict[str, object], words: str, jobs: ComposeBedrock):
    with pytest.raises(ConfigError, match=words):
        opened(jobs(**settings))


def test_another_model_and_a_missing_key_are_refused(jobs: ComposeBedrock, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="for OpenAI's models"):
        opened(jobs("model.id=amazon.nova-lite-v1:0"))
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK")
    with pytest.raises(ConfigError, match="AWS_BEARER_TOKEN_BEDROCK"):
        opened(jobs())
