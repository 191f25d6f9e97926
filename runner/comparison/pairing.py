"""Which run is compared with which, what may be compared of the two, and what else differs between them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.comparison.load import Run, prompts_in_common

Kind = Literal["divergence", "outputs"]
"""`divergence`: the same model was asked the same; `outputs`: two models were."""

_REPEATED = ("seed", "repeat")
_NO_SETTING = ("name", "tracking.", "prompts.", "model.price", "seed", "repeat")
"""Keys that move neither text nor speed, or that are compared in another way."""
_ASKED = ("generation.",)
_MODEL = ("model.id", "model.revision")
_FACTS = (
    *(f"provider.{name}" for name in ("device", "gpu", "cpu_capability", "threads", "dtype", "attn_implementation")),
    *("provider.model_revision", "packages.torch", "packages.transformers", "git.commit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key on which two runs do not agree."""

    key: str
    reference: Any
    run: Any

    def __str__(self) -> str:
        return f"{self.key} {_said(self.run)} (reference: {_said(self.reference)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A run and its reference.

    Attributes:
        kind: what a comparison of their texts is called; None where their texts are not compared.
        reason: why they are not.
        asked: the generation keys, or the seed, on which they differ.
        settings: the other keys and facts on which they differ, but for the batch.
        common: ids of the prompts that both have; None where the prompt sets are the same.
    """

    run: Run
    reference: Run
    kind: Kind | None
    reason: str | None
    asked: tuple[Difference, ...]
    settings: tuple[Difference, ...]
    common: frozenset[str] | None

    @property
    def is_asked_otherwise(self) -> bool:
        """Whether their texts are not compared because of `asked`, and not for want of texts."""
        return self.kind is None and (self.common is None or bool(self.common))


def references(runs: Sequence[Run], named: Run | None = None) -> dict[str, Run]:
    """Return the reference of every run that has one, by the run's label.

    With a named one it is that for all. Else runs that differ in nothing but the batch (and the count of the repeat)
    are a group, and the one with the smallest batch is its reference: so the difference is the batch's. The first
    group's reference is that of the others' references, and of what would be alone: so the rest is seen too.
    """
    if named is not None:
        return {run.label: named for run in runs if run is not named}
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        if run.has_answers:
            groups.setdefault(_all_but_batch(run), []).append(run)
    heads = {shared: min(group, key=_rank) for shared, group in groups.items()}
    first = min(heads.values(), key=lambda head: not head.is_finished, default=None)
    chosen: dict[str, Run] = {}
    for run in runs:
        head = heads.get(_all_but_batch(run)) if run.has_answers else first
        reference = first if head is run else head
        if reference is not None and reference is not run and (head is not run or not are_repeats(run, reference)):
            chosen[run.label] = reference
    return chosen


def pair(run: Run, reference: Run) -> Pair:
    """Return what may be compared of two runs."""
    asked = _differences(run, reference, _is_asked(run, reference))
    common, reason = _common(run, reference)
    reason = reason or (_not_the_same_request(asked) if asked else None)
    same_model = all(run.settings.get(key) == reference.settings.get(key) for key in _MODEL)
    return Pair(
        run=run,
        reference=reference,
        kind=None if reason else "divergence" if same_model else "outputs",
        reason=reason,
        asked=asked,
        settings=_other_settings(run, reference),
        common=common,
    )


def missing_baseline(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the run with batch.size=1 that would be this reference's better, had it finished."""
    keys = (*_MODEL, *_ASKED)
    ones = [one for one in runs if one.settings.get("batch.size") == 1 and not one.is_finished]
    return next((one for one in ones if not _differences(one, run, keys) and not _other_settings(one, run)), None)


def are_repeats(first: Run, second: Run) -> bool:
    """Return whether two runs are the same but for the seed, or the count of the repeat."""
    return configuration(first) == configuration(second)


def configuration(run: Run) -> Hashable:
    """Return what repeats of a run have in common."""
    left_out = (*_REPEATED, "name", "tracking.")
    settings = {key: value for key, value in run.settings.items() if not key.startswith(left_out)}
    return _frozen(settings), _frozen(_known(run)) if settings else run.folder, run.prompts_sha256


def are_comparable(runs: Sequence[Run]) -> bool:
    """Return whether one run can be called faster than another: one model was asked the same of the same prompts."""
    return len({_request(run) for run in runs}) == 1


