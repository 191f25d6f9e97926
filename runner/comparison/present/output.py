"""Writes a comparison's files: comparison.html, comparison.json, plots/*.png."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner.comparison.compare import Comparison
from runner.comparison.present import page
from runner.comparison.present.json import as_data
from runner.comparison.present.plots.catalog import draw
from runner.errors import JournalError, UsageError
from runner.record.atomic import atomic_write
from runner.record.folder import as_json

PAGE, DATA, PLOTS = "comparison.html", "comparison.json", "plots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of a comparison."""

    page: Path
    data: Path
    plots: tuple[Path, ...]


def default_folder() -> Path:
    """Return a new folder below outputs/comparisons."""
    now = datetime.now().astimezone()
    return Path("outputs/comparisons") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{secrets.token_hex(3)}"


def write(comparison: Comparison, folder: Path, *, title: str) -> Files:
    """Write page, data and pictures over those of an earlier comparison in the folder.

    Raises:
        UsageError: the folder cannot be written.
    """
    pictures = draw(comparison)
    html = page.render(comparison, pictures, title=title)
    drawn = [(folder / PLOTS / f"{picture.name}.png", picture.png) for picture in pictures if picture.png]
    if (folder / PLOTS).is_symlink():  # of a folder from elsewhere, it may point to anything
        raise UsageError(f"{str(folder / PLOTS)!r} is a link: remove it, or choose another folder with --output")
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (folder / PLOTS / f"{picture.name}.png").unlink(missing_ok=True)
        for path, png in drawn:
            atomic_write(path, png)
        atomic_write(folder / PAGE, html.encode())
        atomic_write(folder / DATA, as_json(as_data(comparison)))
    except (OSError, JournalError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{str(folder)!r} cannot be written ({reason}): choose another with --output") from None
    return Files(page=folder / PAGE, data=folder / DATA, plots=tuple(path for path, _ in drawn))
