"""The address of an MLflow store, and how a person opens the store. A run uses this module: it imports no mlflow."""

import os
import shlex
import sys
from pathlib import Path

from runner.errors import ConfigError
from runner.record.folder import relative_to_start

_SQLITE = "sqlite:///"


def check_store(uri: str | None) -> None:
    """Make sure that an embedded store's folder can be written, before anything is generated.

    Raises:
        ConfigError: the folder cannot be written.
    """
    path = sqlite_path(uri) if uri else None
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
        reason = "no right to write" if not writable else None
    except OSError as error:
        reason = error.strerror
    if reason is not None:
        raise ConfigError(f"tracking.uri={uri!r} cannot be written: {reason}: choose another file, or tracking=off")


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an embedded store; None for a server's address."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def is_server(uri: str) -> bool:
    """Return whether the store is an MLflow server, which a browser can open."""
    return uri.startswith("http")


def ui_command(uri: str, start: Path) -> str:
    """Return the command that serves this store in a browser, to be pasted in the folder `start`."""
    if is_server(uri):
        return f"open {uri}"
    path = sqlite_path(uri)
    store = f"{_SQLITE}{relative_to_start(path, start)}" if path else uri
    python = relative_to_start(Path(sys.executable), start)
    return f"{shlex.quote(python)} -m mlflow ui --port 5000 --backend-store-uri {shlex.quote(store)}"


def page_address(uri: str, page: str) -> str:
    """Return the web address of a page of the store's UI."""
    return f"{uri.rstrip('/') if is_server(uri) else 'http://127.0.0.1:5000'}{page}"