def swept_keys(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the settings that are not the same in all runs, those of the question first.

    A key that only some providers have tells nothing that the provider does not.
    """
    known = [run.settings for run in runs if run.settings]
    left_out = ("name", "tracking.", "model.price", *_REPEATED)
    every = dict.fromkeys(key for settings in known for key in settings)
    keys = [key for key in every if not key.startswith(left_out)]
    differing = [key for key in keys if len({_exactly(settings.get(key)) for settings in known}) > 1]
    everywhere = [
        key for key in differing if not key.startswith("provider.") or all(key in settings for settings in known)
    ]
    order = ("model.", "provider.", "batch.size", "batch.mode", "batch.", "generation.", "prompts.", "")
    return tuple(
        sorted(everywhere, key=lambda key: next(place for place, part in enumerate(order) if key.startswith(part)))
    )


def _all_but_batch(run: Run) -> Hashable:
    """Return what two runs must share for the batch to be the only cause of a difference."""
    left_out = (*_NO_SETTING, "batch.")
    settings = {key: value for key, value in run.settings.items() if not key.startswith(left_out)}
    seed = run.settings.get("seed") if run.is_sampled else None
    return _frozen(settings), _frozen(_known(run)), seed, run.prompts_sha256


def _request(run: Run) -> Hashable:
    """Return what two runs must share for their texts to be one model's answers to one request."""
    keys = [key for key in run.settings if key in _MODEL or key.startswith(_ASKED)]
    return _frozen({key: run.settings[key] for key in keys}), run.prompts_sha256


def _known(run: Run) -> Mapping[str, Any]:
    """Return the facts that repeats share: a commit in between makes no other configuration."""
    return {key: run.facts.get(key) for key in _FACTS if key != "git.commit"}


def _rank(run: Run) -> tuple[bool, float]:
    """Return what sorts a group's reference first: a finished run of the smallest batch."""
    size = run.settings.get("batch.size")
    return not run.is_finished, float(size) if isinstance(size, int) else float("inf")


def _common(run: Run, reference: Run) -> tuple[frozenset[str] | None, str | None]:
    """Return the prompts in common where they are not all, and why texts cannot be compared if there are none."""
    for one in (run, reference):
        if not one.has_answers:
            return frozenset(), f"{one.label} has no outcomes, or no prompts to match them by"
    if run.prompts_sha256 == reference.prompts_sha256:
        return None, None
    common = prompts_in_common(reference, run)
    return common, None if common else "the prompt sets have no prompt in common"


def _is_asked(run: Run, reference: Run) -> tuple[str, ...]:
    return ("generation.", "seed") if run.is_sampled or reference.is_sampled else ("generation.",)


def _not_the_same_request(asked: Sequence[Difference]) -> str:
    if [difference.key for difference in asked] == ["seed"]:
        return "sampled texts are compared with the same seed only"
    return "they were asked with other generation parameters"


def _differences(run: Run, reference: Run, prefixes: tuple[str, ...]) -> tuple[Difference, ...]:
    keys = dict.fromkeys((*reference.settings, *run.settings))
    return tuple(
        Difference(key=key, reference=reference.settings.get(key), run=run.settings.get(key))
        for key in keys
        if key.startswith(prefixes) and reference.settings.get(key) != run.settings.get(key)
    )


def _other_settings(run: Run, reference: Run) -> tuple[Difference, ...]:
    """Return settings and facts that differ, a key once: where there is a fact (bfloat16), not the setting (auto)."""
    if not run.settings or not reference.settings:
        return ()
    left_out = (*_NO_SETTING, *_ASKED, *_MODEL, "batch.")
    keys = [key for key in dict.fromkeys((*reference.settings, *run.settings)) if not key.startswith(left_out)]
    if run.settings.get("provider._target_") != reference.settings.get("provider._target_"):
        keys = ["provider._target_"]
    found = {key: (reference.settings.get(key), run.settings.get(key)) for key in keys}
    for key in _FACTS:
        if key in reference.facts and key in run.facts:
            found[key] = (reference.facts[key], run.facts[key])
    return tuple(
        Difference(key=key, reference=ours, run=theirs) for key, (ours, theirs) in found.items() if ours != theirs
    )


def _frozen(values: Mapping[str, Any]) -> Hashable:
    return tuple(sorted((key, _exactly(value)) for key, value in values.items()))


def _exactly(value: Any) -> str:
    """Return a value as it is compared: 600 and 600.0 are one number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value) if is_number else value)


def _said(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
