"""How far apart two next tokens are, and how far rounding moves that gap. Token ids in, logits out.

Nothing here pads, masks or numbers positions: every row of a call has the same length, and the model is given token ids
only. A defect in the padding, the mask or the positions of generation therefore cannot move these figures.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.text import first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_POSITIONS_PER_PASS = 256
"""Positions whose logits one pass returns: bounds the memory at 256 x vocabulary, whatever the answer's length."""


def measure_gap(model: "PreTrainedModel", token_ids: Sequence[int], first: int, second: int) -> float:
    """Return the logit of token `first` minus that of token `second` after `token_ids`, in one pass of one row.

    Raises:
        ModelError: as for `measure_gap_changes`.
    """
    import torch

    with torch.inference_mode(), _model_errors():
        logits = _pass(model, token_ids, range(len(token_ids) - 1, len(token_ids)))
    return float(logits[0, first] - logits[0, second])


def measure_gap_changes(
    model: "PreTrainedModel", prompt_ids: Sequence[int], new_ids: Sequence[int], copies: int
) -> list[float]:
    """Return, for each new token, the largest change of the gap between the two best tokens at its place.

    The gap of one pass over the sequence alone, as `measure_gap` has it, is compared with the gap as generation
    computes it: prompt first, then token by token with a cache, by the sequence alone and among `copies` of it. Let e
    be the larger of these two changes. Where rounding alone makes one run choose `first` and another `second`, the gap
    of the former is at least 0 and that of the latter at most 0, so that the gap of the one pass lies in [-e, e].
    One pass among copies would be too narrow a bound: on a CPU in bfloat16 it changed no gap of 126, where the steps
    moved gaps by up to 0.375.

    Args:
        model: the loaded model.
        prompt_ids: tokens of the prompt; at least one.
        new_ids: tokens that were generated.
        copies: how many identical rows.

    Raises:
        ModelError: the architecture has no cache of keys and values or cannot leave out logits, or memory is short.
    """
    import torch

    with torch.inference_mode(), _model_errors():
        best = _best_two(model, prompt_ids, new_ids)
        changes = [0.0] * len(new_ids)
        for rows in {1, copies}:
            for index, logits in enumerate(_steps(model, prompt_ids, new_ids, rows)):
                tokens, gap = best[index]
                moved = (logits[:, tokens[0]] - logits[:, tokens[1]] - gap).abs().max()
                changes[index] = max(changes[index], float(moved))
    return changes


@contextmanager
def _model_errors() -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError, RuntimeError, MemoryError) as error:
        raise ModelError(f"margins of this model cannot be measured on this machine: {first_line(error)}") from error


def _best_two(
    model: "PreTrainedModel", prompt_ids: Sequence[int], new_ids: Sequence[int]
) -> list[tuple[tuple[int, int], float]]:
    """Return the two best tokens at each new token's place and their gap, from one pass over the sequence alone."""
    sequence = [*prompt_ids, *new_ids][:-1]
    best: list[tuple[tuple[int, int], float]] = []
    for start in range(len(prompt_ids) - 1, len(sequence), _POSITIONS_PER_PASS):
        logits = _pass(model, sequence, range(start, min(start + _POSITIONS_PER_PASS, len(sequence))))
        values, tokens = logits.topk(2, dim=-1)
        gaps = (values[:, 0] - values[:, 1]).tolist()
        best += [((first, second), gap) for (first, second), gap in zip(tokens.tolist(), gaps, strict=True)]
    return best


def _pass(model: "PreTrainedModel", token_ids: Sequence[int], positions: range) -> "torch.Tensor":
    """Return the logits at `positions` of one row, [positions, vocabulary], in float32 as generation compares them."""
    import torch

    rows = torch.tensor([list(token_ids)], device=model.device)
    kept = torch.tensor(list(positions), device=model.device)
    logits: torch.Tensor = model(input_ids=rows, use_cache=False, logits_to_keep=kept).logits[0]
    return logits.float()


def _steps(
    model: "PreTrainedModel", prompt_ids: Sequence[int], new_ids: Sequence[int], rows: int
) -> Iterator["torch.Tensor"]:
    """Yield the logits [rows, vocabulary] at each new token's place: the prompt in one call, then token by token."""
    import torch

    cache = None
    for token_ids in [list(prompt_ids), *([token] for token in new_ids[:-1])]:
        batch = torch.tensor([token_ids] * rows, device=model.device)
        output = model(input_ids=batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        yield output.logits[:, -1].float()
