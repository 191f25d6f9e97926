"""`python -m runner` as a user types it: single runs, sweeps, interrupts, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner.cli import compare
from tests import processes
from tests.conftest import Runner

Swept = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_a_run_ends_with_its_metrics_and_the_way_to_the_ui(run_command: Runner, tmp_path: Path):
    done = run_command("provider=echo", track=True)
    assert done.returncode == 0, done.stderr
    for part in ("completed_prompts", "output_tokens_per_s", "-m mlflow ui", "http://127.0.0.1:5000/#/experiments/"):
        assert part in done.stdout
    assert "\x1b" not in done.stdout + done.stderr, "quiet when not a terminal"
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/*")
    files = "runner.log .hydra run.json config.yaml prompts.jsonl outcomes.jsonl summary.json environment.json tracking.json segments.json .tracking.lock run.hmac"
    assert {path.name for path in folder.iterdir()} == set(files.split())
    assert "64 prompts" in (folder / "runner.log").read_text()


def test_a_terminal_sees_progress(tmp_path: Path):
    import pty

    reader, writer = pty.openpty()
    command = ["runner", "provider=echo", "provider.latency_s=0.1", "tracking=off"]
    environment = os.environ | {"TERM": "xterm"}
    process = processes.start(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=writer, env=environment, cold=True
    )
    os.close(writer)
    shown = b""
    while True:
        try:
            shown += os.read(reader, 4096)
        except OSError:
            break
    assert process.wait(60) == 0
    for part in (b"generating", b"/64", b"tokens/s", b"left"):
        assert part in shown


def test_failed_prompts_give_exit_code_1(run_command: Runner):
    done = run_command("provider=echo", "provider.fail_on=Write")
    assert done.returncode == 1
    assert "prompts failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_hydra_run_dir_keeps_its_meaning_and_a_used_one_is_refused(run_command: Runner, tmp_path: Path):
    assert run_command("provider=echo", "hydra.run.dir=mine").returncode == 0
    first = (tmp_path / "mine" / "outcomes.jsonl").read_bytes()
    again = run_command("provider=echo", "hydra.run.dir=mine")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert (tmp_path / "mine" / "outcomes.jsonl").read_bytes() == first


def test_a_config_dir_adds_options_of_ones_own(run_command: Runner, tmp_path: Path):
    (tmp_path / "mine" / "generation").mkdir(parents=True)
    (tmp_path / "mine" / "generation" / "tiny.yaml").write_text("defaults:\n  - greedy\nmax_tokens: 2\n")
    done = run_command("--config-dir", "mine", "provider=echo", "generation=tiny", "hydra.run.dir=out")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "outcomes.jsonl").read_text().splitlines()
    assert max(json.loads(line)["output_tokens"] for line in lines) == 2


@pytest.fixture(scope="module")
def swept(store: str, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep `s` of three sizes in the session's store: the folder where it was started, and how it ended."""
    folder = tmp_path_factory.mktemp("swept")
    sizes = ("provider=echo", "batch.mode=static", "batch.size=1,4,16", "name=swept", "hydra.sweep.dir=s")
    tracking = (f"tracking.uri={store}", "tracking.traces=off")
    return folder, processes.run(["runner", "-m", *sizes, *tracking], cwd=folder)


def test_a_sweep_is_a_parent_with_its_jobs_and_ends_with_their_comparison(swept: Swept, store: str):
    _, done = swept
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("Sweep s") : done.stdout.index("Divergence")]
    assert [line.split()[:4] for line in table.splitlines() if line[:1].isdigit()] == [
        ["0", "1", "static", "ok"], ["1", "4", "static", "ok"], ["2", "16", "static", "ok"],
    ]  # fmt: skip
    assert max(map(len, table.splitlines())) <= 100
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("swept")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.params["batch.size"] for run in children} == {"1", "4", "16"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "| run | size | mode |" in parent.data.tags["mlflow.note.content"]
    files = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"comparison.html", "comparison.json", "table.json", "plots"} <= files
    curve = client.get_metric_history(parent.info.run_id, "by batch size/output_tokens_per_s/static")
    assert [point.step for point in curve] == [1, 4, 16]
    added = {run.data.params["batch.size"]: run.data.metrics for run in children}
    assert added["16"]["exact_match_ratio"] == 1
    assert added["16"]["speedup"] > 0
    assert {run.data.tags["hydra.job.num"] for run in children} == {"0", "1", "2"}


def test_jobs_of_a_sweep_are_told_apart_by_their_names_in_mlflow(run_command: Runner, store: str):
    done = run_command(
        "-m",
        "provider=echo",
        "batch.size=2",
        "generation.max_tokens=3,5",
        "name=named",
        "repeat=2",
        "tracking.traces=off",
        track=True,
    )
    assert done.returncode == 0, done.stderr
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("named")
    assert experiment is not None
    assert sorted(str(run.info.run_name) for run in client.search_runs([experiment.experiment_id])) == [
        *(
            f"echo concurrent 2, repeat={repeat}, generation.max_tokens={max_tokens}"
            for repeat in (1, 2)
            for max_tokens in (3, 5)
        ),
        "sweep of named",
    ]
    (parent,) = [run for run in client.search_runs([experiment.experiment_id]) if "sweep.dir" in run.data.tags]
    assert parent.data.params == {"generation.max_tokens": "[3, 5]", "repeat": "[1, 2]"}


