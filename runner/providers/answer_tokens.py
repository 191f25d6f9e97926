"""Collects the new tokens of one answer of a local model, and finds its end: end of sequence, or a stop sequence.

An answer has its own new tokens only, so that its tokens and its end do not depend on the prompt's text.
"""

from collections import deque
from collections.abc import Callable, Sequence, Set

from runner.types import FinishReason

_SPARE_TOKENS = 8
"""Tokens in the decoded tail before a stop sequence may begin: a decoder may strip a space from the first, or lack the
first bytes of its character (at most 3)."""


class AnswerTokens:
    """The new tokens of one answer.

    Each token decodes only the answer's tail: as many tokens as the longest stop sequence has bytes, and a few more.
    Every token but the special ones, which are no part of a text, is at least one byte of it. The whole answer is
    decoded once the tail has a stop sequence.

    Args:
        end_ids: tokens that end a sequence.
        special_ids: tokens that `decode` skips.
        stop_sequences: texts that end the answer.
        decode: makes the text of tokens.

    Attributes:
        token_ids: the tokens up to and including the answer's end.
        has_ended: whether the last token ends a sequence or completes a stop sequence.
    """

    def __init__(
        self,
        *,
        end_ids: Set[int],
        special_ids: Set[int],
        stop_sequences: Sequence[str],
        decode: Callable[[list[int]], str],
    ) -> None:
        self._end_ids, self._special_ids = end_ids, special_ids
        self._stop_sequences, self._decode = stop_sequences, decode
        tail_tokens = max((len(stop.encode()) for stop in stop_sequences), default=0) + _SPARE_TOKENS
        self._tail = deque[int](maxlen=tail_tokens)
        self.token_ids: list[int] = []
        self.has_ended = False

    def append(self, token: int) -> None:
        """Add a token; what comes after the end is no part of the answer."""
        if self.has_ended:
            return
        self.token_ids.append(token)
        if token not in self._special_ids:
            self._tail.append(token)
        self.has_ended = token in self._end_ids or (self._has_stop(list(self._tail)) and self._has_stop(self.token_ids))

    def read(self) -> tuple[str, FinishReason]:
        """Return the text up to the first stop sequence, and why the answer ended."""
        text = self._decode(self.token_ids)
        stop = min((start for stop in self._stop_sequences if (start := text.find(stop)) >= 0), default=None)
        if stop is not None:
            return text[:stop], "stop"
        return text, "stop" if self.token_ids[-1] in self._end_ids else "length"

    def _has_stop(self, tokens: list[int]) -> bool:
        if not self._stop_sequences:
            return False
        text = self._decode(tokens)
        return any(stop in text for stop in self._stop_sequences)
