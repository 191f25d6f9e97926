"""What a store takes: long values are cut, many points are one write after the other, and a key has one run."""

import pytest
from mlflow import MlflowClient

from runner.errors import TrackingError
from runner.tracking.store import Point, open_store, storable, store_errors
from tests.servers.mlflow_server import StoredExperiment


def test_a_key_has_one_run_and_long_names_and_tags_are_cut(store: str):
    opened = open_store(store, "long-values")
    run = opened.find_or_create_run("key", "n" * 300, {"long": "t" * 9000})
    assert opened.find_or_create_run("key", "another name", {}) == run
    stored = StoredExperiment(client=MlflowClient(store), name="long-values").run
    assert stored.info.run_name == "n" * 250
    assert stored.data.tags["long"] == "t" * 7999 + "…"
    assert run.reference.run_id == stored.info.run_id


def test_more_points_than_one_call_takes_are_all_there_once(store: str):
    run = open_store(store, "many-points").find_or_create_run("key", "name", {})
    for _ in range(2):
        run.log_points(Point("curve", step, 0.5) for step in range(2001))
    history = StoredExperiment(client=MlflowClient(store), name="many-points").points("curve")
    assert {step: len(values) for (_, step), values in history.items()} == dict.fromkeys(range(2001), 1)


def test_an_error_of_the_store_is_one_short_line():
    with pytest.raises(TrackingError) as caught, store_errors("sqlite:///x"):
        raise OSError("first " + "x" * 300 + "\nsecond")
    assert str(caught.value).startswith("MLflow at sqlite:///x: first xxx")
    assert str(caught.value).endswith("x…")
    assert "second" not in str(caught.value)


def test_a_text_with_a_lone_surrogate_or_nul_can_be_stored():
    assert storable("a\ud800b\0c") == "a?b\ufffdc"


def test_an_experiment_has_the_kind_that_opens_on_runs_unless_someone_chose_another(store: str):
    client = MlflowClient(store)
    untouched = client.create_experiment("kind-untouched")
    chosen = client.create_experiment("kind-chosen", tags={"mlflow.experimentKind": "genai_development"})
    created = open_store(store, "kind-created").experiment_id
    for name in ("kind-untouched", "kind-chosen"):
        open_store(store, name)
    kinds = {
        number: client.get_experiment(number).tags["mlflow.experimentKind"] for number in (created, untouched, chosen)
    }
    runs = "custom_model_development"
    assert kinds == {created: runs, untouched: runs, chosen: "genai_development"}


def test_a_parameter_keeps_its_first_value_and_others_are_added(store: str):
    run = open_store(store, "parameters").find_or_create_run("key", "name", {})
    run.log_params({"batch.size": 4})
    run.log_params({"batch.size": 8, "batch.mode": None, "stop": ("a", "b")})
    logged = StoredExperiment(client=MlflowClient(store), name="parameters").run.data.params
    assert logged == {"batch.size": "4", "batch.mode": "null", "stop": "[a, b]"}
