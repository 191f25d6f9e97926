"""Static batches of provider=openai: a list of prompts in one completions request."""

from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.errors import AccessError
from runner.types import Failure
from tests.conftest import Compose
from tests.factories import completions, generate, prompts, usage_of
from tests.servers.openai_server import OpenAIServer


def test_a_static_batch_is_one_request_with_a_list_of_prompts(hosted: Compose):
    with OpenAIServer() as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.size=3", "generation.n=2")
        by_choice = completions(generate(config, prompts("a", "b b", "c c c", "d d d d")))
    assert sorted(len(asked.body["prompt"]) for asked in server.asked) == [1, 3]
    assert {(key, done.text) for key, done in by_choice.items()} == {
        ((f"p{i}", choice), text) for i, text in enumerate(("a", "b b", "c c c", "d d d d")) for choice in (0, 1)
    }
    assert sum(usage_of(done).output_tokens for done in by_choice.values()) == 20
    assert len({done.timing for done in by_choice.values()}) == 4, "a prompt's answers share its times"


def test_each_prompt_of_a_streamed_list_has_its_own_first_token_gaps_and_end(hosted: Compose):
    with OpenAIServer(token_s=0.15) as server:
        lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=3", "batch.order=given")
        done = completions(generate(hosted(server, *lists), prompts("a", "b b", "c c c")))
    (request,) = server.asked
    sent_at = [[at for index, at in request.sent_at if index == number] for number in range(3)]
    timings = [done[f"p{number}", 0].timing for number in range(3)]
    assert len({timing.started_at for timing in timings}) == 1, "of one request"
    assert [len(timing.chunk_gaps_s) for timing in timings] == [0, 1, 2]
    for timing, sent in zip(timings, sent_at, strict=True):
        assert timing.time_to_first_token_s == pytest.approx(sent[0] - request.arrived, abs=0.1)
        assert timing.latency_s == pytest.approx(sent[-1] - request.arrived, abs=0.1)
    # one chunk in 0.15 s, in turns: p0 ends with chunk 0, p1 with chunk 3, p2 with chunk 5
    assert timings[2].elapsed_s - timings[0].elapsed_s == pytest.approx(5 * 0.15, abs=0.1)


def test_prompts_of_a_list_that_is_not_streamed_share_the_calls_time(hosted: Compose):
    with OpenAIServer() as server:
        lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=3", "provider.stream=false")
        done = completions(generate(hosted(server, *lists), prompts("a", "b b", "c c c")))
    (timing,) = {outcome.timing for outcome in done.values()}
    assert (timing.time_to_first_token_s, timing.chunk_gaps_s) == (None, ())
    assert timing.queued_s is not None


def test_halves_of_a_list_continue_its_time_and_each_prompt_counts_the_answer_that_it_lost(hosted: Compose):
    with OpenAIServer(first_token_s=0.1, fault=lambda number, _: {"cut": 1} if number == 0 else None) as server:
        lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=2", "limits.max_attempts=1")
        done = completions(generate(hosted(server, *lists), prompts("a a", "b b")))
    assert len(server.asked) == 3
    assert [(outcome.attempts, outcome.lost_answers) for outcome in done.values()] == [(2, 1), (2, 1)]
    first, second = (outcome.timing for outcome in done.values())
    assert (first.started_at, first.queued_s) == (second.started_at, second.queued_s), "of the whole list"
    for number, timing in enumerate((first, second), 1):
        assert timing.last_attempt_latency_s is not None
        own_s = server.asked[number].arrived - server.asked[0].arrived
        assert timing.elapsed_s - timing.last_attempt_latency_s == pytest.approx(own_s, abs=0.1), "what was before it"


def test_a_static_run_over_http_is_recorded_and_its_connections_are_closed(hosted: Compose, tmp_path: Path):
    with OpenAIServer() as server:
        static = ("provider.endpoint=completions", "batch.mode=static", "batch.size=16", "name=static-http")
        summary = app.run(hosted(server, *static), tmp_path)
    assert (summary.metrics["completed_prompts"], len(server.asked)) == (64, 4)
    assert "tail_wait_ratio" not in summary.metrics, "what a server computes for nothing cannot be seen from here"


def test_a_server_that_refuses_lists_gives_failures_that_say_so(hosted: Compose):
    def refuse(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return (
            {"status": 400, "body": {"error": {"message": "prompt must be a string"}}}
            if isinstance(body["prompt"], list)
            else None
        )

    with OpenAIServer(fault=refuse) as server:
        outcomes = generate(hosted(server, "provider.endpoint=completions", "batch.mode=static"), prompts("a", "b"))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert isinstance(outcome, Failure)
        assert "prompt must be a string" in outcome.error.message
        assert "batch.mode=concurrent" in outcome.error.message


def test_a_poisonous_prompt_in_a_list_does_not_count_against_lists(hosted: Compose):
    def refuse(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return {"status": 400, "body": {"error": {"message": "too long"}}} if "bad" in body["prompt"] else None

    with OpenAIServer(fault=refuse) as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.order=given")
        outcomes = generate(config, prompts("a", "b", "c", "bad"))
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failed.error.message == "400: too long"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generation.n=2"], r"sent 1 of 2 answers: generation\.n is not honoured by this server"),
        (["provider.endpoint=completions", "batch.mode=static"], r"sent 1 of 3 answers.*batch\.mode=concurrent"),
    ],
    ids=["n", "list"],
)
def test_a_server_that_sends_fewer_answers_than_requested_stops_the_run(
    overrides: list[str], message: str, stream: bool, hosted: Compose
):
    with OpenAIServer(fault=lambda *_: {"answers": 1}) as server:
        config = hosted(server, f"provider.stream={stream}", "batch.size=3", *overrides)
        with pytest.raises(AccessError, match=message):
            generate(config, prompts("a", "b", "c"))
        assert len(server.asked) <= 3, "each was sent once at most"
