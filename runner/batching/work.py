"""What a mode is given to do: the whole prompt set, which of it is done, and whether to go on."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from runner.records import Outcome, Prompt

T = TypeVar("T")


def _never() -> bool:
    return False


def _unheard(_outcomes: Sequence[Outcome]) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The prompts of a run. Batches and numbers follow from all of them, whatever is done already.

    Attributes:
        done: ids of prompts that are not to be generated: they have their answers.
        stopping: whether no further prompt is to be sent.
        answered: is told each call's outcomes before another prompt is sent in its place, and may so end the run.
    """

    prompts: Sequence[Prompt]
    done: Set[str] = frozenset()
    stopping: Callable[[], bool] = _never
    answered: Callable[[Sequence[Outcome]], None] = _unheard

    def missing(self, prompts: Iterable[Prompt]) -> Sequence[Prompt]:
        """Return those of the prompts that are to be generated."""
        return [prompt for prompt in prompts if prompt.id not in self.done]

    def numbered(self) -> Iterator[tuple[int, Prompt]]:
        """Yield what is to be generated, each with its place in the set, until asked to stop."""
        return ((place, prompt) for place, prompt in self.left(enumerate(self.prompts)) if prompt.id not in self.done)

    def left(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items until asked to stop."""
        return takewhile(lambda _: not self.stopping(), items)
