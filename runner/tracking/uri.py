"""The address of an MLflow store, and how a person opens the store. A run uses this module: it imports no mlflow."""

import os
import shlex
import sys
from pathlib import Path

from runner.errors import ConfigError
from runner.record.folder import relative_to_start

_SQLITE = "sqlite:///"
_SQLITE_HEADER = b"SQLite format 3\0"
"""How every database begins that is not empty (https://www.sqlite.org/fileformat.html)."""


def check_store(uri: str | None) -> None:
    """Make sure that an embedded store can be written, as far as that is known without writing.

    Raises:
        ConfigError: there is no right to write, or the path is that of something else than a store.
    """
    path = sqlite_path(uri) if uri else None
    if path is not None and (reason := _why_unusable(path)) is not None:
        raise _cannot_be_written(uri, reason)


def create_store_folder(uri: str | None) -> None:
    """Create the folder of an embedded store, before anything is generated.

    Raises:
        ConfigError: it cannot be created.
    """
    path = sqlite_path(uri) if uri else None
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_written(uri, str(error.strerror)) from None


def _why_unusable(path: Path) -> str | None:
    try:
        if not path.exists():
            parent = next(folder for folder in path.parents if folder.exists())
            return None if parent.is_dir() and os.access(parent, os.W_OK) else f"no right to write into {parent}"
        if not path.is_file():
            return "it is a folder" if path.is_dir() else "it is no regular file"
        if not os.access(path, os.W_OK):
            return "no right to write"
        with path.open("rb") as file:
            is_store = file.read(len(_SQLITE_HEADER)) in (b"", _SQLITE_HEADER)
    except OSError as error:  # a name that is too long, say
        return error.strerror
    return None if is_store else "it is a file, but no SQLite database"


def _cannot_be_written(uri: str | None, reason: str) -> ConfigError:
    return ConfigError(f"tracking.uri={uri!r} cannot be written: {reason}: choose another file, or tracking=off")


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