def test_a_reference_from_elsewhere_is_compared_with_and_published_nowhere(
    swept: Swept, run_command: Runner, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, _ = swept
    referred = ("provider=echo", "batch.mode=static", "name=referred", "batch.size=1", "generation.max_tokens=3")
    other = run_command(*referred, "hydra.run.dir=other", "tracking.traces=off", track=True)
    assert other.returncode == 0, other.stderr
    client = MlflowClient(store)
    parent = json.loads((folder / "s" / "sweep.json").read_text())["run_id"]
    run = json.loads((tmp_path / "other" / "summary.json").read_text())["mlflow_run_id"]
    before = [client.get_run(run_id).data for run_id in (parent, run)]
    monkeypatch.chdir(folder)
    compare.main(["s", "--reference", str(tmp_path / "other")])
    after = [client.get_run(run_id).data for run_id in (parent, run)]
    assert [data.params for data in after] == [data.params for data in before]
    assert [set(data.metrics) for data in after] == [set(data.metrics) for data in before]


def test_repeats_of_a_job_are_one_row_and_the_second_block_has_another_order(run_command: Runner, tmp_path: Path):
    done = run_command("-m", "provider=echo", "batch.size=1,4", "repeat=2", "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("Sweep s") : done.stdout.index("Divergence")]
    assert [line.split()[:2] for line in table.splitlines() if line[:1].isdigit()] == [["0,3", "1"], ["1,2", "4"]]


def test_a_failing_job_does_not_stop_the_others_and_says_why_in_its_own_log(
    run_command: Runner, store: str, tmp_path: Path
):
    (tmp_path / "p.txt").write_text("hello\n")
    done = run_command(
        "-m",
        "provider=echo",
        "provider.fail_on=hello,null",
        "limits.max_failures=0",
        "prompts=file",
        "prompts.path=p.txt",
        "name=half",
        "hydra.sweep.dir=t",
        track=True,
    )
    assert done.returncode == 1
    assert "the prompt contains 'hello'" in (tmp_path / "t" / "0" / "runner.log").read_text()
    assert json.loads((tmp_path / "t" / "1" / "summary.json").read_text())["status"] == "FINISHED"
    assert "FAILED" in done.stdout
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("half")
    assert experiment is not None
    (parent,) = [run for run in client.search_runs([experiment.experiment_id]) if "sweep.dir" in run.data.tags]
    assert parent.info.status == "FAILED"


def test_a_sweep_of_which_a_wrong_job_was_left_out_has_failed_in_mlflow_too(
    run_command: Runner, store: str, tmp_path: Path
):
    done = run_command(
        "-m", "provider=echo", "prompts=memo", "batch.size=1,0", "name=left-out", "hydra.sweep.dir=u", track=True
    )
    assert done.returncode == 1, done.stderr
    assert [path.name for path in (tmp_path / "u").glob("[0-9]*")] == ["0"]
    experiment = MlflowClient(store).get_experiment_by_name("left-out")
    assert experiment is not None
    runs = MlflowClient(store).search_runs([experiment.experiment_id])
    assert {"sweep.dir" in run.data.tags: run.info.status for run in runs} == {True: "FAILED", False: "FINISHED"}


def test_a_defect_is_logged_with_its_traceback_where_it_happened(run_command: Runner, tmp_path: Path):
    git = tmp_path / "bin" / "git"  # its first answer is not UTF-8, which the runner does not expect
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\n[ -e {tmp_path}/ran_once ] || printf '\\377'\ntouch {tmp_path}/ran_once\n")
    git.chmod(0o755)
    path = f"{git.parent}:{os.environ['PATH']}"
    done = run_command("-m", "provider=echo", "prompts=memo", "seed=1,2", "hydra.sweep.dir=s", PATH=path)
    assert done.returncode == 1
    assert "Traceback" in (tmp_path / "s" / "0" / "runner.log").read_text()
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "s" / "1" / "summary.json").read_text())["status"] == "FINISHED"


def test_a_sweep_in_which_every_job_is_wrong_is_a_wrong_request(run_command: Runner):
    assert run_command("-m", "provider=echo", "batch.size=0,-1").returncode == 2


def test_a_sweep_into_the_folder_of_an_earlier_one_is_a_wrong_request(run_command: Runner):
    sweep = ("-m", "provider=echo", "prompts=memo", "batch.size=1,2", "hydra.sweep.dir=s")
    assert run_command(*sweep).returncode == 0
    again = run_command(*sweep)
    assert again.returncode == 2, again.stderr
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [("--help | head -1", 0, ""), ("--cfg job > /dev/full", 1, "error: standard output cannot be written")],
)
def test_output_that_cannot_be_printed_is_not_an_error_of_the_runs_folder(
    output: str, code: int, message: str, tmp_path: Path
):
    command = f"{sys.executable} -m runner {output}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == bool(message)


def test_jobs_in_other_processes_join_the_same_parent(tmp_path: Path, store: str):
    """Two jobs of one sweep as separate processes, as a launcher would start them."""
    code = (
        "import sys; from pathlib import Path\n"
        "from runner import app; from runner.cli.compose import compose_config\n"
        f"config = compose_config(['provider=echo', 'prompts=memo', 'name=joined', 'tracking.uri={store}'])\n"
        "app.run(config, Path(sys.argv[1]), sweep_dir=Path('s').absolute())\n"
    )
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, f"s/{n}"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        for n in range(2)
    ]
    assert [job.wait(60) for job in jobs] == [0, 0]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("joined")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags}) == 1
