"""Collects each row's new tokens while `generate()` runs, and ends the row.

transformers' own `stop_strings` matches the prompt's tokens too: a stop sequence that begins in the prompt ends a row.
The padding after a row's end then looks like tokens of the answer. Here a row has its own new tokens only, so that its
tokens and its end do not depend on the prompt's text, on other rows or on the padding token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.providers.answer_tokens import AnswerTokens
from runner.types import Stopwatch

if TYPE_CHECKING:
    import torch


class RowEnds:
    """A stopping criterion of `generate()` (transformers 5.23 `generation/stopping_criteria.py`) that fills the rows.

    Args:
        rows: one for each row of the batch.
        prompt_width: tokens of each row before its first new one, padding included.
        watch: notes when the first new tokens have arrived from the device.
    """

    def __init__(self, *, rows: Sequence[AnswerTokens], prompt_width: int, watch: Stopwatch) -> None:
        self._rows, self._width, self._watch = rows, prompt_width, watch

    def __call__(self, input_ids: "torch.Tensor", _scores: object, **_arguments: Any) -> "torch.Tensor":
        """Take the tokens that are new since the last call; return whether each row has ended."""
        import torch

        columns = input_ids[:, self._width :].tolist()  # waits for the device
        self._watch.first_token()
        self._width = input_ids.shape[1]
        for row, tokens in zip(self._rows, columns, strict=True):
            for token in tokens:
                row.append(token)
        return torch.tensor([row.has_ended for row in self._rows], device=input_ids.device)
