"""What held a GPU's clock down while a run was measured: counters that nvidia-smi has, read twice."""

import os
import subprocess
from collections.abc import Mapping

_TIMEOUT_S = 10
_REASONS = ("sw_power_cap", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Reasons for a lower clock that are counted in microseconds since the driver was loaded; not by old drivers."""
_STATE = {"clocks.sm": "clock_mhz", "clocks.max.sm": "max_clock_mhz", "temperature.gpu": "temperature_c"}
"""Fields of the moment, with their names in the record."""


def read_gpu(device: str) -> Mapping[str, float] | None:
    """Return the figures of a CUDA device, by their names in the record; None where nvidia-smi does not have them.

    Args:
        device: as torch names it: `cuda` or `cuda:1`, among CUDA_VISIBLE_DEVICES.
    """
    if not device.startswith("cuda"):
        return None
    fields = [*_STATE, *(f"clocks_event_reasons_counters.{reason}" for reason in _REASONS)]
    command = ["nvidia-smi", f"--id={_gpu_id(device)}", f"--query-gpu={','.join(fields)}"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
        values = [float(value) for value in done.stdout.split(",")]
    except (OSError, subprocess.SubprocessError, ValueError):  # no such program, an older driver, or a virtual GPU
        return None
    state = dict(zip(_STATE.values(), values, strict=False))
    return state | {f"{reason}_s": us / 1e6 for reason, us in zip(_REASONS, values[len(_STATE) :], strict=True)}


def gpu_load(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return clocks and temperature at the end, and for how long each reason held the clock down; {} if not known."""
    if before is None or after is None:
        return {}
    return {name: value - before[name] if name.endswith("_s") else value for name, value in after.items()}


def _gpu_id(device: str) -> str:
    """Return the id that nvidia-smi knows a device by."""
    index = int(device.partition(":")[2] or 0)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[index].strip() if index < len(visible) else str(index)
