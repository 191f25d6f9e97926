"""provider=bedrock: real boto3 against a local server; errors, retries, cut streams and timeouts."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from runner.errors import AccessError, ConfigError, ServiceError
from runner.providers.factory import build
from runner.types import Completion, Failure
from tests import processes
from tests.factories import generate
from tests.providers.bedrock import FAMILIES, SECRET, ComposeBedrock, call_error, complete, prompt
from tests.servers.bedrock_server import (
    BedrockServer,
    Cut,
    Hang,
    InBand,
    NoUsage,
    Refusal,
    StopReason,
    Wire,
    event_frame,
)

pytestmark = pytest.mark.usefixtures("aws_credentials")
THROTTLED = Refusal(429, "ThrottlingException", "Too many tokens, please wait before trying again.", retry_after="0")


def test_a_throttled_request_is_sent_again_and_its_attempts_are_counted(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.extend([THROTTLED, THROTTLED])
    (done,) = generate(bedrock(), [prompt("hello again")])
    assert isinstance(done, Completion)
    assert (done.text, done.attempts, len(server.seen)) == ("hello again", 3, 3)


def test_the_sdk_itself_repeats_nothing(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.append(THROTTLED)
    error = call_error(bedrock())
    assert (error.policy.retryable, error.policy.throttled, error.policy.fatal, error.retry_after_s) == (
        True,
        True,
        False,
        0.0,
    )
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "ServiceUnavailableException"),
        (429, "ModelNotReadyException"),
        (408, "ModelTimeoutException"),
        (424, "ModelStreamErrorException"),
        (500, "InternalServerException"),
        (502, "SomethingNew"),
    ],
)
def test_a_passing_error_is_retryable_and_pauses_no_other_request(
    status: int, code: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(Refusal(status, code, "try later"))
    error = call_error(bedrock())
    assert (error.type, error.policy.retryable, error.policy.throttled, error.policy.fatal) == (
        code,
        True,
        False,
        False,
    )
    assert error.message == "try later"


@pytest.mark.parametrize("api", ["converse", "invoke"])
@pytest.mark.parametrize(
    ("code", "retryable", "throttled"),
    [
        ("throttlingException", True, True),
        ("modelStreamErrorException", True, False),
        ("internalServerException", True, False),
        ("serviceUnavailableException", True, False),
        ("validationException", False, False),
    ],
)
def test_an_error_inside_a_stream_is_an_error(
    code: str, retryable: bool, throttled: bool, api: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(InBand(code, "half way"))
    error = call_error(bedrock(api=api))
    assert error.type == code[0].upper() + code[1:]
    assert (error.message, error.policy.retryable, error.policy.throttled) == ("half way", retryable, throttled)


def test_a_stream_that_failed_half_way_is_sent_again(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.append(InBand("modelStreamErrorException", "half way"))
    (done,) = generate(bedrock(), [prompt("one two three")])
    assert isinstance(done, Completion)
    assert (done.text, done.attempts) == ("one two three", 2)


@pytest.mark.parametrize("api", ["converse", "invoke"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_cut_stream_is_a_failure_not_a_short_text(
    clean: bool, api: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(Cut(clean))
    (failed,) = generate(bedrock("limits.max_attempts=1", api=api), [prompt("one two three")])
    assert isinstance(failed, Failure)
    assert failed.error.retryable


@pytest.mark.parametrize(("api", "family"), [("converse", "nova"), *(("invoke", family) for family in FAMILIES)])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_token_counts_is_kept_without_tokens(
    stream: bool, api: str, family: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(NoUsage())
    done = complete(bedrock(f"model.id={FAMILIES[family]}", api=api, stream=stream), prompt("one two"))
    assert (done.text, done.usage) == ("one two", None)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(403, "AccessDeniedException", "User: x is not authorized"), "bedrock:InvokeModel"),
        (Refusal(403, "UnrecognizedClientException", "The security token is invalid."), "AWS_ACCESS_KEY_ID"),
        (Refusal(403, "ExpiredTokenException", "expired"), "aws sso login"),
        (Refusal(404, "ResourceNotFoundException", "no such model"), "set model.id"),
        (Refusal(400, "ValidationException", "The provided model identifier is invalid."), "model.id='amazon.nova"),
        (
            Refusal(400, "ValidationException", "Invocation with on-demand throughput isn\u2019t supported."),
            "inference profile",
        ),
        (Refusal(400, "ServiceQuotaExceededException", "quota"), "Service Quotas"),
        (Refusal(429, "ThrottlingException", "Too many tokens per day, please wait."), "per day.*Service Quotas"),
    ],
)
def test_a_fatal_error_ends_the_run_and_names_the_remedy(
    refusal: Refusal, words: str, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(refusal)
    with pytest.raises(AccessError, match=words):
        generate(bedrock(), [prompt("hello")])
    assert len(server.seen) == 1


def test_a_used_up_daily_quota_inside_a_stream_is_fatal_too(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.append(InBand("throttlingException", "Too many tokens per day, please wait before trying again."))
    error = call_error(bedrock())
    assert (error.policy.fatal, error.policy.retryable, error.policy.not_billed) == (True, False, False)


@pytest.mark.parametrize("secret", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
def test_credentials_that_a_gateway_repeats_are_not_kept(
    secret: str, bedrock: ComposeBedrock, server: BedrockServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(secret, "planted-credential-5a1d")
    server.faults.append(Refusal(400, "ValidationException", "bad header: planted-credential-5a1d"))
    assert call_error(bedrock()).message == "bad header: ***"


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [("7", 7.0), ("nan", None), ("-1", None), ("inf", None), ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0)],
)
def test_the_retry_after_header_is_read(
    retry_after: str, wait_s: float | None, bedrock: ComposeBedrock, server: BedrockServer
):
    server.faults.append(Refusal(429, "ThrottlingException", "slow down", retry_after=retry_after))
    assert call_error(bedrock()).retry_after_s == wait_s


def test_access_lost_in_the_middle_stops_the_run(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.extend([StopReason("end_turn"), Refusal(403, "ExpiredTokenException", "expired")])
    with pytest.raises(ServiceError, match="aws sso login"):
        generate(bedrock("batch.size=1"), [prompt(text, id=text) for text in "abc"])
    assert len(server.seen) == 2


def test_a_signature_that_is_refused_is_not_quoted(bedrock: ComposeBedrock, server: BedrockServer):
    message = "The signature does not match.\nx-amz-security-token:SESSION-TOKEN"
    for code in ("InvalidSignatureException", "IncompleteSignatureException", "ValidationException"):
        server.faults.append(Refusal(403, code, message))
        assert "SESSION-TOKEN" not in str(call_error(bedrock()))


def test_a_request_that_is_invalid_is_one_failure(bedrock: ComposeBedrock, server: BedrockServer):
    server.faults.append(Refusal(400, "ValidationException", "messages: text is too long"))
    outcomes = generate(bedrock("batch.size=1"), [prompt("a", id="a"), prompt("b", id="b")])
    failed, done = outcomes
    assert isinstance(failed, Failure)
    assert isinstance(done, Completion)
    assert (failed.error.type, failed.error.message) == ("ValidationException", "messages: text is too long")
    assert not failed.error.retryable


def test_no_service_at_the_address_is_a_connection_error(bedrock: ComposeBedrock):
    error = call_error(bedrock(endpoint_url="http://127.0.0.1:9"))
    assert (error.type, error.policy.retryable, error.policy.fatal) == ("ConnectionError", True, False)


def test_a_failed_handshake_is_a_connection_error(bedrock: ComposeBedrock, server: BedrockServer):
    error = call_error(bedrock(endpoint_url=server.url.replace("http", "https")))
    assert (error.type, error.policy.fatal, error.policy.retryable) == ("ConnectionError", False, True)
    assert "provider.endpoint_url" in str(error)


def test_an_attempt_that_timed_out_does_not_delay_the_next_one(bedrock: ComposeBedrock, server: BedrockServer):
    release = threading.Event()
    server.faults.append(Hang(release))
    config = bedrock("limits.timeout_s=2", "limits.max_attempts=2", stream=False)
    try:
        (done,) = generate(config, [prompt("hello")])
    finally:
        release.set()
    assert isinstance(done, Completion)
    assert (done.attempts, len(server.seen)) == (2, 2)


def bedrock_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bedrock"]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    until = time.monotonic() + within_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    assert condition()


def test_attempts_that_time_out_leave_no_thread_and_no_socket(bedrock: ComposeBedrock, server: BedrockServer):
    release = threading.Event()
    server.fault = lambda _: Hang(release)
    before = open_files()
    try:
        outcomes = generate(
            bedrock("limits.timeout_s=0.5", "limits.max_attempts=2", "batch.size=16"),
            [prompt("hello", id=f"p{number}") for number in range(32)],
        )
        wait_until(lambda: not bedrock_threads(), within_s=5)
        assert open_files() - before <= 64 + 2, "the server's side of each attempt, which it still holds"
    finally:
        release.set()
    assert [outcome.error.type for outcome in outcomes if isinstance(outcome, Failure)] == ["Timeout"] * 32


def streamed(frames: Iterable[bytes]) -> Wire:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n"
    return Wire(head + b"".join(frames))


def delta(text: str) -> bytes:
    return event_frame("contentBlockDelta", {"delta": {"text": text}, "contentBlockIndex": 0})


BODY = b'{"output": {"message": {"role": "assistant", "content": [{"text": "' + b"x" * (3 << 20) + b'"}]}}}'
TOO_MUCH = {
    # 1,024 and 16 chunks a token, 1 MiB and 4 KiB a token, for 64 tokens
    "chunks": ("converse", True, streamed([delta("x")] * 3_000), "more than 2,048 chunks"),
    "characters": ("converse", True, streamed([delta("x" * 100_000)] * 14), "more than 1,310,720 characters"),
    "bytes": ("invoke", False, Wire(b"HTTP/1.1 200 OK\r\n\r\n" + BODY), "more than 1,310,720 bytes"),
    "bytes of converse": ("converse", False, Wire(b"HTTP/1.1 200 OK\r\n\r\n" + BODY), "more than 1,310,720 bytes"),
    "bytes of an error": ("converse", True, Wire(b"HTTP/1.1 400 No\r\n\r\n" + BODY), "more than 1,310,720 bytes"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_an_answer_is_read_no_further_than_max_tokens_can_need(
    name: str, bedrock: ComposeBedrock, server: BedrockServer
):
    api, stream, fault, message = TOO_MUCH[name]
    server.faults.append(fault)
    model = f"model.id={FAMILIES['nova']}"
    error = call_error(bedrock(model, "generation.max_tokens=64", api=api, stream=stream))
    assert (error.type, error.policy.retryable) == ("AnswerTooLarge", False)
    assert message in str(error)


def test_a_count_that_is_no_number_costs_no_answer(bedrock: ComposeBedrock, server: BedrockServer):
    body = b'{"outputs": [{"text": "yes", "stop_reason": "stop"}]}'
    head = b"HTTP/1.1 200 OK\r\nx-amzn-bedrock-input-token-count: many\r\ncontent-length: %d\r\n\r\n" % len(body)
    server.faults.append(Wire(head + body))
    done = complete(bedrock(f"model.id={FAMILIES['mistral']}", api="invoke", stream=False), prompt("a"))
    assert (done.text, done.usage) == ("yes", None)


def test_a_key_that_the_service_repeats_is_in_the_text_at_most(
    bedrock: ComposeBedrock, server: BedrockServer, caplog: pytest.LogCaptureFixture
):
    server.faults.append(StopReason(f"because {SECRET}"))
    done = complete(bedrock(), prompt(f"say {SECRET}"))
    assert (done.text, done.finish_reason) == (f"say {SECRET}", "unknown")
    assert "the answer's text repeats the key" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"])
def test_a_password_in_the_environments_address_is_refused_and_not_repeated(
    variable: str, bedrock: ComposeBedrock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, "http://someone:planted-password@127.0.0.1:9")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_BEDROCK_RUNTIME") as caught:
        complete(bedrock(endpoint_url=None), prompt("a"))
    assert "planted-password" not in str(caught.value)


def test_credentials_over_plain_http_to_another_machine_are_said(
    bedrock: ComposeBedrock, caplog: pytest.LogCaptureFixture
):
    with build(bedrock(endpoint_url="http://bedrock.example.org")):
        pass
    assert caplog.text.count("over plain http") == 1


def test_a_call_that_never_ends_does_not_keep_the_process_alive(server: BedrockServer, tmp_path: Path):
    release = threading.Event()
    server.faults.append(Hang(release))
    run = ["runner", "provider=bedrock", "provider.region=us-east-1", "prompts.limit=1", "tracking=off",
           f"provider.endpoint_url={server.url}", "provider.stream=false", "limits.timeout_s=0.5", "limits.max_attempts=1"]  # fmt: skip
    try:
        done = processes.run(run, cwd=tmp_path, timeout=120)
    finally:
        release.set()
    assert done.returncode == 1, done.stderr
    assert len(server.seen) == 1
