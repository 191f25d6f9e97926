"""Writes a comparison's files: comparison.html, comparison.json, plots/*.png."""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner.comparison.compare import Comparison
from runner.comparison.present import page
from runner.comparison.present.json import as_data
from runner.comparison.present.plots.catalog import draw
from runner.errors import UsageError

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
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (folder / PLOTS / f"{picture.name}.png").unlink(missing_ok=True)
        for path, png in drawn:
            path.write_bytes(png)
        (folder / PAGE).write_text(html, encoding="utf-8")
        (folder / DATA).write_text(json.dumps(as_data(comparison), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{str(folder)!r} cannot be written ({error.strerror}): choose another with --output"
        ) from None
    return Files(page=folder / PAGE, data=folder / DATA, plots=tuple(path for path, _ in drawn))
