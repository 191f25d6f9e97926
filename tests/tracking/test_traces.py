"""Outcomes as MLflow traces: each once, however many there are."""

from pathlib import Path

from mlflow import MlflowClient

from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment
from tests.tracking import forked


def test_all_traces_are_logged_once_however_many_there_are(tracked: Compose, store: str, tmp_path: Path):
    count = 105  # more than one page of what a store returns
    (tmp_path / "p.txt").write_text("".join(f"text {number}\n" for number in range(count)))
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "tracking.traces=all")
    forked.run(tracked("provider=echo", "name=many-traces", *source), tmp_path / "run")
    forked.resume(tmp_path / "run")
    traces = StoredExperiment(client=MlflowClient(store), name="many-traces").traces()
    assert len({trace.info.trace_metadata["runner.outcome"] for trace in traces}) == len(traces) == count
