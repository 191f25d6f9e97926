"""Reads a prompt set completely, with every record checked. Knows files and datasets, nothing of models."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from runner.config.schema import CONF_DIR, PromptsConfig
from runner.errors import MissingPackageError, PromptSetError
from runner.record.codec import decode_line
from runner.record.prompts import PackedPrompts
from runner.text import first_line, shorten
from runner.types import Message, Prompt, Role

PACKAGED = "conf://"
"""Prefix of a path that starts in the installed conf/ folder."""

_MAX_CHANGES = 10
_MAX_SHOWN, _MAX_CHANGED = 120, 60
"""Characters of a wrong record, and of a changed prompt, that a message repeats."""
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".txt": "txt"}
Row = tuple[str, Mapping[str, Any]]
"""A record's position ("line 3") and its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """The ordered prompts of a run; `sha256` identifies ids and messages, in order."""

    name: str
    source: str
    prompts: PackedPrompts
    sha256: str


def load_prompts(config: PromptsConfig) -> PromptSet:
    """Read the whole prompt set.

    Raises:
        PromptSetError: the set is missing or empty, or one of its records (named by its position) is wrong.
        MissingPackageError: a hub dataset is configured, and the extra `hub` is not installed.
    """
    if config.dataset is not None:
        name, source, rows = config.dataset, f"hub://{config.dataset}", _dataset_rows(config)
    else:
        path = _resolve(config.path or "")
        name, source, rows = path.stem, str(config.path), _file_rows(path, config)
    prompts = _prompts(islice(rows, config.limit), config, source)
    if not prompts:
        raise PromptSetError(f"prompt set {source!r} is empty: give it at least one prompt")
    return PromptSet(name=name, source=source, prompts=prompts, sha256=prompts.sha256)


