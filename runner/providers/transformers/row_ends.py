"""Collects each row's new tokens while `generate()` runs, and ends the row: end of sequence, or a stop sequence.

transformers' own `stop_strings` matches the prompt's tokens too: a stop sequence that begins in the prompt ends a row.
The padding after a row's end then looks like tokens of the answer. Here a row has its own new tokens only, so that its
tokens and its end do not depend on the prompt's text, on other rows or on the padding token.
"""

from collections import deque
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any

from runner.types import Stopwatch

if TYPE_CHECKING:
    import torch

_SPARE_TOKENS = 8
"""Tokens in the decoded tail before a stop sequence may begin: a decoder may strip a space from the first, or lack the
first bytes of its character (at most 3)."""


class RowEnds:
    """A stopping criterion of `generate()` (transformers 5.23 `generation/stopping_criteria.py`) that keeps the rows.

    Each step decodes only a row's tail: as many tokens as the longest stop sequence has bytes, and a few more. Every
    token but the special ones, which are no part of a text, is at least one byte of it. The whole row is decoded once
    the tail has a stop sequence.

    Args:
        prompt_width: tokens of each row before its first new one, padding included.
        end_ids: tokens that end a sequence.
        special_ids: tokens that `decode` skips.
        stop_sequences: texts that end a row.
        decode: makes the text of a row's tokens.
        watch: notes when the first new tokens have arrived from the device.

    Attributes:
        rows: the new tokens of each row, up to and including its end.
    """

    def __init__(
        self,
        *,
        rows: int,
        prompt_width: int,
        end_ids: Set[int],
        special_ids: Set[int],
        stop_sequences: Sequence[str],
        decode: Callable[[list[int]], str],
        watch: Stopwatch,
    ) -> None:
        tail_tokens = max((len(stop.encode()) for stop in stop_sequences), default=0) + _SPARE_TOKENS
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self._tails = [deque[int](maxlen=tail_tokens) for _ in range(rows)]
        self._ended = [False] * rows
        self._width = prompt_width
        self._end_ids, self._special_ids = end_ids, special_ids
        self._stop_sequences, self._decode, self._watch = stop_sequences, decode, watch

    def __call__(self, input_ids: "torch.Tensor", _scores: object, **_arguments: Any) -> "torch.Tensor":
        """Take the tokens that are new since the last call; return whether each row has ended."""
        import torch

        columns = input_ids[:, self._width :].tolist()  # waits for the device
        self._watch.first_token()
        self._width = input_ids.shape[1]
        for row, tokens in enumerate(columns):
            for token in tokens:
                if not self._ended[row]:
                    self._append(row, token)
        return torch.tensor(self._ended, device=input_ids.device)

    def _append(self, row: int, token: int) -> None:
        self.rows[row].append(token)
        if token not in self._special_ids:
            self._tails[row].append(token)
        self._ended[row] = token in self._end_ids or (
            self._has_stop(list(self._tails[row])) and self._has_stop(self.rows[row])
        )

    def _has_stop(self, tokens: list[int]) -> bool:
        if not self._stop_sequences:
            return False
        text = self._decode(tokens)
        return any(stop in text for stop in self._stop_sequences)
