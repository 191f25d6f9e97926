"""Measures noise bounds and margins with a loaded model, for one pair of runs after another, within a time."""

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil

from runner.comparison.explain import (
    MIN_POSITIONS,
    ExplainedDifference,
    Explanation,
    NoiseBound,
    TokenDifference,
    judge,
    noise_bound,
)
from runner.comparison.loadable import no_gaps
from runner.config.schema import RunConfig
from runner.errors import RunnerError
from runner.providers.factory import build
from runner.providers.protocols import Continuation, GapProvider, Provider
from runner.text import first_line
from runner.types import Prompt

OnProgress = Callable[[int, int], None]
"""Called with how many differences are explained, and of how many."""
_MIN_SEQUENCE = 32
"""Tokens of one answer that the noise is measured on, at least, so that several answers have a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A pair of runs whose differences are to be explained.

    Attributes:
        label: of the compared run.
        config: loads the model.
        differences: at least one.
        token_ids: the reference's new tokens by prompt, of all prompts that both runs answered.
        prompts: those prompts by their ids.
        without_ids: answers that differ and have no token ids.
        copies: rows of the run's largest batch.
    """

    label: str
    config: RunConfig
    differences: Sequence[TokenDifference]
    token_ids: Mapping[str, tuple[int, ...]]
    prompts: Mapping[str, Prompt]
    without_ids: int
    copies: int

    @property
    def source(self) -> str:
        """What tasks have in common that one loaded model serves."""
        return f"{self.config.model.model_dump_json()} {self.config.provider.model_dump_json()}"

    @property
    def question(self) -> Hashable:
        """What tasks have in common whose explanation is the same, as repeats with equal answers do."""
        return self.source, self.copies, self.without_ids, tuple(self.differences), tuple(self.token_ids.items())

    @property
    def sample(self) -> list[TokenDifference]:
        """The differences in random order, by the run's seed: a beginning of this list is a random sample."""
        return random.Random(self.config.seed).sample(self.differences, len(self.differences))  # noqa: S311 - no secret

    @property
    def sequences(self) -> list[Continuation]:
        """Beginnings of the reference's answers, with MIN_POSITIONS tokens together; fewer where there are no more.

        Answers that differ come first, each up to the token where they part.
        """
        positions = {difference.prompt_id: difference.position for difference in self.sample}
        min_length = max(_MIN_SEQUENCE, ceil(MIN_POSITIONS / len(self.token_ids)))
        sequences: list[Continuation] = []
        positions_left = MIN_POSITIONS
        for prompt_id in dict.fromkeys((*positions, *self.token_ids)):
            token_ids = self.token_ids[prompt_id][: max(min_length, positions.get(prompt_id, 0) + 1)]
            if token_ids and positions_left > 0:
                sequences.append(Continuation(prompt=self.prompts[prompt_id], token_ids=token_ids))
                positions_left -= len(token_ids)
        return sequences

    def explanation(
        self,
        explained: Sequence[ExplainedDifference] = (),
        bound: NoiseBound | None = None,
        *,
        measured_with: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> Explanation:
        """Return the explanation of this pair."""
        return Explanation(
            differences=len(self.differences),
            explained=tuple(explained),
            bound=bound,
            without_ids=self.without_ids,
            measured_with=measured_with,
            reason=reason,
        )


def measure_all(tasks: Sequence[Task], end: float, on_progress: OnProgress) -> dict[str, Explanation]:
    """Explain each task, until its share of the time that is left has passed. Each model is loaded once.

    Args:
        tasks: what to explain.
        end: of the time, on the monotonic clock; infinity for no end.
        on_progress: follows the work.

    Returns:
        An explanation by the label of the compared run; with a reason where the model cannot be loaded.
    """
    labels: dict[Hashable, list[str]] = {}
    for task in tasks:
        labels.setdefault(task.question, []).append(task.label)
    distinct = list({task.question: task for task in tasks}.values())
    measured = _measure_distinct(distinct, end, on_progress)
    return {label: measured[task.label] for task in distinct for label in labels[task.question]}


def _measure_distinct(tasks: Sequence[Task], end: float, on_progress: OnProgress) -> dict[str, Explanation]:
    explanations: dict[str, Explanation] = {}
    total, done = sum(len(task.differences) for task in tasks), count(1)
    for source in dict.fromkeys(task.source for task in tasks):
        group = [task for task in tasks if task.source == source]
        try:
            with build(group[0].config) as provider:
                for task in group:
                    share_s = (end - time.monotonic()) / (len(tasks) - len(explanations))
                    explanations[task.label] = _measure(
                        provider, task, time.monotonic() + share_s, lambda: on_progress(next(done), total)
                    )
        except RunnerError as error:
            unmeasured = [task for task in group if task.label not in explanations]
            explanations |= {task.label: task.explanation(reason=first_line(error)) for task in unmeasured}
    return explanations


def _measure(provider: Provider, task: Task, end: float, on_explained: Callable[[], None]) -> Explanation:
    if not isinstance(provider, GapProvider):
        return task.explanation(reason=no_gaps(provider.name))
    changes = [change for part in task.sequences for change in provider.gap_changes(part, task.copies)]
    bound = noise_bound(changes, task.copies)
    if bound.positions < MIN_POSITIONS:
        return task.explanation(
            reason=f"the answers have {bound.positions} tokens to measure the noise on, and {MIN_POSITIONS} are needed"
        )
    explained: list[ExplainedDifference] = []
    for difference in task.sample:
        explained.append(_explain(provider, task.prompts[difference.prompt_id], difference, bound))
        on_explained()
        if time.monotonic() > end:
            break
    return task.explanation(explained, bound, measured_with=provider.describe())


def _explain(
    provider: GapProvider, prompt: Prompt, difference: TokenDifference, bound: NoiseBound
) -> ExplainedDifference:
    tokens = (difference.reference_token, difference.run_token)
    texts = ["" if token is None else provider.token_text(token) for token in tokens]
    margin = None
    if difference.reference_token is not None and difference.run_token is not None:
        prefix = Continuation(prompt=prompt, token_ids=difference.common)
        margin = provider.gap(prefix, difference.reference_token, difference.run_token)
    return judge(difference, (texts[0], texts[1]), margin, bound)
