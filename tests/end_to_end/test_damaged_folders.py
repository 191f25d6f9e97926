"""Damaged and hostile run folders: one message that names the file, or the command goes on as far as it can."""

import ctypes
import json
import logging
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.cli import compare, resume
from runner.record.repair import DAMAGED
from tests.conftest import Compose

FILES = (
    "run.json", "config.yaml", "prompts.jsonl", "outcomes.jsonl", "summary.json", "environment.json", "segments.json",
    "tracking.json", "run.hmac",
)  # fmt: skip
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def _edit(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return what changes the value of a JSON file, of each line where there are several."""

    def edit(path: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        values = [json.loads(line) for line in lines]
        for value in values:
            change(value)
        path.write_text("".join(json.dumps(value) + "\n" for value in values))

    return edit


def _replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return replace


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if path.exists() else b"{"),
    "a list": lambda path: path.write_bytes(b"[]\n"),
    "a number": lambda path: path.write_bytes(b"5\n"),
    "an empty object": lambda path: path.write_bytes(b"{}\n"),
    "nested": lambda path: path.write_bytes(DEEP + b"\n"),
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff\xfe": 1}\n'),
    "a long number": lambda path: path.write_bytes(b'{"a": ' + b"9" * 5000 + b"}\n"),
    "a folder": _replaced_by(Path.mkdir),
    "a pipe": _replaced_by(os.mkfifo),
    "a link": _replaced_by(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": _replaced_by(lambda path: path.symlink_to("/nowhere/at/all")),
}
WRONG_VALUES: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a text of numbers": ("outcomes.jsonl", lambda line: line.update(text=5)),
    "a latency of words": ("outcomes.jsonl", lambda line: line.update(latency_s="long")),
    "a line without a field": ("outcomes.jsonl", lambda line: line.pop("started_at")),
    "a time without zone": ("outcomes.jsonl", lambda line: line.update(started_at="2026-01-01T00:00:00")),
    "an id that is a list": ("outcomes.jsonl", lambda line: line.update(prompt_id=[1])),
    "a segment that is a text": ("outcomes.jsonl", lambda line: line.update(segment="0")),
    "an error that is a text": ("outcomes.jsonl", lambda line: line.update(error="it failed")),
    "tokens that are texts": ("outcomes.jsonl", lambda line: line.update(token_ids=["a"])),
    "neither text nor error": ("outcomes.jsonl", lambda line: line.update(text=None)),
    "tokens below 0": ("outcomes.jsonl", lambda line: line.update(output_tokens=-5)),
    "more tokens than there are": ("outcomes.jsonl", lambda line: line.update(output_tokens=10**12)),
    "a segment beyond all": ("outcomes.jsonl", lambda line: line.update(segment=10**20)),
    "an endless latency": ("outcomes.jsonl", lambda line: line.update(latency_s=math.inf)),
    "a latency that is no number": ("outcomes.jsonl", lambda line: line.update(latency_s=math.nan)),
    "gaps that are no numbers": ("outcomes.jsonl", lambda line: line.update(chunk_gaps_s=[0.1, math.nan])),
    "token ids that are fractions": ("outcomes.jsonl", lambda line: line.update(token_ids=[0.5])),
    "token ids beyond all": ("outcomes.jsonl", lambda line: line.update(token_ids=[10**30])),
    "a prompt without messages": ("prompts.jsonl", lambda line: line.pop("messages")),
    "a message that is a number": (
        "prompts.jsonl",
        lambda line: line.update(messages=[{"role": "user", "content": 5}]),
    ),
    "metrics that are texts": ("summary.json", lambda value: value.update(metrics={"prompts_per_s": "fast"})),
    "metrics that are a list": ("summary.json", lambda value: value.update(metrics=[])),
    "a status of another kind": ("summary.json", lambda value: value.update(status=7)),
    "series of another shape": ("summary.json", lambda value: value.update(series={"a": [[1, 2, 3]]})),
    "segments that are numbers": ("segments.json", lambda value: value.update(segments=[1, 2])),
    "a provider that is a list": ("environment.json", lambda value: value.update(provider=[1])),
    "a processor that is a text": ("environment.json", lambda value: value.update(cpu="fast")),
    "a commit that is a number": ("environment.json", lambda value: value.update(git={"commit": 5})),
    "prompts without a digest": ("run.json", lambda value: value["prompts"].pop("sha256")),
    "prompts that are a text": ("run.json", lambda value: value.update(prompts="p")),
    "a configuration that is a text": ("run.json", lambda value: value.update(config="p")),
    "a configuration without provider": ("run.json", lambda value: value["config"].pop("provider")),
    "a working directory that is a number": ("run.json", lambda value: value.update(working_dir=3)),
    "a folder that is a list": ("run.json", lambda value: value.update(folder=["outputs"])),
}
LAUGHS = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (depth, depth, b", ".join([b"*a%d" % (depth - 1)] * 10)) for depth in range(1, 30)
)
"""10^29 values of 29 lines."""
ALIASES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "aliases of aliases": ("config.yaml", lambda path: path.write_bytes(LAUGHS)),
    "an alias of itself": ("config.yaml", lambda path: path.write_bytes(b"a: &a\n  b: *a\n")),
}
TAGS = (
    "!!bool maybe",
    "!!timestamp soon",
    "!!int ''",
    "!!float x",
    "!!binary QQ==",
    "!!set {a}",
    "2001-01-01",
    "2001-99-99",
)
"""What no tag fits, and what is no value of JSON: a configuration has neither."""
DAMAGES = (
    {f"{name} is {kind}": (name, damage) for name in FILES for kind, damage in KINDS.items()}
    | {f"{name} has {kind}": (name, _edit(change)) for kind, (name, change) in WRONG_VALUES.items()}
    | {f"{name} has {kind}": (name, damage) for kind, (name, damage) in ALIASES.items()}
    | {f"{name} is there": (name, partial(Path.write_text, data="{}")) for name in ("environment.²³.json",)}
    | {f"config.yaml has {tag}": ("config.yaml", partial(Path.write_text, data=f"batch: {tag}\n")) for tag in TAGS}
)


@pytest.fixture(scope="module")
def recorded(config: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three prompts, of which the last is still to be generated, and a whole one beside it."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "p.txt").write_text("one\ntwo\nthree\n")
    for name, size in (("run", 2), ("other", 1)):
        app.run(
            config("provider=echo", f"batch.size={size}", "prompts=file", f"prompts.path={folder / 'p.txt'}"),
            folder / name,
        )
    outcomes = folder / "run" / "outcomes.jsonl"
    outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:2]))
    return folder


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore what a command changes in its process: logging and signals."""
    runner, root = logging.getLogger("runner"), logging.getLogger()
    kept = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in (runner, root)]
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, action in signals.items():
        signal.signal(number, action)
    for logger, handlers, level, propagate in kept:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["resume", "compare"])
