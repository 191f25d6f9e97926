"""`python -m runner`: the Hydra entry. Composes what the command line asks for and hands it to `app.run`, job by job.

Exit codes: 0 done, 1 failures, 2 a wrong request, 130 interrupted. Whatever is wrong ends in one message.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.cli import hydra_errors
from runner.cli.common import handle_termination_signals, report_errors
from runner.cli.compose import distinguishing, expand_repeat, from_hydra
from runner.config.schema import CONF_DIR
from runner.config.secrets import refuse_secrets
from runner.errors import ConfigError, Interrupted, RunnerError
from runner.record.folder import RunFolder

log = logging.getLogger(__name__)


def main() -> None:
    """Run what the command line asks for, and exit."""
    handle_termination_signals()
    with report_errors():
        refuse_secrets(sys.argv[1:])
        codes: list[int] = []
        try:
            sys.argv[1:] = expand_repeat(sys.argv[1:])
            _compose(lambda cfg: codes.append(_job(cfg)))
        finally:
            interrupted = isinstance(sys.exception(), KeyboardInterrupt)
            if SweepWatch.directory is not None:
                codes = _finish_sweep(SweepWatch.directory, interrupted=interrupted)
        sys.exit(max(codes, default=0))


class SweepWatch(Callback):
    """Notes where Hydra puts a sweep, for its jobs may run in other processes."""

    directory: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder."""
        SweepWatch.directory = Path(config.hydra.sweep.dir).absolute()


def _compose(job: Callable[[DictConfig], None]) -> None:
    with hydra_errors.raised():
        try:
            hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(job)()
        except HydraException:  # some are OSErrors too
            raise
        except OSError as error:  # jobs keep theirs: it is Hydra's, making the run's folder
            raise ConfigError(
                f"the run's folder {error.filename} cannot be made: {error.strerror}: set hydra.run.dir (of a sweep: "
                "hydra.sweep.dir) to a place that can be written"
            ) from None
        except ValueError as error:  # Hydra's answer to options that it cannot take; jobs raise none
            raise ConfigError(f"the command line cannot be read: {hydra_errors.explain(error)}") from error


def _job(cfg: DictConfig) -> int:
    """Run one of Hydra's jobs and return its exit code. Its errors stay in it: the next job of a sweep goes on."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        with RunFolder(directory).recording_failure():
            code = _run(cfg, directory)
    except RunnerError as error:
        log.error("%s", error)  # noqa: TRY400 - a RunnerError is one message
        return error.exit_code
    except Exception:
        log.exception("a defect, of the runner or of a library that it uses: see the traceback in runner.log")
        return RunnerError.exit_code
    if code == Interrupted.exit_code:  # the job has closed its record; the sweep ends with it
        raise KeyboardInterrupt
    return code


def _run(cfg: DictConfig, directory: Path) -> int:
    from runner import app  # here, so that --help and a wrong key answer at once
    from runner.cli.report import TerminalObserver, print_mlflow

    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    overrides = hydra_config.overrides.task
    try:
        config = from_hydra(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(hydra_errors.explain(error)) from None
    result = app.run(
        config,
        directory,
        overrides=distinguishing(overrides),
        sweep_dir=Path(hydra_config.sweep.dir).absolute() if in_sweep else None,
        tags={"hydra.overrides": " ".join(overrides)}
        | ({"hydra.job.num": str(hydra_config.job.num)} if in_sweep else {}),
        observer=TerminalObserver(),
    )
    print_mlflow(result)
    return result.exit_code


def _finish_sweep(directory: Path, *, interrupted: bool) -> list[int]:
    from runner.cli.sweep import finish  # here, so that --help answers at once

    return finish(directory, interrupted=interrupted)
