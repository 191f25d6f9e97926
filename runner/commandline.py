"""The Hydra entry, and its only owner: composes what the command line asks for and hands it to `app.run`, job by job.

What a command line can get wrong ends in one message and an exit code: 0 done, 1 failures, 2 a wrong request, 130
interrupted.
"""

import argparse
import contextlib
import logging
import logging.config
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from runner import display, runfiles
from runner.config import CONF_DIR, RunConfig, known_keys, parse, unknown_key
from runner.errors import ConfigError, Interrupted, RecordError, RequestError, RunnerError, TrackingError

if TYPE_CHECKING:
    from runner.runfiles import Tracked

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)

_FULL_ERROR = "HYDRA_FULL_ERROR"
_LABEL = ("provider", "model", "model.id", "batch", "batch.mode", "batch.size")
"""Overrides that a configuration's label already tells."""
_FILED = ("name", "experiment", "tracking")
"""What does not change a run: where it is filed."""
_SECRET = re.compile(
    r"^[+~]*(?P<key>[\w.@/:]*?(?<![a-z])(api_?key|key|token|secret|password|credentials?))=", re.IGNORECASE
)


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
    """Take a request to end (docker stop, a scheduler) as Ctrl-C: the record is closed before the process ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def find_folder(run: str, tracking_uri: str | None) -> Path:
    """Return the folder that RUN or SWEEP names: itself, or an MLflow run id.

    Raises:
        RequestError: there is no such run.
    """
    if Path(run).expanduser().is_dir():
        return Path(run).expanduser().absolute()
    from runner.tracking.address import sqlite_path

    uri = tracking_uri or compose_config([]).tracking.uri
    store = sqlite_path(uri) if uri else None
    if uri is None or not re.fullmatch(r"[0-9a-f]{32}", run) or (store and not store.exists()):
        raise RecordError(f"{run!r}: no such run or sweep (looked for the folder {Path(run).absolute()})")
    from runner.tracking.find import folder_of

    return folder_of(run, uri)


def log_into(directory: Path) -> None:
    """Log as a run does: our own messages on the terminal, everything in runner.log."""
    settings = yaml.safe_load((CONF_DIR / "hydra" / "job_logging" / "runner.yaml").read_text(encoding="utf-8"))
    settings["handlers"]["file"]["filename"] = str(directory / "runner.log")
    logging.config.dictConfig(settings)


class SweepWatch(Callback):
    """Tells this process where Hydra puts a sweep, for the jobs may run in others."""

    directory: Path | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder."""
        SweepWatch.directory = Path(config.hydra.sweep.dir).absolute()


def _compose(job: Callable[[DictConfig], None]) -> None:
    with hydra_errors_raised():
        try:
            hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")(job)()
        except MissingConfigException:  # an OSError too, with its own answer
            raise
        except OSError as error:  # jobs keep theirs: it is Hydra's, making the run's folder
            raise ConfigError(
                f"the run's folder {error.filename} cannot be made: {error.strerror}: set hydra.run.dir (of a sweep: "
                "hydra.sweep.dir) to a place that can be written"
            ) from None
        except ValueError as error:  # Hydra's answer to an option that is no text (batch=4); jobs raise none
            raise ConfigError(
                f"the command line cannot be read: {error}. A group takes one of its options: GROUP=OPTION"
            ) from error


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
        log.error("%s", explain_hydra(error))  # noqa: TRY400
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
    own = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="runner"):
        return from_hydra(hydra.compose("config", [*arguments, *own]))


def small_command(
    name: str, doc: str, arguments: Sequence[str] | None, answer: Callable[[RunConfig, bool], None]
) -> None:
    """Run a command that only answers a question: compose what is asked, and answer it as a table or as JSON.

    Args:
        name: the module's, as in `python -m runner.NAME`.
        doc: what --help says first.
        arguments: the command line's; None is sys.argv's.
        answer: is handed the configuration, and whether JSON is wanted.
    """
    parser = argparse.ArgumentParser(prog=f"python -m runner.{name}", description=doc)
    parser.add_argument("overrides", nargs="*", help="as for python -m runner: KEY=VALUE, GROUP=OPTION")
    parser.add_argument("--config-dir", help="a folder with options of your own")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    given = parser.parse_args(arguments)
    with one_message():
        answer(compose_config(given.overrides, config_dir=given.config_dir), given.json)


