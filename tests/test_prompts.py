"""Prompt sets: every format, and every way to be wrong: one clear message, nothing loaded."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.config.schema import PromptsConfig
from runner.errors import PromptSetError
from runner.prompts import load_prompts
from tests.conftest import Compose

RECORDS = [{"id": "one", "prompt": "Say hi.\nTwice."}, {"id": "two", "prompt": 'A "quoted", comma'}]


@pytest.fixture
def prompts_config(config: Compose) -> Any:
    def made(file: Path | str, **changes: Any) -> PromptsConfig:
        base = config("prompts=file", f"prompts.path={file}").prompts
        return base.model_copy(update=changes)

    return made


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def files(folder: Path) -> list[Path]:
    lines = "\n".join(json.dumps(record) for record in RECORDS)
    write(folder / "p.jsonl", lines + "\n\n")
    write(folder / "p.csv", 'id,prompt\none,"Say hi.\nTwice."\ntwo,"A ""quoted"", comma"\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), folder / "p.parquet")
    return [folder / name for name in ("p.jsonl", "p.csv", "p.parquet")]


def test_every_format_gives_the_same_set(tmp_path: Path, prompts_config: Any):
    sets = [load_prompts(prompts_config(path)) for path in files(tmp_path)]
    assert [prompt.text for prompt in sets[0].prompts] == [record["prompt"] for record in RECORDS]
    assert [prompt.id for prompt in sets[0].prompts] == ["one", "two"]
    assert len({loaded.sha256 for loaded in sets}) == 1, "the same prompts have the same identity, whatever their file"


def test_plain_text_is_a_prompt_a_line(tmp_path: Path, prompts_config: Any):
    path = write(tmp_path / "p.txt", "\ufefffirst\r\n\r\nsecond, with \u2028 in it\n")
    loaded = load_prompts(prompts_config(path)).prompts
    assert [(prompt.id, prompt.text) for prompt in loaded] == [("0", "first"), ("1", "second, with \u2028 in it")]


def test_fields_can_be_named(tmp_path: Path, prompts_config: Any):
    path = write(tmp_path / "p.data", '{"n": 7, "question": "why?"}')
    loaded = load_prompts(prompts_config(path, format="jsonl", text_field="question", id_field="n")).prompts
    assert [(prompt.id, prompt.text) for prompt in loaded] == [("7", "why?")]


def test_a_conversation_is_kept_whole_and_takes_a_system_message(tmp_path: Path, prompts_config: Any):
    conversation = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "and?"},
    ]
    with_system = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    path = write(
        tmp_path / "p.jsonl", json.dumps({"messages": conversation}) + "\n" + json.dumps({"messages": with_system})
    )
    first, second = load_prompts(prompts_config(path, system="be brief")).prompts
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "user"]
    assert first.messages[0].content == "be brief"
    assert second.messages[0].content == "mine", "a prompt's own system message wins"


def test_limit_takes_the_first_and_system_changes_the_identity(tmp_path: Path, prompts_config: Any):
    path = files(tmp_path)[0]
    whole, limited = load_prompts(prompts_config(path)), load_prompts(prompts_config(path, limit=1))
    assert [prompt.id for prompt in limited.prompts] == ["one"]
    assert len({whole.sha256, limited.sha256, load_prompts(prompts_config(path, system="x")).sha256}) == 3


WRONG: dict[str, tuple[str, str | bytes, list[str]]] = {
    "empty": ("p.jsonl", "", ["is empty"]),
    "blank lines only": ("p.txt", "\n \n", ["is empty"]),
    "broken line": ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', ["line 2", "not JSON"]),
    "line that is a number": ("p.jsonl", "17", ["line 1", "not a JSON object"]),
    "duplicate ids": ("p.jsonl", '{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}', ["line 2", "'1'", "record 1"]),
    "missing field": ("p.jsonl", '{"text": "a"}', ["line 1", "'prompt'", "'text'", "prompts.text_field"]),
    "blank prompt": ("p.jsonl", '{"prompt": " "}', ["line 1", "must be a text"]),
    "prompt that is no text": ("p.jsonl", '{"prompt": 5}', ["line 1", "5"]),
    "id that is no id": ("p.jsonl", '{"id": [1], "prompt": "a"}', ["line 1", "[1]"]),
    "not UTF-8": ("p.jsonl", b'{"prompt": "\xff"}', ["UTF-8", "0xff"]),
    "not UTF-8 csv": ("p.csv", b"prompt\n\xff\n", ["UTF-8"]),
    "unknown role": (
        "p.jsonl",
        '{"messages": [{"role": "robot", "content": "x"}]}',
        ["line 1", "robot", "system|user"],
    ),
    "no messages": ("p.jsonl", '{"messages": []}', ["line 1", "messages"]),
    "assistant last": (
        "p.jsonl",
        '{"messages": [{"role": "assistant", "content": "x"}]}',
        ["line 1", "ends with the user's"],
    ),
    "too many columns": ("p.csv", "id,prompt\na,b,c\n", ["line 2", "columns"]),
    "too few columns": ("p.csv", "id,prompt\na\n", ["line 2", "columns"]),
    "open quote": ("p.csv", 'prompt\n"abc\n', ["not CSV"]),
    "not Parquet": ("p.parquet", "PAR", ["cannot be read as Parquet"]),
    "damaged Parquet": ("p.parquet", b"PAR1" + bytes(20) + b"\x08\0\0\0PAR1", ["p.parquet", "cannot be read"]),
    "nested too deep": ("p.jsonl", '{"prompt": ' + "[" * 100_000, ["line 1", "not JSON"]),
    "number of too many digits": ("p.jsonl", '{"prompt": "a", "n": ' + "1" * 5000 + "}", ["line 1", "not JSON"]),
    "messages nested too deep": ("p.csv", 'messages\n"' + "[" * 100_000 + '"\n', ["line 2", "messages are not JSON"]),
    "messages with a huge number": ("p.csv", 'messages\n"[' + "1" * 5000 + ']"\n', ["line 2", "messages are not JSON"]),
    "unknown ending": ("p.docx", "x", ["'.docx'", "prompts.format"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_clear_message(case: str, tmp_path: Path, prompts_config: Any):
    name, content, parts = WRONG[case]
    with pytest.raises(PromptSetError) as caught:
        load_prompts(prompts_config(write(tmp_path / name, content)))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_folder_is_not_a_prompt_file(tmp_path: Path, prompts_config: Any):
    with pytest.raises(PromptSetError, match="no such file"):
        load_prompts(prompts_config(tmp_path))


def test_a_hub_dataset_is_read_through_the_library(tmp_path: Path, prompts_config: Any):
    pytest.importorskip("datasets")
    write(tmp_path / "train.jsonl", '{"question": "why?", "id": "q1"}\n{"question": "how?", "id": "q2"}')
    hub = {"path": None, "dataset": str(tmp_path), "split": "train", "text_field": "question"}
    for limit, ids in ((None, ["q1", "q2"]), (1, ["q1"])):
        loaded = load_prompts(prompts_config("unused", **hub, limit=limit))
        assert [prompt.id for prompt in loaded.prompts] == ids
    with pytest.raises(PromptSetError, match=r"(?s)cannot be loaded.*prompts\.path"):
        load_prompts(prompts_config("unused", **hub | {"dataset": "nobody/nothing"}))


def test_a_parquet_file_with_any_broken_byte_is_read_or_refused(tmp_path: Path, prompts_config: Any):
    path = tmp_path / "p.parquet"
    columns = {"id": [str(number) for number in range(50)], "prompt": [f"text {number}" for number in range(50)]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    whole, chosen = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        path.write_bytes(damaged)
        try:
            load_prompts(prompts_config(path))
        except PromptSetError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20
