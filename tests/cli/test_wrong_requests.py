"""A wrong request ends in exit code 2 and one message that names the key, the value and the remedy."""

import os
from pathlib import Path

import pytest

from runner.config.secrets import refuse_secrets, refuse_secrets_in
from runner.errors import ConfigError
from tests import processes
from tests.conftest import Compose, Runner

WRONG = {
    # command line: what the message must contain
    "batch.sise=4": ["'batch.sise'", "'batch.size'"],
    "+batch.sise=4": ["'batch.sise'", "'batch.size'"],
    "+foo=1": ["'foo'", "generation"],
    "+provider.latency=3": ["'provider.latency'", "'provider.latency_s'"],
    "+provider.model=x": ["'provider.model'", "model.id"],
    "batch.size=many": ["batch.size='many'", "integer"],
    "batch.size=0": ["batch.size=0", "greater than 0"],
    "batch.size=2.5": ["batch.size=2.5", "integer"],
    "batch.size=true": ["batch.size=True", "integer"],
    "batch.size=1,4": ["'batch.size=1,4'", "--multirun"],
    "batch.order=random": ["batch.order='random'", "'length' or 'given'"],
    "batch.mode=quick": ["batch.mode='quick'", "'static'"],
    "batch.mode=job": ["batch.mode='job'", "'echo'", "concurrent"],
    "provider=transformers batch.mode=concurrent": ["batch.mode='concurrent'", "'transformers'", "it has: static"],
    "provider=opnai": ["provider='opnai'", "openai, openvino, transformers"],
    "provider=transformers model=transformers/nope": ["'nope'", "default, gpt2"],
    "provider._target_=os.getcwd": ["provider._target_='os.getcwd'"],
    "provider._target_=runner.providers.echo.Nope": ["runner.providers.echo.Nope", "no such provider"],
    "provider.latency_s=-1": ["provider.latency_s=-1", "greater than or equal to 0"],
    "provider.latency_s=slow": ["provider.latency_s='slow'", "number"],
    "provider=transformers provider.dtype=int3": ["provider.dtype='int3'", "'bfloat16'"],
    "generation.temperature=-1": ["generation.temperature=-1", "greater than or equal to 0"],
    "generation.temperature=0.7": ["generation.temperature=0.7", "'echo'", "0.0"],
    "generation.top_p=0.5": ["top_p", "temperature=0"],
    "generation.stop_sequences=END": ["generation.stop_sequences='END'", "[A,B]"],
    "provider=transformers generation.n=2": ["generation.n=2", "temperature above 0"],
    "provider=transformers limits.requests_per_minute=5": ["limits.requests_per_minute=5", "'transformers'"],
    "provider=transformers batch.size=auto": ["batch.size='auto'", "batch.mode=concurrent"],
    "limits.max_attempts=0": ["limits.max_attempts=0", "greater than 0"],
    "seed=-1": ["seed=-1"],
    "~seed": ["seed is missing", "seed=VALUE"],
    "model.id=[a": ["model.id=[a", "quote"],
    "+repeat=2": ["'repeat'", "without the +"],
    "bach.size=2": ["'bach'", "did you mean 'batch'"],
    "batch.size.x=3": ["'batch.size.x'"],
    "-m --cfg job": ["--multirun, --cfg"],
    "batch=4": ["GROUP=OPTION"],
    "prompts=file": ["prompts.path=VALUE"],
    "prompts=file prompts.path=absent.jsonl": ["prompts.path='absent.jsonl'", "no such file"],
    "prompts=file prompts.path=x.jsonl prompts.dataset=y": ["path", "dataset"],
    "+provider.api_key=planted-secret": ["provider.api_key", "environment variable"],
    **{
        f"provider=openai {override}": [override.partition("=")[0].strip("+"), remedy]
        for override, remedy in {
            "provider.api_key_env=sk-proj-planted-secret": "name of an environment variable",
            "+provider.api_key_env=sk_planted_secret": "name of an environment variable",
            "provider.api_key_env='sk-planted-secret'": "name of an environment variable",
            "provider.api_key_env=OPENAI_API_KEY,sk-planted-secret": "name of an environment variable",
            "provider.api_key_env=aB3dE6planted_secretdE9": "name of an environment variable",
            "provider.base_url=https://user:planted-secret@host/v1": "without",
            "provider.base_url='https://planted-secret@host/v1'": "without",
        }.items()
    },
    "provider=azure provider.azure_endpoint=https://user:planted-secret@host": ["provider.azure_endpoint", "without"],
    "provider=bedrock provider.endpoint_url=https://user:planted-secret@host": ["provider.endpoint_url", "without"],
    "provider=openai batch.mode=static": ["batch.mode='static'", "set provider.endpoint=completions"],
    "tracking.uri=http://me:hush@host": ["tracking.uri", "would be written to disk"],
    "tracking.uri=postgresql://me:planted-secret/x@host/db": ["tracking.uri", "would be written to disk"],
    "tracking.uri=postgresql://host/db?password=planted-secret": ["tracking.uri", "would be written to disk"],
    "tracking.uri=http://host?token=planted-secret": ["tracking.uri", "would be written to disk"],
    "provider=openai provider.base_url=https://host/v1?api-key=planted-secret": ["provider.base_url", "query"],
    "+provider={api_key:planted-secret}": ["provider.api_key", "environment variable"],
    "+provider.extra=[{token:planted-secret}]": ["provider.extra.token", "environment variable"],
    "+provider.unknown_thing=planted-secret": ["'provider.unknown_thing'"],
    "+hydra.job.env_set={OPENAI_API_KEY:planted-secret}": ["hydra.job.env_set.OPENAI_API_KEY"],
    "batch.size=1,2 +provider={sessionToken:planted-secret} -m": ["provider.sessionToken"],
    "batch.size=0,0 -m": ["batch.size=0", "greater than 0"],
    "tracking.uri=sqlite:///": ["names no file", "sqlite:///FILE"],
    "tracking.uri=sqlite:///:memory:": ["names no file"],
    "tracking.uri=sqlite:////tmp": ["tracking.uri='sqlite:////tmp'", "it is a folder"],
    "tracking.uri=sqlite:////dev/null": ["it is no regular file"],
    "tracking.uri=sqlite:////etc/passwd": ["no SQLite database"],
    "provider.latency_s=inf": ["provider.latency_s=inf", "finite"],
    "provider.latency_s=1e9": ["less than or equal to 3600"],
    "limits.timeout_s=inf": ["limits.timeout_s=inf", "finite"],
    "limits.max_cost_usd=nan": ["limits.max_cost_usd=nan", "finite"],
    "generation.temperature=nan": ["generation.temperature=nan", "finite"],
    "provider=openai provider.api_key_env=NOT_SET_HERE": ["NOT_SET_HERE", "export it"],
    "provider=azure": ["AZURE_OPENAI_ENDPOINT"],
    "provider=bedrock provider.profile=no-such-profile": ["no-such-profile"],
    "tracking.uri=nonsense://x": ["uri='nonsense://x'", "sqlite"],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """The exit code, stdout and stderr of each wrong request."""
    folder = tmp_path_factory.mktemp("wrong")
    environment = os.environ | {"HOME": str(folder)}
    answers: dict[str, tuple[int, str, str]] = {}
    for line in WRONG:
        provider = [] if line.startswith("provider=") else ["provider=echo"]
        done = processes.run(["runner", *provider, *line.split()], cwd=folder, env=environment)
        answers[line] = (done.returncode, done.stdout, done.stderr)
    answers["everything written"] = (0, "\n".join(str(path) for path in folder.rglob("*")), "")
    return answers


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_request_is_refused_in_one_message(line: str, answers: dict[str, tuple[int, str, str]]):
    code, stdout, stderr = answers[line]
    assert code == 2, stderr
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1, "one message, no traceback"
    for part in WRONG[line]:
        assert part in stderr


def test_a_wrong_request_leaves_nothing_on_disk(answers: dict[str, tuple[int, str, str]]):
    assert answers["everything written"][1] == ""


def test_a_secret_on_the_command_line_is_not_repeated(answers: dict[str, tuple[int, str, str]]):
    for planted in ("planted-secret", "planted_secret"):
        assert not [line for line, (_, _, stderr) in answers.items() if planted in stderr]


@pytest.mark.parametrize("name", ["api_key", "OPENAI_API_KEY", "sessionToken", "token", "db-password", "aws_secret"])
def test_a_key_like_name_is_refused_at_any_depth(name: str):
    with pytest.raises(ConfigError, match=f"a\\.b\\.{name}"):
        refuse_secrets_in({"a": {"b": [{"c": 1}, {name: "planted"}]}})


def test_names_that_are_no_secrets_are_accepted():
    refuse_secrets_in({"api_key_env": "NAME", "max_tokens": 3, "token": None, "keys": ["x"], "monkey": 1, "key": {}})


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "my_key_2", "_K", "null", "A,B", "'MY_KEY'"])
def test_a_variables_name_is_not_taken_for_a_secret(name: str):
    refuse_secrets([f"provider.api_key_env={name}", "provider.base_url=http://127.0.0.1:8000/v1", "model.id=a@b"])


def test_max_tokens_is_not_taken_for_a_secret(run_command: Runner):
    assert run_command("provider=echo", "generation.max_tokens=3", "prompts=memo").returncode == 0


def test_a_used_folder_of_a_run_or_a_sweep_stays_as_it_is(run_command: Runner, tmp_path: Path):
    for arguments in (["hydra.run.dir=r"], ["-m", "hydra.sweep.dir=s"]):
        request = (*arguments, "provider=echo", "prompts=memo")
        assert run_command(*request).returncode == 0
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        again = run_command(*request, "seed=1")
        assert again.returncode == 2
        assert "exists already and has the record of a" in again.stderr
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_all_wrong_values_are_named_at_once(config: Compose):
    with pytest.raises(ConfigError, match=r"(?s)generation\.max_tokens=-1.*\n.*batch\.size=0"):
        config("batch.size=0", "generation.max_tokens=-1")
