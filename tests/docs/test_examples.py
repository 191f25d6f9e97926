"""The examples of the documentation run, and print what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "python.md"
FENCED = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_python_page_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = FENCED.findall(PAGE.read_text(encoding="utf-8"))
    examples = [text for kind, text in blocks if kind == "python"]
    outputs = [text for kind, text in blocks if kind == "text"]
    names: dict[str, object] = {}
    assert len(examples) == len(outputs) >= 3
    for example, output in zip(examples, outputs, strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102 - our own page
        assert printed.getvalue() == output


def test_the_outputs_page_names_every_file_that_a_run_leaves(run_command, tmp_path: Path):
    done = run_command("provider=echo", "prompts=memo")
    assert done.returncode == 0, done.stderr
    page = (PAGE.parents[1] / "reference" / "outputs.md").read_text(encoding="utf-8")
    left = {path.name for path in next(tmp_path.glob("outputs/runs/*/*")).iterdir()}
    assert {"outcomes.jsonl", "summary.json", ".hydra"} < left
    assert [name for name in sorted(left) if f"| `{name}" not in page] == []
