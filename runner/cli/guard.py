"""Refuses a wrong request before Hydra writes anything: Hydra writes what it composed before it calls the job.

Hydra's callbacks at a run's start are the only place between composing and writing. Hydra turns an Exception of a
callback into a warning, so that a refusal travels as a BaseException.
"""

import contextlib
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from hydra.core.utils import env_override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.cli import hydra_errors, terminal
from runner.cli.compose import from_hydra
from runner.config.schema import PromptsConfig, RunConfig
from runner.config.secrets import refuse_secrets_in
from runner.config.waits import Waits
from runner.errors import ConfigError, RunInUseError, UsageError
from runner.prompts import PromptSet
from runner.record.folder import HYDRA, SWEEP, RunFolder

_MULTIRUN = "multirun.yaml"
"""What Hydra writes first of a sweep."""


class Refusal(BaseException):
    """Carries the error of a wrong request through Hydra's callbacks."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class RequestGuard(Callback):
    """Checks a request at its start, and keeps what the job of this process needs of it.

    Attributes:
        sweep_dir: the folder of the sweep; None for a run, and in a process that a launcher started.
        prompts: the prompt set of the run; None in a sweep, whose jobs read their own.
        has_refused_jobs: whether jobs of the sweep were left out, because their configuration is wrong.
    """

    sweep_dir: Path | None = None
    prompts: PromptSet | None = None
    has_refused_jobs = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a run whose configuration, prompts, key, store or folder is wrong."""
        with _refusals():
            _refuse_composed_secrets(config)
            _refuse_used_folder(Path(config.hydra.run.dir))
            RunFolder(Path(config.hydra.run.dir)).refuse_what_is_no_file()
            with env_override(config.hydra.job.env_set):
                RequestGuard.prompts = _check(from_hydra(_without_hydra(config)))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a sweep with a secret or a used folder, and keep its folder: other processes may run the jobs."""
        with _refusals():
            _refuse_composed_secrets(config)
            _refuse_used_sweep_folder(Path(config.hydra.sweep.dir))
            RequestGuard.sweep_dir = Path(config.hydra.sweep.dir).absolute()


def refuse_wrong_jobs(jobs: Mapping[str, DictConfig]) -> Set[str]:
    """Check the jobs of a sweep before anything is made, and print one message for each that is wrong.

    Args:
        jobs: composed configurations, by the overrides of each.

    Returns the overrides of the wrong ones, which are not to run.

    Raises:
        ConfigError: every job is wrong.
    """
    read: list[tuple[PromptsConfig, int]] = []
    errors = {name: error for name, job in jobs.items() if (error := _error_of(job, read))}
    if errors and len(errors) == len(jobs):
        raise ConfigError("\n".join(dict.fromkeys(map(str, errors.values()))))
    for name, error in errors.items():
        terminal.print_error(f"the job {name} is left out: {error}")
    RequestGuard.has_refused_jobs = bool(errors)
    return errors.keys()


def _error_of(job: DictConfig, read: list[tuple[PromptsConfig, int]]) -> UsageError | None:
    """Return what is wrong with a job; prompts that were read for an earlier job are not read again."""
    from runner.run.prepare import check

    try:
        with env_override(job.hydra.job.env_set):
            config = from_hydra(_without_hydra(job))
            count = next((count for prompts, count in read if prompts == config.prompts), None)
            if count is not None:
                check(config, count, Waits())
            else:
                read.append((config.prompts, len(_check(config).prompts)))
    except OmegaConfBaseException as error:
        return ConfigError(hydra_errors.explain(error))
    except UsageError as error:
        return error
    return None


@contextlib.contextmanager
def raise_refusals() -> Iterator[None]:
    """Raise the error that a refusal carries."""
    try:
        yield
    except Refusal as refusal:
        raise refusal.error from None


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Refusal(error) from error


def _check(config: RunConfig) -> PromptSet:
    from runner import app  # here, so that --help and a wrong key answer at once

    return app.check(config)


def _refuse_composed_secrets(config: DictConfig) -> None:
    refuse_secrets_in(OmegaConf.to_container(config, resolve=False))


def _refuse_used_folder(folder: Path) -> None:
    if (folder / HYDRA).exists() or RunFolder(folder).is_used:
        raise RunInUseError(
            f"{folder} exists already and has the record of a run: a folder is for one run: choose another "
            "hydra.run.dir"
        )


def _refuse_used_sweep_folder(folder: Path) -> None:
    if (folder / _MULTIRUN).exists() or (folder / SWEEP).exists():
        raise RunInUseError(
            f"{folder} exists already and has the record of a sweep: a folder is for one sweep: choose another "
            "hydra.sweep.dir"
        )


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
