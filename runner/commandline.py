"""The Hydra entry, and its only owner: composes what the command line asks for and hands it to `app.run`, job by job.

What a command line can get wrong ends in one message and an exit code: 0 done, 1 failures, 2 a wrong request, 130
interrupted.
"""

import contextlib
import logging
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner import display, hydra_errors, runfiles
from runner.config import CONF_DIR, RunConfig, parse
from runner.credentials import has_password, has_user, is_variable_name
from runner.errors import ConfigError, Interrupted, RequestError, RunnerError

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)

_LABEL = ("provider", "model", "model.id", "batch", "batch.mode", "batch.size")
"""Overrides that a configuration's label already tells."""
_FILED = ("name", "experiment", "tracking")
"""What does not change a run: where it is filed."""
_SECRET = re.compile(
    r"^[+~]*(?P<key>[\w.@/:]*?(?<![a-z])(api_?key|key|token|secret|password|credentials?))=", re.IGNORECASE
)
_VARIABLE = re.compile(r"^[+~]*(?P<key>[\w.@/:]*_env)=(?P<value>.*)", re.DOTALL)
_ADDRESS = re.compile(r"^[+~]*(?P<key>provider\.\w+)=(?P<value>.*://.*)", re.DOTALL)
_STORE = re.compile(r"^[+~]*(?P<key>tracking\.uri)=(?P<value>.*)", re.DOTALL)


def main() -> None:
    """Run what the command line asks for, and exit."""
    heed_termination()
    with one_message():
        refuse_secrets(sys.argv[1:])
        codes: list[int] = []
        try:
            sys.argv[1:] = _spelled_out(sys.argv[1:])
            _compose(lambda cfg: codes.append(_job(cfg)))
        finally:
            interrupted = isinstance(sys.exception(), KeyboardInterrupt)
            if SweepWatch.directory is not None:
                codes = _finish_sweep(SweepWatch.directory, codes, interrupted=interrupted)
        sys.exit(max(codes, default=0))


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `repeat=3` of a sweep as what Hydra sweeps over: repeat=1,2,3.

    It is put first, for Hydra varies the first key slowest: what else the machine does then hits all jobs alike.
    """
    repeats = [found for argument in arguments if (found := re.fullmatch(r"repeat=(\d+)", argument))]
    if not repeats or not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    rest = [argument for argument in arguments if not re.fullmatch(r"repeat=\d+", argument)]
    first = next((place for place, argument in enumerate(rest) if "=" in argument), len(rest))
    return [*rest[:first], f"repeat={','.join(map(str, range(1, int(repeats[-1][1]) + 1)))}", *rest[first:]]


def heed_termination() -> None:
    """Take a request to end (docker stop, a scheduler) as Ctrl-C: the record is closed before the process ends.

    So is a terminal that goes (a dropped connection), unless that is ignored, as by nohup.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


class SweepWatch(Callback):
    """Tells this process where Hydra puts a sweep, for the jobs may run in others."""

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
        with runfiles.failure_recorded(directory):
            code = _run(cfg, directory)
    except RunnerError as error:
        log.error("%s", error)  # noqa: TRY400 - a RunnerError is one message
        return error.exit_code
    except OmegaConfBaseException as error:
        log.error("%s", hydra_errors.explain(error))  # noqa: TRY400
        return RequestError.exit_code
    except Exception:
        log.exception("a defect, of the runner or of a library that it uses: see the traceback in runner.log")
        return RunnerError.exit_code
    if code == Interrupted.exit_code:  # the job has closed its record; the sweep ends with it
        raise KeyboardInterrupt
    return code


def _run(cfg: DictConfig, directory: Path) -> int:
    from runner import app  # here, so that --help and a wrong key answer at once

    job = HydraConfig.get()
    in_sweep = job.mode == RunMode.MULTIRUN
    config = from_hydra(cfg)
    summary = app.run(
        config,
        directory,
        asked=_asked(job.overrides.task),
        sweep_dir=Path(job.sweep.dir).absolute() if in_sweep else None,
        tags={"hydra.overrides": " ".join(job.overrides.task)}
        | ({"hydra.job.num": str(job.job.num)} if in_sweep else {}),
    )
    return summary.exit_code


def _asked(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that make a run what it is and do not stand in its label: by them a sweep's jobs differ."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    return [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in _LABEL and key.partition(".")[0] not in _FILED
    ]


def compose_config(arguments: Sequence[str], *, config_dir: str | None = None) -> RunConfig:
    """Compose and check one configuration without Hydra's folders and logs, for commands that run nothing."""
    refuse_secrets(arguments)
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir!r}: there is no such folder")
    own = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="runner"):
        return from_hydra(hydra.compose("config", [*arguments, *own]))


def from_hydra(cfg: DictConfig) -> RunConfig:
    """Check a composed configuration; from here on there is no DictConfig."""
    return parse(cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))


def _finish_sweep(directory: Path, codes: Sequence[int], *, interrupted: bool) -> list[int]:
    """Compare the jobs, end the parent run, and return an exit code per job."""
    from runner import sweep

    ends = sweep.summaries(directory)
    if ends and any(ends):
        comparison, written = sweep.compare(directory)
        sweep.tell(directory, comparison, written, interrupted=interrupted)
    if not ends or (codes and all(code == RequestError.exit_code for code in codes)):
        return list(codes)
    return [end.exit_code if end else RunnerError.exit_code for end in ends]


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Turn what is wrong with a request into one message and its exit code; anything else keeps its traceback."""
    try:
        yield
    except RunnerError as error:
        display.say_error(str(error))
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if hydra_errors.are_wanted_whole():
            raise
        display.say_error(hydra_errors.explain(error))
        sys.exit(RequestError.exit_code)
    except KeyboardInterrupt:
        display.say_error("interrupted")
        sys.exit(130)


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse a secret among the overrides, before Hydra writes the overrides to disk.

    Raises:
        ConfigError: an override gives a key, token, secret or password, has one where the name of the variable that
            holds it belongs, or within an address. Its value is not repeated.
    """
    for argument in arguments:
        if found := _SECRET.match(argument):
            raise ConfigError(
                f"{found['key']}=... on the command line would be written to disk: put the secret into an environment "
                "variable; where a provider takes one, KEY_env holds the variable's name"
            )
        if (found := _VARIABLE.match(argument)) and not all(map(_names_a_variable, found["value"].split(","))):
            raise ConfigError(
                f"{found['key']}=... is not the name of an environment variable: give the name of the one that holds "
                "the key, not the key"
            )
        for address, has_secret in ((_ADDRESS, has_user), (_STORE, has_password)):
            if (found := address.match(argument)) and has_secret(found["value"]):
                raise ConfigError(
                    f"{found['key']}=... has a user name or password in it, and would be written to disk: give the "
                    "address without"
                )


def _names_a_variable(value: str) -> bool:
    bare = value.strip("'\" ")
    return bare in ("", "null") or is_variable_name(bare)