def test_a_damaged_folder_is_one_message_or_taken_as_far_as_it_goes(
    command: str, damage: str, recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded / "run", tmp_path / "run")
    name, damage_file = DAMAGES[damage]
    damage_file(tmp_path / "run" / name)
    code = exit_code(command, recorded)
    assert_one_message(code, capfd.readouterr().err, name)


def exit_code(command: str, recorded: Path) -> object:
    """Give a command for the run in the working directory; return its exit code."""
    try:
        if command == "resume":
            resume.main(["run"])
        else:
            compare.main(["run", str(recorded / "other"), "--json"])
    except SystemExit as ended:
        return ended.code
    return 0


def assert_one_message(code: object, messages: str, name: str) -> None:
    assert "Traceback" not in messages
    if code:
        assert messages.count("error: ") == 1, messages
        assert name in messages, "the message names the file"
        assert code in (1, 2)


def test_endless_metrics_are_none(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded / "run", tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(re.sub(r'(_prompts": )[0-9.]+', r"\g<1>1e999", summary.read_text()))
    compare.main(["run", str(recorded / "other")])
    assert "no result" in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link"])
def test_what_is_set_aside_goes_into_a_file_of_the_folder_or_nowhere(
    kind: str, recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded / "run", tmp_path / "run")
    with (tmp_path / "run" / "outcomes.jsonl").open("ab") as file:
        file.write(b"damaged\n")
    KINDS[kind](tmp_path / "run" / DAMAGED)
    with pytest.raises(SystemExit) as ended:
        resume.main(["run", "--repair"])
    assert_one_message(ended.value.code, capfd.readouterr().err, DAMAGED)
    assert (tmp_path / "run" / "outcomes.jsonl").read_bytes().endswith(b"damaged\n"), "nothing was set aside"


@contextmanager
def without_roots_rights() -> Iterator[None]:
    """Take from root, in this thread, the right to read and write whatever a file's mode says."""
    libc, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    kept = (ctypes.c_uint32 * 6)()
    libc.capget(header, kept)
    limited = (ctypes.c_uint32 * 6)(*kept)
    limited[0] &= ~0b110  # effective CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, limited)
    try:
        yield
    finally:
        libc.capset(header, kept)


@pytest.mark.parametrize("name", [*FILES, "runner.log", "run.lock"])
@pytest.mark.parametrize("command", ["resume", "compare"])
def test_a_file_without_the_right_to_read_is_one_message_or_the_command_goes_on(
    command: str, name: str, recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recorded / "run", tmp_path / "run")
    (tmp_path / "run" / name).touch()
    (tmp_path / "run" / name).chmod(0)
    with without_roots_rights():
        if os.access(tmp_path / "run" / name, os.R_OK, effective_ids=True):
            pytest.skip("this process reads every file, whatever its mode")
        code = exit_code(command, recorded)
    assert_one_message(code, capfd.readouterr().err, name)
