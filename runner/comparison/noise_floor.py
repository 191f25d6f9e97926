"""How far the texts of a reference vary by themselves: its own repeats against it, beside every run's match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from runner.comparison.inference import Interval, holm, mcnemar_p_value, share_interval
from runner.comparison.load import Run
from runner.config.parse import parse
from runner.errors import RunnerError
from runner.providers.factory import provider_class

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """The match of a run, and of a repeat of its reference, with the reference, over the prompts that all three have.

    A prompt matches where all of its compared answers are equal to the letter.

    Attributes:
        repeat: the label of the reference's repeat: that of the run's own block where there is one.
        prompts: how many prompts are compared.
        run_matches, repeat_matches: how many match.
        p_value: of the hypothesis that both match as often (exact McNemar).
        corrected_p: the p-value, corrected for the number of runs (Holm).
    """

    repeat: str
    prompts: int
    run_matches: int
    repeat_matches: int
    p_value: float
    corrected_p: float

    @property
    def interval(self) -> Interval:
        """The Wilson interval of the repeat's share."""
        return share_interval(self.repeat_matches, self.prompts)

    @property
    def is_below(self) -> bool:
        """Whether the run matches less often than the reference itself does, beyond what varies by itself."""
        return self.corrected_p < SIGNIFICANCE and self.run_matches < self.repeat_matches


def noise_floor(
    run: Run, run_matches: Mapping[str, bool], repeats: Sequence[tuple[Run, Mapping[str, bool]]]
) -> NoiseFloor | None:
    """Return the noise floor of a run; None where the reference has no repeat with a prompt in common.

    Args:
        run: the run, which is no repeat of the reference.
        run_matches: whether the run matches the reference, by prompt id.
        repeats: of the reference, each with whether it matches the reference, by prompt id.
    """
    if not repeats:
        return None
    block = run.settings.get("repeat")
    repeat, matches = next((other for other in repeats if other[0].settings.get("repeat") == block), repeats[0])
    both = [(run_matches[prompt_id], matches[prompt_id]) for prompt_id in run_matches if prompt_id in matches]
    if not both:
        return None
    p_value = mcnemar_p_value(both.count((True, False)), both.count((False, True)))
    return NoiseFloor(
        repeat=repeat.label,
        prompts=len(both),
        run_matches=sum(is_match for is_match, _ in both),
        repeat_matches=sum(is_match for _, is_match in both),
        p_value=p_value,
        corrected_p=p_value,
    )


def corrected(floors: Sequence[NoiseFloor | None]) -> list[NoiseFloor | None]:
    """Return the noise floors with p-values that hold for all of them together."""
    p_values = iter(holm([floor.p_value for floor in floors if floor]))
    return [floor and replace(floor, corrected_p=next(p_values)) for floor in floors]


def cause_of_variation(run: Run) -> str | None:
    """Return why the texts of a run can vary by themselves; None where they cannot, or where that is not known."""
    if run.is_sampled:
        return "its texts are sampled"
    device = str(run.facts.get("provider.device") or "cpu")
    if device != "cpu":
        return f"it ran on a GPU ({device})"
    try:
        is_local = provider_class(parse(run.folder.read_config())).is_local
    except (RunnerError, ValidationError):
        return None
    return None if is_local else "a service generated its texts"
