"""A run's prompts, in memory and as prompts.jsonl; the file is a prompt set itself."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self, overload

from runner.record.codec import decode_line, encode_line
from runner.types import Message, Prompt


class PackedPrompts(Sequence[Prompt]):
    """Prompts as lines of JSON in one piece of memory, made into values when asked for.

    A million prompts are a hundred bytes each this way, and seven hundred as values.
    """

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self._lines, self._ends = bytearray(), array("Q", [0])
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
        with path.open("rb") as lines:
            for line in lines:
                prompts._append_line(line)
        return prompts

    def _append_line(self, line: bytes) -> None:
        self._lines += line
        self._ends.append(len(self._lines))

    @property
    def lines(self) -> memoryview:
        """All of it, as the file `prompts.jsonl` has it."""
        return memoryview(self._lines)

    @property
    def sha256(self) -> str:
        """Identifies ids and messages, in order: the sha256 of `prompts.jsonl`."""
        return hashlib.sha256(self._lines).hexdigest()

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Prompt: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, place: int | slice) -> Prompt | tuple[Prompt, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        at = range(len(self))[place]
        record = decode_line(bytes(self._lines[self._ends[at] : self._ends[at + 1]]))
        return Prompt(id=record["id"], messages=tuple(Message(**message) for message in record["messages"]))
