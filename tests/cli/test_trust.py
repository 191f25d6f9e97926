"""A configuration folder from elsewhere holds values; what Hydra would run as code is refused by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runner.cli import models, plan
from runner.cli.trust import refuse_code, refuse_code_in
from runner.errors import ConfigError
from tests.conftest import Runner

CODE = {
    "provider/x.yaml": ("_target_: os.system", "os.system"),
    "model/deep.yaml": ("id: x\nprice: [{_target_: subprocess.run}]", "subprocess.run"),
    "experiment/callback.yaml": ("hydra:\n  callbacks:\n    x: {a: 1}", "hydra.callbacks"),
    "experiment/environment.yaml": ("hydra:\n  job:\n    env_set: {A: b}", "hydra.job.env_set"),
    "experiment/logging.yaml": ("hydra:\n  job_logging: {handlers: {x: {class: a.b}}}", "hydra.job_logging"),
    "experiment/launcher.yaml": ("defaults:\n  - override /hydra/launcher: joblib", "hydra/launcher"),
    "experiment/path.yaml": ("hydra:\n  searchpath: [file:///x]", "hydra.searchpath"),
    "experiment/package.yml": ("# @package hydra.callbacks\nx: {a: 1}", "@package"),
    "hydra/launcher/mine.yaml": ("n_jobs: 1", "Hydra's own configuration"),
    "experiment/blanks.yaml": ("#   @package   hydra.job_logging\nx: 1", "@package"),
    "experiment/below_global.yaml": ("# @package _global_.hydra.job_logging\nx: 1", "@package"),
    "experiment/hydra.yaml": ("# @package _name_\nx: 1", "Hydra's own configuration"),
    "experiment/entry.yaml": ("defaults:\n  - /stuff@hydra.job_logging: x", "defaults have"),
    "experiment/swept.yaml": ("hydra:\n  sweeper:\n    params: {+hydra.job.env_set.A: b}", "sweeper.params"),
    "experiment/tag.yaml": (
        "p: !!python/object/apply:pathlib.PosixPath [x]\nhydra:\n  callbacks: {x: {_target_: os.mkdir}}",
        "constructor",
    ),
    "experiment/date.yaml": ("p: 2026-13-45\nhydra:\n  callbacks: {x: {_target_: os.mkdir}}", "month must be in"),
    "experiment/digits.yaml": (f"p: {'9' * 5000}", "digits"),
    "provider/interpolated.yaml": ("_target_: ${oc.env:X}", "oc.env"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_in_a_configuration_folder_is_refused(name: str, tmp_path: Path):
    text, named = CODE[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for arguments in (["--config-dir", str(tmp_path)], [f"-cd={tmp_path}"], [f"hydra.searchpath=[file://{tmp_path}]"]):
        with pytest.raises(ConfigError) as refused:
            refuse_code(["provider=echo", *arguments])
        assert named in str(refused.value)
        assert str(path) in str(refused.value)
    assert refuse_code(["--config-dir", str(tmp_path), "--trust-config"]) == ["--config-dir", str(tmp_path)]


def test_a_link_to_a_folder_is_refused_and_one_to_nothing_is_named(tmp_path: Path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "experiment").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="experiment: it is a link to a folder"):
        refuse_code_in(folder)
    (folder / "experiment").unlink()
    (folder / "x.yaml").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"x\.yaml: .*No such file"):
        refuse_code_in(folder)


@pytest.mark.parametrize("command", [plan.main, models.main])
@pytest.mark.parametrize("argument", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_commands_that_generate_nothing_refuse_it_too(
    command: Callable[[Sequence[str]], None], argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "x.yaml").write_text("_target_: os.system")
    with pytest.raises(SystemExit) as ended:
        command(["provider=echo", argument.format(tmp_path)])
    assert ended.value.code == 2
    assert "os.system" in capsys.readouterr().err


def test_values_in_a_configuration_folder_are_accepted(tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /provider: echo\nhydra:\n  mode: MULTIRUN\n  sweeper:\n"
        "    params:\n      batch.size: 1,4\n"
    )
    (tmp_path / "provider.yaml").write_text("_target_: runner.providers.echo.EchoProvider\nlatency_s: 0\n")
    (tmp_path / "odd.yaml").write_text("defaults: 5\n")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "damaged.yaml").write_text("a: [1")
    refuse_code_in(tmp_path)


@pytest.mark.parametrize("name", ["aliases of aliases", "an alias of itself"])
def test_aliases_in_a_configuration_folder_are_bounded(name: str, tmp_path: Path):
    text = {
        "aliases of aliases": "a0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)),
        "an alias of itself": "a: &a\n  b: *a\n",
    }[name]
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"model\.yaml: .*alias"):
        refuse_code_in(tmp_path)
    (tmp_path / "model.yaml").write_text("a: &a {b: 1}\nc: *a\nd: *a\n")
    refuse_code_in(tmp_path)


def test_a_planted_target_does_not_run(run_command: Runner, tmp_path: Path):
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "x.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: os.mkdir, path: planted}\n"
    )
    done = run_command("--config-dir", "theirs", "provider=echo", "+experiment=x")
    assert done.returncode == 2
    assert "--trust-config" in done.stderr
    assert not (tmp_path / "planted").exists()
    trusted = run_command("--config-dir", "theirs", "--trust-config", "provider=echo", "+experiment=x")
    assert (tmp_path / "planted").is_dir(), trusted.stderr