def file_sha256(config: PromptsConfig) -> str | None:
    """Return the digest of the prompt set's file; None for a hub dataset, or if the file does not exist."""
    if config.path is None or not _resolve(config.path).is_file():
        return None
    with _resolve(config.path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changes(before: PackedPrompts, now: PackedPrompts) -> list[str]:
    """Return how two prompt sets differ: one text per prompt, 10 at most and how many more there are."""
    if before.lines == now.lines:
        return []
    old, new = ({prompt.id: prompt for prompt in prompts} for prompts in (before, now))
    old_texts, new_texts = (
        {id_: shorten(repr(prompt.text), _MAX_CHANGED) for id_, prompt in by_id.items()} for by_id in (old, new)
    )
    changed = [id_ for id_ in old if id_ in new and old[id_] != new[id_]]
    texts = [
        *(f"prompt {id_!r} was {old_texts[id_]} and is gone" for id_ in old if id_ not in new),
        *(f"prompt {id_!r} is new: {new_texts[id_]}" for id_ in new if id_ not in old),
        *(f"prompt {id_!r} was {old_texts[id_]} and is {new_texts[id_]}" for id_ in changed),
    ] or ["the same prompts in another order"]
    return texts if len(texts) <= _MAX_CHANGES else [*texts[:_MAX_CHANGES], f"and {len(texts) - _MAX_CHANGES} more"]


def _resolve(path: str) -> Path:
    if path.startswith(PACKAGED):
        return CONF_DIR / path.removeprefix(PACKAGED)
    return Path(path).expanduser()


def _file_rows(path: Path, config: PromptsConfig) -> Iterator[Row]:
    if not path.is_file():
        raise PromptSetError(
            f"prompts.path={config.path!r}: no such file (looked for {path.absolute()}): "
            "give the path of a jsonl, csv, parquet or txt file"
        )
    format_name = config.format or _FORMATS.get(path.suffix.lower())
    if format_name is None:
        raise PromptSetError(
            f"prompts.path={config.path!r}: cannot tell the format from {path.suffix!r}: "
            "set prompts.format to jsonl, csv, parquet or txt"
        )
    return _READERS[format_name](path, config)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Raise PromptSetError for a file that cannot be read, or is not UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise PromptSetError(
            f"prompts.path={str(path)!r} is not UTF-8 (byte {error.object[error.start]:#04x}): convert it to UTF-8"
        ) from None
    except OSError as error:  # pyarrow's have no strerror
        reason = error.strerror or first_line(error)
        raise PromptSetError(f"prompts.path={str(path)!r} cannot be read: {reason}: check the file") from None


def _text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line that is not blank, with its position. A byte order mark is skipped."""
    with _file_errors(path), path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", line.rstrip("\r\n")


def _read_jsonl(path: Path, config: PromptsConfig) -> Iterator[Row]:
    for position, line in _text_lines(path):
        try:
            record = decode_line(line)
        except (ValueError, RecursionError) as error:  # a number of too many digits, brackets in brackets
            reason = getattr(error, "msg", first_line(error))
            raise PromptSetError(f"{path}, {position}: not JSON ({reason}): {shorten(line, _MAX_SHOWN)}") from None
        if isinstance(record, str):
            record = {config.text_field: record}
        if not isinstance(record, dict):
            raise PromptSetError(f"{path}, {position}: not a JSON object or string: {shorten(line, _MAX_SHOWN)}")
        yield position, record


def _read_txt(path: Path, config: PromptsConfig) -> Iterator[Row]:
    for position, line in _text_lines(path):
        yield position, {config.text_field: line}


def _read_csv(path: Path, config: PromptsConfig) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with _file_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                position = f"line {reader.line_num}"
                if None in record or None in record.values():
                    raise PromptSetError(
                        f"{path}, {position}: its number of columns is not the header's "
                        f"{len(reader.fieldnames or [])}: quote values that contain commas"
                    )
                yield position, record
        except csv.Error as error:
            raise PromptSetError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _read_parquet(path: Path, config: PromptsConfig) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _file_errors(path), pyarrow.parquet.ParquetFile(path) as file:
            fields = {config.text_field, config.id_field, config.messages_field}
            columns = [name for name in file.schema_arrow.names if name in fields]
            number = 0
            for batch in file.iter_batches(columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except (pyarrow.ArrowException, ValueError) as error:
        reason = shorten(first_line(error), _MAX_SHOWN)
        raise PromptSetError(
            f"prompts.path={config.path!r} cannot be read as Parquet: {reason}: check the file"
        ) from None


_READERS: Mapping[str, Callable[[Path, PromptsConfig], Iterator[Row]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "parquet": _read_parquet,
    "txt": _read_txt,
}


def _dataset_rows(config: PromptsConfig) -> Iterator[Row]:
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingPackageError.for_extra("prompts=hub", package="datasets", extra="hub") from None
    try:
        rows = datasets.load_dataset(
            config.dataset,
            config.subset,
            split=config.split,
            revision=config.revision,
            streaming=config.limit is not None,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise PromptSetError(
            f"prompts.dataset={config.dataset!r} cannot be loaded: {shorten(str(error), _MAX_SHOWN)}: check the id, "
            "prompts.subset and prompts.split, or use a local file: prompts=file prompts.path=FILE"
        ) from None
    return ((f"row {number}", record) for number, record in enumerate(rows, 1))


def _prompts(rows: Iterable[Row], config: PromptsConfig, source: str) -> PackedPrompts:
    prompts, ids = PackedPrompts(), set[str]()
    for index, (position, record) in enumerate(rows):
        where = f"{source}, {position}"
        prompt = Prompt(id=_id(record, index, config, where), messages=_messages(record, config, where))
        if prompt.id in ids:
            earlier_record = next(number for number, earlier in enumerate(prompts, 1) if earlier.id == prompt.id)
            raise PromptSetError(
                f"{where}: the id {prompt.id!r} is already that of record {earlier_record}: make ids unique, or set "
                "prompts.id_field to a field that is"
            )
        ids.add(prompt.id)
        prompts.append(prompt)
    return prompts


def _id(record: Mapping[str, Any], index: int, config: PromptsConfig, where: str) -> str:
    value = record.get(config.id_field)
    if value is None:
        return str(index)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        shown = shorten(repr(value), _MAX_SHOWN)
        raise PromptSetError(f"{where}: the id (field {config.id_field!r}) is {shown}: use a text or a whole number")
    return str(value)


def _messages(record: Mapping[str, Any], config: PromptsConfig, where: str) -> tuple[Message, ...]:
    if record.get(config.messages_field) is not None:
        messages = _conversation(record[config.messages_field], where)
    else:
        messages = (Message(role="user", content=_text(record, config, where)),)
    if config.system is None or messages[0].role == "system":
        return messages
    return (Message(role="system", content=config.system), *messages)


def _text(record: Mapping[str, Any], config: PromptsConfig, where: str) -> str:
    if config.text_field not in record:
        raise PromptSetError(
            f"{where}: no field {config.text_field!r} or {config.messages_field!r}, "
            f"it has {', '.join(map(repr, record))}: set prompts.text_field or prompts.messages_field"
        )
    text = record[config.text_field]
    if not isinstance(text, str) or not text.strip():
        raise PromptSetError(
            f"{where}: the prompt (field {config.text_field!r}) is {shorten(repr(text), _MAX_SHOWN)}: it must be a text"
        )
    return text


def _conversation(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):  # a CSV cell
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise PromptSetError(f"{where}: the messages are not JSON: {shorten(value, _MAX_SHOWN)}") from None
    roles = get_args(Role)
    well_formed = isinstance(value, list) and all(
        isinstance(item, dict) and item.get("role") in roles and isinstance(item.get("content"), str) for item in value
    )
    if not well_formed or not value:
        raise PromptSetError(
            f"{where}: the messages are {shorten(repr(value), _MAX_SHOWN)}: use a list of "
            f'{{"role": {"|".join(roles)}, "content": "text"}}'
        )
    if value[-1]["role"] != "user":
        raise PromptSetError(f"{where}: the last message is the {value[-1]['role']}'s: a prompt ends with the user's")
    return tuple(Message(role=item["role"], content=item["content"]) for item in value)
