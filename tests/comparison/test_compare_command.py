"""`python -m runner.compare`: its messages and exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli import compare
from tests.comparison.helpers import Write, sentences


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"'nowhere': no such run or sweep \(looked for the folder /.*\)"),
        (["empty"], r"'.*empty' is neither a run .* nor a sweep"),
        (["run", "--reference", "nowhere"], r"'nowhere': no such run"),
        (["0123456789abcdef0123456789abcdef"], r"no such run or sweep"),
    ],
)
def test_an_unknown_run_is_one_message_and_exit_code_2(
    arguments: list[str], message: str, write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    write_run("run", sentences(1))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        compare.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error.replace("\n", " "))
    assert error.startswith("error: ")


def test_a_damaged_record_is_one_message_and_exit_code_1(write_run: Write, capsys: pytest.CaptureFixture[str]):
    one, two = write_run("a", sentences(2), "batch.size=1"), write_run("b", sentences(2))
    with (two / "outcomes.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(SystemExit) as ended:
        compare.main([str(one), str(two)])
    assert ended.value.code == 1
    assert "line 3: not an outcome" in capsys.readouterr().err


def test_help_answers_without_loading_a_library(tmp_path: Path):
    command = [sys.executable, "-X", "importtime", "-m", "runner.compare", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "--reference" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"matplotlib", "torch", "mlflow", "jinja2"} & loaded
