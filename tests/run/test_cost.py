"""What a run costs: own hardware by the hour, lost answers at most, and what a resumed run keeps."""

from dataclasses import replace
from pathlib import Path

import pytest

from runner import app
from runner.errors import ConfigError
from runner.record.folder import RunFolder
from runner.types import Completion
from tests.conftest import Compose
from tests.factories import DEAR, prompts_file, summary_of, usage_of
from tests.servers.openai_server import OpenAIServer


def test_own_hardware_costs_its_time_and_keeps_its_cost_when_resumed(config: Compose, tmp_path: Path):
    priced = config("provider=echo", "tracking=off", "model.price={usd_per_hour: 7200}")
    metrics = app.run(priced, tmp_path).metrics
    assert metrics["cost_usd"] == pytest.approx(2 * metrics["duration_s"]), "7200 dollars an hour are 2 a second"
    assert "cost_at_most_usd" not in metrics
    assert RunFolder(tmp_path).read_environment()["provider"]["price"] == "model.price.usd_per_hour"
    assert app.resume(tmp_path).metrics == metrics


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("{usd_per_hour: 1, output_usd_per_million: 2}", "usd_per_hour=1.0 is the whole price of own hardware"),
        ("{usd_per_hour: 1, cached_input_usd_per_million: 2}", "without prices per million tokens"),
        ("{input_usd_per_million: 1}", "set input_usd_per_million and output_usd_per_million, or usd_per_hour"),
        ("{usd_per_hour: 0}", "model.price.usd_per_hour=0"),
    ],
)
def test_a_price_is_one_of_tokens_or_one_of_time(price: str, message: str, config: Compose):
    with pytest.raises(ConfigError, match=message):
        config("provider=echo", f"model.price={price}")


def test_a_lost_answer_may_cost_its_prompt_and_all_of_max_tokens(hosted: Compose, tmp_path: Path):
    settings = (*prompts_file(tmp_path, 3), DEAR, "generation.max_tokens=10", "batch.size=1", "tracking=off")
    with OpenAIServer(fault=lambda number, _: {"cut": 1} if number == 0 else None) as server:
        metrics = app.run(hosted(server, *settings), tmp_path / "run").metrics
    answers = [answer for answer in RunFolder(tmp_path / "run").outcomes.read() if isinstance(answer, Completion)]
    usages = [usage_of(answer) for answer in answers]
    assert [answer.lost_answers for answer in answers] == [1, 0, 0]
    billed_usd = sum(usage.input_tokens + usage.output_tokens for usage in usages) / 1000
    assert metrics["cost_usd"] == pytest.approx(billed_usd)
    assert metrics["cost_at_most_usd"] == pytest.approx(billed_usd + (usages[0].input_tokens + 10) / 1000)


def test_percentiles_of_an_older_rule_do_not_survive_a_resume(config: Compose, tmp_path: Path):
    """An earlier version took each of 64 rows of four batches for a sample."""
    settings = ("provider=echo", "batch.mode=static", "batch.size=16", "tracking=off")
    before = app.run(config(*settings), tmp_path).metrics
    assert "latency_p90_s" not in before
    older = {**before, "latency_p90_s": 9.0, "latency_samples": 64.0, "load_s": 123.0}
    RunFolder(tmp_path).write_summary(replace(summary_of(tmp_path), metrics=older))
    after = app.resume(tmp_path).metrics
    assert after == {**before, "load_s": 123.0}, "only what a process measured is kept"


def test_an_answer_that_a_resume_superseded_was_paid_for(config: Compose, tmp_path: Path):
    texts = prompts_file(tmp_path, 2)
    settings = ("provider=echo", "batch.mode=concurrent", "batch.size=1", "generation.n=2", "tracking=off", DEAR)
    run = tmp_path / "run"
    whole_usd = app.run(config(*settings, *texts), run).metrics["cost_usd"]
    outcomes = RunFolder(run).outcomes.path
    *lines, _ = outcomes.read_bytes().splitlines(keepends=True)
    outcomes.write_bytes(b"".join(lines))  # killed before the last prompt's second answer was written
    (run / "summary.json").unlink()
    resumed_usd = app.resume(run).metrics["cost_usd"]
    *_, (last, is_superseded) = (marked for marked in RunFolder(run).outcomes.read_marked() if marked[1])
    assert isinstance(last, Completion)
    assert is_superseded
    # two whole prompts as before, and the last prompt's first answer with its input once more
    assert resumed_usd == pytest.approx(whole_usd + (usage_of(last).input_tokens + usage_of(last).output_tokens) / 1000)
