"""Which run is compared with which, what may be compared of the two, and what else differs between them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from runner.comparison.divergence import Divergence
from runner.comparison.explain import Explanation
from runner.comparison.load import Run, common_prompt_ids
from runner.comparison.noise_floor import NoiseFloor
from runner.comparison.served import Served
from runner.text import shorten

Kind = Literal["divergence", "outputs"]
"""`divergence`: texts of one model for the same request; `outputs`: texts of two models."""

_REPEATED = ("seed", "repeat")
_NO_SETTING = ("name", "tracking.", "prompts.", "model.price", "seed", "repeat")
"""Keys without an effect on text and speed, and keys that are compared in another way."""
_REQUEST = ("generation.",)
_MODEL = ("model.id", "model.revision")
_FACTS = (
    *(f"provider.{name}" for name in ("device", "gpu", "cpu_capability", "threads", "dtype", "attn_implementation")),
    *(f"provider.{name}" for name in ("kv_cache_dtype", "dynamic_quantization_group_size")),
    *("cpu.model", "os", "settings.OMP_NUM_THREADS", "settings.MKL_NUM_THREADS"),
    *("provider.model_revision", "packages.openvino-genai", "packages.torch", "packages.transformers", "git.commit"),
)
SYSTEMS = "provider.system_fingerprint"
"""The fact that says which systems of a service answered."""
_OTHER_SEED = "sampled texts are compared with the same seed only"
_OTHER_PARAMETERS = "they were generated with other generation parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key with different values in two runs."""

    key: str
    reference: object
    run: object

    def __str__(self) -> str:
        run, reference = ("null" if value is None else shorten(str(value), 60) for value in (self.run, self.reference))
        return f"{self.key} {run} (reference: {reference})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A run and its reference.

    Attributes:
        kind: what a comparison of their texts is called; None where the texts are not compared.
        reason: why the texts are not compared.
        request_differences: the generation keys, and of sampled runs the seed, with different values.
        setting_differences: the other keys and facts with different values, those of the batch left out.
        common_prompt_ids: the prompts that both runs have; None where the prompt sets are the same.
    """

    run: Run
    reference: Run
    kind: Kind | None
    reason: str | None
    request_differences: tuple[Difference, ...]
    setting_differences: tuple[Difference, ...]
    common_prompt_ids: frozenset[str] | None

    @property
    def has_other_request(self) -> bool:
        """Whether the texts are not compared because of `request_differences`, and no text or prompt is missing."""
        return self.kind is None and (self.common_prompt_ids is None or bool(self.common_prompt_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPair:
    """A pair of runs and how their texts differ.

    Attributes:
        pair: the two runs.
        divergence: None where the texts are not compared.
        noise_floor: how far the reference varies by itself; None where it was not repeated.
        explanation: of the differences, by their margins; None where none was requested.
    """

    pair: Pair
    divergence: Divergence | None
    noise_floor: NoiseFloor | None = None
    explanation: Explanation | None = None

    @property
    def exact_match_ratio(self) -> float | None:
        """The share of texts equal to the reference's; None for two models, and where nothing was compared."""
        return self.divergence.exact_match_ratio if self.divergence and self.pair.kind == "divergence" else None


def references(runs: Sequence[Run], named: Run | None = None) -> dict[str, Run]:
    """Return the reference of every run that has one, by the run's label.

    A named reference serves all runs. Without one, the runs that differ in the batch (and the number of the repeat)
    only form a group, and the run with the smallest batch is the reference of its group. The reference of the first
    group is that of the other groups' references, and of runs without texts.
    """
    if named is not None:
        return {run.label: named for run in runs if run is not named}
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        if run.has_texts:
            groups.setdefault(_all_but_batch(run), []).append(run)
    heads = {shared: min(group, key=_reference_rank) for shared, group in groups.items()}
    first = min(heads.values(), key=lambda head: not head.is_finished, default=None)
    chosen: dict[str, Run] = {}
    for run in runs:
        head = heads.get(_all_but_batch(run)) if run.has_texts else first
        reference = first if head is run else head
        if reference is None or reference is run:
            continue
        if head is not run or configuration(run) != configuration(reference):  # repeats are not compared
            chosen[run.label] = reference
    return chosen


def pair(run: Run, reference: Run) -> Pair:
    """Return what can be compared of two runs."""
    is_sampled = run.is_sampled or reference.is_sampled
    requests = _differences(run, reference, (*_REQUEST, "seed") if is_sampled else _REQUEST)
    common, reason = _common_prompts(run, reference)
    if requests and not reason:
        is_seed = [difference.key for difference in requests] == ["seed"]
        reason = _OTHER_SEED if is_seed else _OTHER_PARAMETERS
    same_model = all(run.settings.get(key) == reference.settings.get(key) for key in _MODEL)
    return Pair(
        run=run,
        reference=reference,
        kind=None if reason else "divergence" if same_model else "outputs",
        reason=reason,
        request_differences=requests,
        setting_differences=_other_settings(run, reference),
        common_prompt_ids=common,
    )


def with_systems(pair: Pair, served: Mapping[str, Served]) -> Pair:
    """Return the pair with the systems that answered, as the outcomes name them, among what differs.

    The environment has the systems of a run's last process only.
    """
    names = [", ".join(served[run.label].system_fingerprints) for run in (pair.reference, pair.run)]
    if not all(names):
        return pair
    others = tuple(difference for difference in pair.setting_differences if difference.key != SYSTEMS)
    systems = [Difference(key=SYSTEMS, reference=names[0], run=names[1])] if names[0] != names[1] else []
    return replace(pair, setting_differences=(*others, *systems))


