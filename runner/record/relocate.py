"""Finds where the relative paths of a recorded configuration start: beside the record, which may have been moved."""

from pathlib import Path

from runner.config.schema import RunConfig
from runner.record.folder import RunFolder
from runner.record.manifest import RunManifest

_SQLITE = "sqlite:///"


def base_of(folder: RunFolder, manifest: RunManifest) -> Path:
    """Return the folder in which relative paths of a run's configuration start.

    A record that still lies at the same place below its base starts there: with the whole tree it may have been moved.
    Any other starts in the recorded working directory if it is this user's own, else in the present one.
    """
    if beside := base_beside(folder.path, manifest.folder):
        return beside
    working_dir = Path(manifest.working_dir)
    return working_dir if folder.is_own and working_dir.is_dir() else Path.cwd()


def base_beside(path: Path, recorded: str | None) -> Path | None:
    """Return the folder that `path` lies below as recorded; None where it lies elsewhere, or nothing is recorded."""
    parts, path = Path(recorded or "").parts, path.absolute()
    return Path(*path.parts[: -len(parts)]) if parts and path.parts[-len(parts) :] == parts else None


def path_below(base: Path, path: Path) -> str | None:
    """Return what is recorded of a path: its part below `base`; None where it is not below."""
    return str(path.absolute().relative_to(base)) if path.absolute().is_relative_to(base) else None


def absolute_uri(uri: str, base: Path) -> str:
    """Return a store's address; the relative path of an embedded store starts in `base`."""
    return f"{_SQLITE}{base / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri


def with_absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    """Return a recorded configuration whose relative paths, of prompts and store, start in `base`."""
    path, uri = config.prompts.path, config.tracking.uri
    if path is not None and "://" not in path:
        path = str(base / Path(path).expanduser())
    uri = absolute_uri(uri, base) if uri is not None else None
    return config.model_copy(
        update={
            "prompts": config.prompts.model_copy(update={"path": path}),
            "tracking": config.tracking.model_copy(update={"uri": uri}),
        }
    )


def sweep_dir_of(folder: RunFolder, manifest: RunManifest) -> Path | None:
    """Return the folder of the sweep that a run belongs to: the one above the run's, which may have been moved.

    A foreign record cannot name any other; None where it names one.
    """
    if manifest.sweep_dir is None:
        return None
    recorded, parent = Path(manifest.sweep_dir), folder.path.absolute().parent
    if parent.name == recorded.name:
        return parent
    return recorded if folder.is_own else None
