"""Owns `python -m runner`: Hydra composes each job's configuration, and `app.run` runs the job.

Exit codes: 0 done, 1 failures, 2 a wrong request, 130 interrupted. Every error of a request is one message.
"""

import logging
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.cli import hydra_errors, terminal
from runner.cli.common import handle_termination_signals, print_resume_command, report_errors
from runner.cli.compose import distinguishing, expand_repeat, from_hydra
from runner.cli.guard import RequestGuard, raise_refusals
from runner.cli.trust import refuse_code
from runner.config.schema import CONF_DIR
from runner.config.secrets import refuse_secrets
from runner.errors import ConfigError, Interrupted, RunnerError
from runner.record.folder import RunFolder
from runner.record.lock import sweep_lock
from runner.run.signals import handle_signals
from runner.text import first_line

log = logging.getLogger(__name__)


def main() -> None:
    """Run the jobs of the command line, and exit with the run's or the sweep's code."""
    handle_termination_signals()
    with report_errors():
        refuse_secrets(sys.argv[1:])
        sys.argv[1:] = expand_repeat(refuse_code(sys.argv[1:]))
        codes: list[int] = []
        try:
            _run_hydra(lambda cfg: codes.append(_run_job(cfg)))
        finally:
            if (sweep_dir := RequestGuard.sweep_dir) is not None and sweep_dir.is_dir():
                with handle_signals() as signals, sweep_lock(sweep_dir):  # before the import, which takes a second
                    from runner.cli.sweep import finish  # here, so that --help answers at once

                    interrupted = isinstance(sys.exception(), KeyboardInterrupt)
                    refused = RequestGuard.has_refused_jobs
                    codes = [finish(sweep_dir, codes, signals, interrupted=interrupted, has_refused_jobs=refused)]
        sys.exit(max(codes, default=0))


def _run_hydra(job: Callable[[DictConfig], None]) -> None:
    with hydra_errors.raise_errors(), raise_refusals():
        try:
            hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(job)()
            sys.stdout.flush()
        except HydraException:  # some are OSErrors too
            raise
        except BrokenPipeError:  # whoever reads what --help or --cfg prints has read enough: `| head`
            terminal.discard(sys.stdout)
        except BrokenExecutor as error:
            raise RunnerError(
                f"a process that ran jobs of the sweep was killed ({first_line(error)}): jobs that ran then have no "
                "summary, and later jobs did not start; python -m runner.resume FOLDER finishes a job that began"
            ) from None
        except OSError as error:  # from Hydra, creating the run's folder: jobs catch their own
            if error.filename is None:  # or from Hydra, printing --help or --cfg; or from a launcher
                terminal.discard(sys.stdout)
                raise RunnerError(
                    f"standard output cannot be written, or a launcher's process cannot start: {error.strerror}: "
                    "make room, or write to another place"
                ) from None
            raise ConfigError(
                f"the run's folder {error.filename} cannot be created: {error.strerror}: set hydra.run.dir (of a "
                "sweep: hydra.sweep.dir) to a folder that can be written"
            ) from None
        except ValueError as error:  # from Hydra, for options that exclude each other: jobs catch their own
            raise ConfigError(f"the command line cannot be read: {hydra_errors.explain(error)}") from error


def _run_job(cfg: DictConfig) -> int:
    """Run one of Hydra's jobs and return its exit code. Errors end the job; the next job of a sweep runs.

    Raises:
        KeyboardInterrupt: the job was interrupted and has closed its record; the sweep ends.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        with RunFolder(directory).recording_failure():
            code = _run(cfg, directory)
    except KeyboardInterrupt:
        print_resume_command(RunFolder(directory))
        raise
    except RunnerError as error:
        log.error("%s", error)  # noqa: TRY400 - a RunnerError is one message
        if isinstance(error, Interrupted):
            raise KeyboardInterrupt from None
        return error.exit_code
    except Exception:
        log.exception("a defect, of the runner or of a library that it uses: see the traceback in runner.log")
        return RunnerError.exit_code
    if code == Interrupted.exit_code:
        raise KeyboardInterrupt
    return code


def _run(cfg: DictConfig, directory: Path) -> int:
    from runner import app  # here, so that --help and a wrong key answer at once
    from runner.cli.observer import TerminalObserver

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
        prompts=RequestGuard.prompts,
        observer=TerminalObserver(),
        leave_jobs=in_sweep,
    )
    return Interrupted.exit_code if in_sweep and result.is_interrupted else result.exit_code
