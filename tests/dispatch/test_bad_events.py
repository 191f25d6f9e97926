"""One bad event costs one prompt: what a server answers, or a connection does, concerns the call that met it."""

import errno
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from runner.config.waits import Waits
from runner.errors import ServiceError
from runner.providers.errors import too_many_open_files
from runner.run.prepare import prepare_calls
from runner.types import Completion, Failure, Outcome, Prompt
from tests.conftest import Compose
from tests.factories import completions, generate, generate_until_stopped, numbered, prompts
from tests.servers.openai_server import OpenAIServer
from tests.servers.proxy import Proxy

DIGITS = b"9" * 5000
ODD: dict[str, dict[str, Any]] = {
    "a year that no date has": {"status": 503, "headers": {"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}},
    "the year 0": {"status": 429, "headers": {"retry-after": "Mon, 01 Jan 0000 00:00:00 GMT"}},
    "a time zone of days": {"status": 503, "headers": {"retry-after": "Mon, 01 Jan 2024 00:00:00 +9999"}},
    "a number of 5,000 digits": {"raw": b'{"usage": {"prompt_tokens": ' + DIGITS + b"}}"},
    "5,000 digits in a stream": {"raw": b'data: {"created": ' + DIGITS + b"}\n\n",
                                 "headers": {"content-type": "text/event-stream"}},
    "a charset that nobody has": {"status": 500, "raw": b"no", "headers": {"content-type": "text/plain; charset=klingon"}},
    "a charset that is no text": {"status": 400, "raw": b"no", "headers": {"content-type": "text/plain; charset=hex"}},
    "an encoding that is not there": {"raw": b"no", "headers": {"content-encoding": "gzip"}},
    "a JSON of a thousand levels": {"raw": b"[" * 100_000},
    "a text instead of choices": {"raw": b'{"choices": "none", "usage": 1}'},
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ODD.values(), ids=ODD)
def test_an_odd_answer_costs_at_most_its_own_prompt(fault: dict[str, Any], stream: bool, hosted: Compose):
    with OpenAIServer(fault=lambda number, _: fault if number == 2 else None) as server:
        config = hosted(server, "limits.max_attempts=1", f"provider.stream={stream}")
        outcomes = generate(config, numbered(8))
    assert sorted(outcome.prompt_id for outcome in outcomes) == [f"p{number}" for number in range(8)]
    assert sum(isinstance(outcome, Failure) for outcome in outcomes) <= 1


def test_an_answer_that_cannot_be_decoded_is_no_unreachable_server_even_if_it_is_the_first(hosted: Compose):
    odd = ODD["an encoding that is not there"]
    with OpenAIServer(fault=lambda number, _: odd if number == 0 else None) as server:
        outcomes = generate(hosted(server, "limits.max_attempts=1", "batch.size=1"), numbered(3))
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [True, False, False]


def refused(server_fault: Any, hosted: Compose, texts: list[Prompt], *overrides: str) -> list[Outcome]:
    with OpenAIServer(fault=server_fault) as server:
        return generate(hosted(server, "batch.size=1", *overrides), texts)


STATUSES = {401: "firewall", 403: "moderation", 404: "gateway"}


@pytest.mark.parametrize("status", STATUSES)
def test_once_something_was_answered_a_fatal_status_is_first_its_prompts_failure(status: int, hosted: Compose):
    fault = {"status": status, "body": {"error": {"message": STATUSES[status]}}}
    outcomes = refused(
        lambda _, body: fault if body["messages"][0]["content"] == "bad" else None,
        hosted, prompts("good", "bad", "fine", "bad", "bad", "well"),
    )  # fmt: skip
    assert [isinstance(outcome, Completion) for outcome in outcomes] == [True, False, True, False, False, True]
    assert isinstance(outcomes[1], Failure)
    assert STATUSES[status] in outcomes[1].error.message


def test_a_fatal_status_that_five_calls_in_a_row_meet_ends_the_run(hosted: Compose):
    fault = {"status": 403, "body": {"error": {"message": "revoked"}}}
    with OpenAIServer(fault=lambda number, _: fault if number else None) as server:
        with pytest.raises(ServiceError, match="revoked"):
            generate(hosted(server, "batch.size=1"), numbered(20))
        assert len(server.asked) == 1 + 5


def test_a_resumed_run_was_answered_before_its_first_request(hosted: Compose):
    fault = {"status": 403, "body": {"error": {"message": "moderation"}}}
    with OpenAIServer(fault=lambda number, _: fault if number == 0 else None) as server:
        config = hosted(server, "batch.size=1")
        calls = prepare_calls(config, Waits())
        assert calls.limited
        calls.limited.answers.any = True
        first, second = generate_until_stopped(calls, config, numbered(2))
    assert (isinstance(first, Failure), isinstance(second, Completion)) == (True, True)


@pytest.mark.parametrize("retry_after", ["0", "Mon, 01 Jan 2024 00:00:00 GMT"], ids=["none", "past"])
def test_a_service_that_asks_for_no_wait_is_asked_with_growing_waits(retry_after: str, hosted: Compose):
    throttled = {"status": 429, "headers": {"retry-after": retry_after}}
    with OpenAIServer(fault=lambda *_: throttled) as server:
        config = hosted(server)
        with pytest.raises(Exception, match="throttled every request"):
            generate(config, numbered(4), waits=Waits(throttled_s=1.0))
        assert len(server.asked) < 60


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A certificate authority that this process trusts."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


def test_a_handshake_that_fails_among_working_connections_is_sent_again(authority: Any, hosted: Compose):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with OpenAIServer(tls=context, token_s=0.01) as server, Proxy(int(server.url.rpartition(":")[2])) as proxy:
        proxy.garbled = {2}
        address = f"provider.base_url={proxy.url.replace('http', 'https')}/v1"
        outcomes = generate(hosted(server, address), numbered(8))
    assert len(completions(outcomes)) == 8
    assert sum(outcome.attempts for outcome in outcomes) == 9


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_limit_of_open_files_is_named_whatever_wraps_it(number: int):
    wrapped = ConnectionError("cannot connect")
    wrapped.__cause__ = OSError(number, os.strerror(number))
    named = too_many_open_files(wrapped)
    assert named
    assert "lower batch.size, or raise the limit (ulimit -n)" in str(named)
    assert too_many_open_files(ConnectionError("refused")) is None
