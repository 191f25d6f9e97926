"""Notes on the machine: whether it was fit to measure, said where it was not, each with its figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.comparison.load import Run
from runner.text import listed

_MIN_S = 1.0
"""The shortest run whose counters are exact enough."""
_MAX_OTHER_SHARE, _MAX_CLIENT_SHARE, _MAX_LOST_SHARE = 0.1, 0.7, 0.05
"""Largest shares without a note: of the CPUs (others), of a core (the client), of the time (steal, quota)."""
_MAX_FIRST_CALL, _MIN_FIRST_CALL_SHARE = 1.5, 0.01
"""The first call's time over its peers', and the share of a run's time from which the difference matters."""
_MAX_SWITCHES_PER_S = 100
"""Involuntary switches a second and CPU: a full time slice is some milliseconds, and two tasks then share a CPU."""
_MIN_SWAPPED_MB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """A condition under which a run's speed is not its own.

    Attributes:
        excess: by how much a run is beyond the bound, as a factor; 0 where the figure is not on record.
        figure: the figure with its unit.
        text: says what happened to the runs that are named behind it.
        remedy: what to do.
    """

    excess: Callable[[Run], float]
    figure: Callable[[Run], str]
    text: str
    remedy: str = ""


def machine_notes(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each condition that some run was measured under, and one where conditions were unlike."""
    measured = _measured(runs)
    return [*(text for condition in _CONDITIONS if (text := _sentence(condition, measured))), *_unlike(measured)]


def max_other_share(runs: Sequence[Run]) -> float | None:
    """Return the largest share of the CPUs that other processes took; None where it was small, or is not on record."""
    largest = max((run.metrics.get("other_cpu_share", 0.0) for run in _measured(runs)), default=0.0)
    return largest if largest > _MAX_OTHER_SHARE else None


def _measured(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if _seconds(run) >= _MIN_S]


def _seconds(run: Run) -> float:
    """Return the seconds that the counters are of: of a resumed run, those of its last process."""
    return _fact(run, "wall_s") or run.metrics.get("duration_s", 0.0)


def _sentence(condition: _Condition, runs: Sequence[Run]) -> str | None:
    excesses = {run.label: condition.excess(run) for run in runs}
    worst = sorted((run for run in runs if excesses[run.label] > 1), key=lambda run: -excesses[run.label])
    if not worst:
        return None
    named = listed([f"{run.label} ({condition.figure(run)})" for run in worst])
    return f"{condition.text}: {named}{condition.remedy}"


def _unlike(runs: Sequence[Run]) -> list[str]:
    shares = [share for run in runs if (share := run.metrics.get("other_cpu_share")) is not None]
    if not shares or max(shares) - min(shares) <= _MAX_OTHER_SHARE:
        return []
    return [
        f"The runs saw unlike conditions: other processes took {min(shares):.0%} of the CPUs during one run and "
        f"{max(shares):.0%} during another. Their speeds are not only their own: measure again on a quiet machine, or "
        "with repeats"
    ]


def _metric(name: str, bound: float) -> Callable[[Run], float]:
    return lambda run: run.metrics.get(name, 0.0) / bound


def _share(name: str) -> Callable[[Run], str]:
    return lambda run: f"{run.metrics[name]:.0%}"


def _fact(run: Run, name: str) -> float:
    """Return a figure of environment.json; 0 where the system does not keep it, or an older version did not."""
    value = run.facts.get(f"machine_load.{name}")
    return float(value) if isinstance(value, int | float) else 0.0


def _switches_per_s(run: Run) -> float:
    """Return the involuntary switches a second and usable CPU."""
    cpus = _fact(run, "usable_cpus")
    return _fact(run, "involuntary_switches") / _seconds(run) / cpus if cpus else 0.0


def _gpu_slowdown(run: Run) -> tuple[float, str]:
    """Return the seconds for which the GPU's clock was held down, and the reason that did it longest."""
    prefix = "machine_load.gpu."
    reasons = [name for name in run.facts if name.startswith(prefix) and name.endswith("_s")]
    seconds = {name.removeprefix(prefix).removesuffix("_s"): float(run.facts[name]) for name in reasons}
    return max(((value, reason) for reason, value in seconds.items()), default=(0.0, ""))


def _first_call(run: Run) -> float:
    """Return by how much the first call was too slow, where that matters for the whole run."""
    ratio = run.metrics.get("first_call_ratio", 0.0)
    lost_s = (ratio - 1) * run.metrics.get("latency_p50_s", 0.0)
    return ratio / _MAX_FIRST_CALL if lost_s > _MIN_FIRST_CALL_SHARE * run.metrics["duration_s"] else 0.0


_CONDITIONS = (
    _Condition(
        excess=_metric("other_cpu_share", _MAX_OTHER_SHARE),
        figure=_share("other_cpu_share"),
        text="Other processes took part of the CPUs while these runs were measured, so their speed may be too low",
    ),
    _Condition(
        excess=_metric("child_cpu_share", _MAX_OTHER_SHARE),
        figure=_share("child_cpu_share"),
        text="Processes that a run started itself, as the one that publishes to MLflow, took part of the CPUs while "
        "these runs were measured, so their speed may be too low",
        remedy=". Measure with more prompts, or with tracking=off",
    ),
    _Condition(
        excess=_metric("steal_share", _MAX_LOST_SHARE),
        figure=_share("steal_share"),
        text="The hypervisor gave part of the CPUs' time to other machines while these runs were measured (steal)",
    ),
    _Condition(
        excess=lambda run: _fact(run, "throttled_s") / _seconds(run) / _MAX_LOST_SHARE,
        figure=lambda run: f"{_fact(run, 'throttled_s'):.1f} s over all threads",
        text="The control group's CPU quota held these runs back",
        remedy=". Give the process more CPUs, or fewer threads",
    ),
    _Condition(
        excess=lambda run: 2 * _fact(run, "thermal_throttles"),
        figure=lambda run: f"{_fact(run, 'thermal_throttles'):.0f} times",
        text="CPU cores lowered their clock because of heat while these runs were measured",
    ),
    _Condition(
        excess=lambda run: _gpu_slowdown(run)[0] / _seconds(run) / _MAX_LOST_SHARE,
        figure=lambda run: "{:.1f} s, {}".format(*_gpu_slowdown(run)),
        text="The GPU's clock was held down while these runs were measured",
    ),
    _Condition(
        excess=lambda run: _fact(run, "swapped_mb") / _MIN_SWAPPED_MB,
        figure=lambda run: f"{_fact(run, 'swapped_mb'):,.0f} MiB",
        text="The machine swapped memory while these runs were measured",
    ),
    _Condition(
        excess=lambda run: _switches_per_s(run) / _MAX_SWITCHES_PER_S,
        figure=lambda run: f"{_switches_per_s(run):,.0f} times a second and CPU",
        text="Threads of these runs were taken off a CPU that they still wanted: more threads than free CPUs",
    ),
    _Condition(
        excess=_metric("client_cpu_share", _MAX_CLIENT_SHARE),
        figure=_share("client_cpu_share"),
        text="The thread that sends and receives was busy itself, so that times of these runs are partly the client's, "
        "and not the service's",
        remedy=". Send with fewer requests in flight",
    ),
    _Condition(
        excess=_first_call,
        figure=lambda run: f"{run.metrics['first_call_ratio']:.1f} x",
        text="The first call of these runs took longer than later calls of like size",
        remedy=": the warm-up was too short. Set batch.warmup to a higher number of calls",
    ),
)