def missing_baseline(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the run with batch.size=1 that would be the reference instead of `run` if it had finished."""
    keys = (*_MODEL, *_REQUEST)
    unfinished = [other for other in runs if other.settings.get("batch.size") == 1 and not other.is_finished]
    alike = (other for other in unfinished if not _differences(other, run, keys) and not _other_settings(other, run))
    return next(alike, None)


def configuration(run: Run) -> Hashable:
    """Return what the repeats of a run have in common."""
    excluded = (*_REPEATED, "name", "tracking.")
    settings = {key: value for key, value in run.settings.items() if not key.startswith(excluded)}
    facts = (_shared_facts(run), run.facts.get(SYSTEMS)) if settings else run.folder.path
    return _frozen(settings), facts, run.prompts_sha256


def request_of(run: Run) -> Hashable:
    """Return what runs must share for their speeds to be ranked: model, generation parameters and prompts.

    A key that an older run lacks is null. A run without a configuration or prompts shares its request with none.
    """
    if not run.settings or run.prompts_sha256 is None:
        return run.folder.path
    asked = {key: value for key, value in run.settings.items() if key in _MODEL or key.startswith(_REQUEST)}
    return _frozen({key: value for key, value in asked.items() if value is not None}), run.prompts_sha256


def swept_keys(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the settings with more than one value among the runs: model, provider, batch, then the others.

    A provider's key that some runs lack is left out: the provider itself is named.
    """
    settings_of_runs = [run.settings for run in runs if run.settings]
    excluded = ("name", "tracking.", "model.price", *_REPEATED)
    keys = dict.fromkeys(key for settings in settings_of_runs for key in settings if not key.startswith(excluded))
    swept = [
        key
        for key in keys
        if len({_normalized(settings.get(key)) for settings in settings_of_runs}) > 1
        and (not key.startswith("provider.") or all(key in settings for settings in settings_of_runs))
    ]
    order = ("model.", "provider.", "batch.size", "batch.mode", "batch.", "generation.", "prompts.", "")
    return tuple(sorted(swept, key=lambda key: [key.startswith(prefix) for prefix in order].index(True)))


def _all_but_batch(run: Run) -> Hashable:
    """Return what two runs must share for the batch to be the only cause of a difference."""
    excluded = (*_NO_SETTING, "batch.")
    settings = {key: value for key, value in run.settings.items() if not key.startswith(excluded)}
    seed = run.settings.get("seed") if run.is_sampled else None
    return _frozen(settings), _shared_facts(run), seed, run.prompts_sha256


def _shared_facts(run: Run) -> Hashable:
    """Return the facts that repeats share: another commit does not make another configuration."""
    return _frozen({key: run.facts.get(key) for key in _FACTS if key != "git.commit"})


def _reference_rank(run: Run) -> tuple[bool, float]:
    """Return the sort key of a group: finished runs first, the smallest batch first."""
    size = run.settings.get("batch.size")
    return not run.is_finished, float(size) if isinstance(size, int) else float("inf")


def _common_prompts(run: Run, reference: Run) -> tuple[frozenset[str] | None, str | None]:
    """Return the ids of the common prompts (None: all), and why no text can be compared (None: texts can be)."""
    for member in (run, reference):
        if not member.has_texts:
            return frozenset(), f"{member.label} has no outcomes, or no prompts to match them by"
    if run.prompts_sha256 == reference.prompts_sha256:
        return None, None
    common = common_prompt_ids(reference, run)
    return common, None if common else "the prompt sets have no prompt in common"


def _differences(run: Run, reference: Run, prefixes: tuple[str, ...]) -> tuple[Difference, ...]:
    keys = dict.fromkeys((*reference.settings, *run.settings))
    return tuple(
        Difference(key=key, reference=reference.settings.get(key), run=run.settings.get(key))
        for key in keys
        if key.startswith(prefixes) and reference.settings.get(key) != run.settings.get(key)
    )


def _other_settings(run: Run, reference: Run) -> tuple[Difference, ...]:
    """Return the other settings and facts that differ; a fact (bfloat16) replaces the setting of its key (auto)."""
    if not run.settings or not reference.settings:
        return ()
    excluded = (*_NO_SETTING, *_REQUEST, *_MODEL, "batch.")
    keys = [key for key in dict.fromkeys((*reference.settings, *run.settings)) if not key.startswith(excluded)]
    if run.settings.get("provider._target_") != reference.settings.get("provider._target_"):
        keys = ["provider._target_"]
    values = {key: (reference.settings.get(key), run.settings.get(key)) for key in keys}
    facts = [key for key in (*_FACTS, SYSTEMS) if key in reference.facts and key in run.facts]
    values |= {key: (reference.facts[key], run.facts[key]) for key in facts}
    return tuple(
        Difference(key=key, reference=expected, run=actual)
        for key, (expected, actual) in values.items()
        if expected != actual
    )


def _frozen(values: Mapping[str, Any]) -> Hashable:
    return tuple(sorted((key, _normalized(value)) for key, value in values.items()))


def _normalized(value: object) -> str:
    """Return a text that is equal for equal values: 600 and 600.0 are one number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return repr(value)
