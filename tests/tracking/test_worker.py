"""The worker's end of a run whose record was not closed."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner.errors import JournalError
from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment
from tests.tracking import forked


def test_a_summary_that_cannot_be_written_is_one_message_and_the_mlflow_run_has_failed(
    tracked: Compose, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / ".summary.json.new").mkdir()
    with pytest.raises(JournalError, match=r"summary\.json cannot be written"):
        forked.run(tracked("provider=echo", "name=no-summary"), tmp_path)
    assert "AssertionError" not in caplog.text
    assert "how the run ended is not in MLflow" in caplog.text
    experiment = StoredExperiment(client=MlflowClient(store), name="no-summary")
    assert experiment.run.info.status == "FAILED"
    (tmp_path / ".summary.json.new").rmdir()
    forked.resume(tmp_path)
    assert experiment.run.info.status == "FINISHED"
