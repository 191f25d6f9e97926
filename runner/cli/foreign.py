"""Asks before a command obeys a record that is not this user's own: what it would send to, load, or run.

What is compared is everything that may decide where keys, prompts and results go. What the local configuration has too
needs no consent.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from runner.cli.compose import compose_config
from runner.config.schema import CONF_DIR, RunConfig
from runner.errors import RecordError
from runner.record.folder import JOBS, MANIFEST, RunFolder, parse_recorded
from runner.record.relocate import base_of, with_absolute_paths
from runner.text import one_line

log = logging.getLogger(__name__)

ACCEPT_FLAG = "--accept-endpoint"
_KEY_VARIABLE = "provider.api_key_env"
_HARMLESS = frozenset(
    f"provider.{name}"
    for name in (
        *("api", "api_version", "chat_template", "compile", "device", "dtype", "endpoint", "fail_on", "latency_s"),
        *("cache_gb", "kv_cache_precision", "max_batch_tokens", "precision"),
        *("max_tokens_field", "prediction", "reasoning_effort", "seed", "service_tier", "stream", "unsupported_params"),
        *("job", "job.api", "job.completion_window", "job.endpoint", "job.keep_files", "job.line_url"),
        *("job.max_requests", "job.min_records", "job.timeout_hours"),
    )
)
"""Settings that change what is computed and not where: any other setting of a provider, known or new, needs consent."""
_EMBEDDED = "embedded/"
_LOADING = ("provider.trust_remote_code", "provider.kv_cache_precision")
"""Settings that only providers have whose `model.id` names files that are loaded."""


def refuse_foreign(folder: RunFolder, *, accepted: bool, changed: Set[str] = frozenset()) -> None:
    """Refuse a foreign record that would send to, load or run what the local configuration does not have.

    Args:
        folder: the run's.
        accepted: whether the user has consented to what the record names.
        changed: keys for which the user has given a value of their own.

    Raises:
        RecordError: consent is needed, the record names a key that its provider does not have, or has no configuration.
    """
    if folder.is_own:
        return
    manifest = folder.read_manifest()
    config = parse_recorded(folder.path / MANIFEST, manifest.config)
    recorded = with_absolute_paths(config, base_of(folder, manifest))
    destinations = {key: value for key, value in _destinations(recorded).items() if key not in changed} | _jobs(folder)
    differing = destinations
    keys: set[str] = set()
    for local in _local_destinations(recorded):
        keys.add(str(local.get(_KEY_VARIABLE)))
        differing = min(differing, _differing(destinations, local), key=len)
        if not differing:
            break
    _refuse_foreign_key(destinations.get(_KEY_VARIABLE), keys)
    lines = [f"  {key}={value!r}" for key, value in differing.items()]
    if differing and not accepted:
        raise RecordError(
            f"{folder.display_path} is not a run that you began here, and it would use what your configuration does "
            "not have:\n" + "\n".join(lines) + f"\nadd {ACCEPT_FLAG} if you trust whoever made the folder with your "
            "keys, your prompts and this machine, or start a new run"
        )
    shown = ", ".join(f"{key}={value!r}" for key, value in destinations.items() if value is not None)
    log.info("%s is not a run that you began here. It goes on with %s", folder.display_path, one_line(shown))


def _destinations(config: RunConfig) -> dict[str, Any]:
    """Return what decides where a run sends to, and what it loads or runs, by the keys of the configuration."""
    flat = config.flat()
    chosen = {key: value for key, value in flat.items() if key.startswith("provider.") and key not in _HARMLESS}
    if any(key in flat for key in _LOADING) and not config.model.id.startswith(_EMBEDDED):
        chosen["model.id"] = config.model.id  # a folder or a repository with files that are loaded
    return {**chosen, "tracking.uri": config.tracking.uri}


def _jobs(folder: RunFolder) -> dict[str, str]:
    """Return the batch jobs that a record names: a resume collects them, and deletes their files at the service."""
    ids = [job.job_id or job.name for job in folder.read_jobs() if job.is_open or not job.is_cleaned]
    return {JOBS: ", ".join(ids)} if ids else {}


def _local_destinations(recorded: RunConfig) -> Iterator[Mapping[str, Any]]:
    """Yield the destinations of each local option that has the provider's class."""
    paths = sorted((CONF_DIR / "provider").glob("*.yaml"), key=lambda path: path.stem != recorded.provider.name)
    for path in paths:
        target = re.search(r"^_target_: (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if target and target[1] != recorded.provider.target:
            continue
        try:
            local = compose_config([f"provider={path.stem}", f"model.id={_EMBEDDED}"])
        except OmegaConfBaseException:  # an option that needs an environment variable
            continue
        if local.provider.target == recorded.provider.target:
            yield _destinations(with_absolute_paths(local, Path.cwd()))


def _differing(destinations: Mapping[str, Any], local: Mapping[str, Any]) -> dict[str, Any]:
    stores = (None, local["tracking.uri"], os.environ.get("MLFLOW_TRACKING_URI"))
    return {
        key: value
        for key, value in destinations.items()
        if not (value in stores if key == "tracking.uri" else key in local and local[key] == value)
    }


def _refuse_foreign_key(variable: str | None, keys: Set[str]) -> None:
    """Refuse a variable that is not one of the provider's keys, whatever was consented to."""
    if variable is not None and variable not in keys:
        raise RecordError(
            f"{_KEY_VARIABLE}={variable!r}: this run is not yours, and that is no key of its provider: it has "
            f"{', '.join(sorted(keys - {'None'})) or 'none'}: start a new run, or add an option with it to "
            f"{CONF_DIR / 'provider'}"
        )
