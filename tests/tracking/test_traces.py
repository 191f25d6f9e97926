"""Outcomes as MLflow traces: each once, however many there are, with the run's own cost."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment
from tests.servers.openai_server import OpenAIServer
from tests.tracking import forked


def test_all_traces_are_logged_once_however_many_there_are(tracked: Compose, store: str, tmp_path: Path):
    count = 105  # more than one page of what a store returns
    (tmp_path / "p.txt").write_text("".join(f"text {number}\n" for number in range(count)))
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "tracking.traces=all")
    forked.run(tracked("provider=echo", "name=many-traces", *source), tmp_path / "run")
    forked.resume(tmp_path / "run")
    traces = StoredExperiment(client=MlflowClient(store), name="many-traces").traces()
    assert len({trace.info.trace_metadata["runner.outcome"] for trace in traces}) == len(traces) == count


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        ([], None),
        (["model.price={input_usd_per_million: 1000000, output_usd_per_million: 2000000}"], "recorded"),
    ],
    ids=["price not known", "price in the configuration"],
)
def test_a_traces_cost_is_the_runs_and_never_the_stores_own_list_price(
    price: list[str], cost: str | None, tracked: Compose, store: str, tmp_path: Path
):
    experiment = StoredExperiment(client=MlflowClient(store), name=f"cost-{cost}")
    with OpenAIServer() as service:
        overrides = [f"provider.base_url={service.url}/v1", "provider.api_key_env=null", "prompts.limit=3"]
        listed = ["model.id=gpt-4o-mini", f"name={experiment.name}", "tracking.traces=all", "batch.size=1"]
        result = forked.run(tracked("provider=openai", *overrides, *listed, *price), tmp_path)
    (first, *_) = traces = experiment.traces()
    assert len(traces) == 3
    if cost is None:
        assert "mlflow.trace.cost" not in first.info.trace_metadata
        assert not any(span.llm_cost for span in first.data.spans)
    else:
        costs = [json.loads(trace.info.trace_metadata["mlflow.trace.cost"])["total_cost"] for trace in traces]
        assert sum(costs) == pytest.approx(result.metrics["cost_usd"])
        usage = json.loads(first.info.trace_metadata["mlflow.trace.tokenUsage"])
        assert costs[0] == pytest.approx(usage["input_tokens"] + 2 * usage["output_tokens"])