def from_hydra(cfg: DictConfig) -> RunConfig:
    """Check a composed configuration; from here on there is no DictConfig."""
    return parse(cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))


def _finish_sweep(directory: Path, codes: Sequence[int], *, interrupted: bool) -> list[int]:
    """Compare the jobs, end the parent run, and return an exit code per job."""
    from runner import sweep

    ends = sweep.summaries(directory)
    if ends and any(ends):
        comparison, written = sweep.compare(directory)
        tell_mlflow(lambda: sweep.tell(directory, comparison, written, interrupted=interrupted))
    if not ends or (codes and all(code == RequestError.exit_code for code in codes)):
        return list(codes)
    return [end.exit_code if end else RunnerError.exit_code for end in ends]


def tell_mlflow(tell: Callable[[], "Tracked | None"]) -> None:
    """Tell MLflow of a comparison and print where it shows it; a store that is away costs a warning."""
    from runner.tracking.address import page, ui_command

    try:
        tracked = tell()
    except TrackingError as error:
        log.warning("the comparison is not in MLflow: %s; python -m runner.compare SWEEP tells it later", error)
        return
    if tracked is not None:
        display.print_line(f"Browse  {ui_command(tracked.uri)}")
        display.print_line(f"        {page(tracked.uri, tracked.address)}")


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Turn what is wrong with a request into one message and its exit code; anything else keeps its traceback."""
    try:
        yield
    except RunnerError as error:
        display.say_error(str(error))
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        if os.environ.get(_FULL_ERROR) == "1":
            raise
        display.say_error(explain_hydra(error))
        sys.exit(RequestError.exit_code)
    except KeyboardInterrupt:
        display.say_error("interrupted")
        sys.exit(130)


@contextlib.contextmanager
def hydra_errors_raised() -> Iterator[None]:
    """Let Hydra raise its exceptions instead of printing them and exiting with 1."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Refuse a secret among the overrides, before Hydra writes the overrides to disk.

    Raises:
        ConfigError: an override gives a key, token, secret or password. Its value is not repeated.
    """
    for argument in arguments:
        if found := _SECRET.match(argument):
            raise ConfigError(
                f"{found['key']}=... on the command line would be written to disk: put the secret into an environment "
                "variable; where a provider takes one, KEY_env holds the variable's name"
            )


def explain_hydra(error: Exception) -> str:
    """Say in one message what Hydra or OmegaConf found: which key, which value, what to do."""
    text = str(error).strip()
    key = re.search(r"full_key: (\S+)", text)
    first_line = text.partition("\n")[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{key[1]} is needed: set {key[1]}=VALUE" if key else first_line
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error.missing_cfg_file, error.options)
    if found := re.match(r"Could not (?:override|append|delete).*?'(?P<key>[^'=]+)", text):
        return _no_such_key(found["key"])
    if key:
        return f"{key[1]}: {first_line}"
    kept = re.split(r"\n\s*Config search path:|\nSet the environment variable|\nSee https", text)[0]
    return re.sub(r"\s*\n\s*", " ", kept)


def _no_such_option(config: str, options: Sequence[str] | None) -> str:
    group, _, option = config.removesuffix(".yaml").rpartition("/")
    options = options or sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    return f"{group}={option!r}: there is no such option; {group!r} has: {', '.join(options)}"


def _no_such_key(key: str) -> str:
    value = next((given.partition("=")[2] for given in sys.argv if given.lstrip("+~").startswith(f"{key}=")), None)
    was = "" if value is None else f" (its value was {value!r})"
    section = key.rpartition(".")[0]
    known = known_keys(section)
    if section and not known:
        return f"unknown key {key!r}{was}: python -m runner --cfg job shows the keys of {section!r}"
    if not section and key in known:
        return f"{key!r} is a section{was}: choose an option of it (python -m runner --help) or set one of its keys"
    return unknown_key(key, known) + was
