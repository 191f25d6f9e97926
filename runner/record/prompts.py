"""A run's prompts, in memory and as prompts.jsonl, which is a prompt set itself."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, overload

from runner.errors import RecordError
from runner.record.codec import decode_line, encode_line
from runner.text import shorten
from runner.types import Message, Prompt

PROMPTS = "prompts.jsonl"
_MAX_REASON = 200


class PackedPrompts(Sequence[Prompt]):
    """Prompts as lines of JSON in one buffer, decoded on access.

    Each of a million prompts takes a hundred bytes as a line, and seven hundred as a Prompt.
    """

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._lines, self._ends = bytearray(), array("Q", [0])
        self._source = PROMPTS
        for prompt in prompts:
            self.append(prompt)

    def append(self, prompt: Prompt) -> None:
        """Add one prompt at the end."""
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        self._append_line(encode_line({"id": prompt.id, "messages": messages}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the prompts of a prompts.jsonl."""
        prompts = cls()
        prompts._source = str(path)
        with path.open("rb") as lines:
            for line in lines:
                prompts._append_line(line)
        return prompts

    def _append_line(self, line: bytes) -> None:
        self._lines += line
        self._ends.append(len(self._lines))

    @property
    def lines(self) -> memoryview:
        """All lines, as in the file `prompts.jsonl`."""
        return memoryview(self._lines)

    @property
    def sha256(self) -> str:
        """The sha256 of `prompts.jsonl`: equal where ids and messages are equal, in the same order."""
        return hashlib.sha256(self._lines).hexdigest()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, index: int | slice) -> Prompt | tuple[Prompt, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]  # from 0 on, or IndexError
        line = bytes(self._lines[self._ends[number] : self._ends[number + 1]])
        try:
            return _prompt(decode_line(line))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {shorten(str(error), _MAX_REASON)}"
            raise RecordError(f"{self._source}, line {number + 1}: not a prompt ({reason}): restore the file") from None


def _prompt(record: Any) -> Prompt:
    prompt = Prompt(id=record["id"], messages=tuple(Message(**message) for message in record["messages"]))
    texts = [prompt.id, *(text for message in prompt.messages for text in (message.role, message.content))]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("id, role and content are texts")
    return prompt
