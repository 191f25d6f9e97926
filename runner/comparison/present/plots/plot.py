"""What a plot is: a value that draws one picture of a comparison, as SVG for the page and as PNG for MLflow."""

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from runner.comparison.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1f24"
"""Colour of lines and letters. In an SVG it becomes `currentColor`, the page's own in each theme."""
WIDTH, HEIGHT = 5.6, 3.6
"""Inches. A letter of 10 points is still 9 pixels high where the picture is 350 pixels wide."""
_CAPTION_CHARS = 100
_STYLE: Mapping[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "figure.facecolor": "none", "axes.facecolor": "none", "legend.frameon": False, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold", "figure.titleweight": "bold",
    "axes.titlesize": "medium", "figure.titlesize": "medium", "grid.color": "#80808059", "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6, "errorbar.capsize": 3, "svg.fonttype": "none",
}  # fmt: skip
"""matplotlib's settings while a picture is drawn."""


class NoDataError(Exception):
    """A picture has no data; the message is the reason on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture as SVG and as PNG, or the reason why there is none. The PNG holds the caption, too."""

    name: str
    title: str
    alt: str
    caption: str = ""
    svg: str = ""
    png: bytes | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture that every comparison may have.

    Attributes:
        name: of the file, and of the picture's place on the page.
        title: of the page's line where there is no data.
        alt: what the picture shows, for readers who do not see it.
        draw: draws into an empty figure, and returns the caption: n, what bars are, what is left out. It raises
            NoDataError where the comparison has no data for it.
    """

    name: str
    title: str
    alt: str
    draw: Callable[["Figure", Comparison], str]

    def picture(self, comparison: Comparison) -> Picture:
        """Return the picture, or why there is none."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            figure = Figure(figsize=(WIDTH, HEIGHT), dpi=160, layout="constrained")
            try:
                caption = self.draw(figure, comparison)
            except NoDataError as reason:
                return Picture(name=self.name, title=self.title, alt=self.alt, reason=str(reason))
            svg = _svg(figure, self.name)
            return Picture(
                name=self.name, title=self.title, alt=self.alt, caption=caption, svg=svg, png=_png(figure, caption)
            )


def _svg(figure: "Figure", name: str) -> str:
    """Return the figure as an element of a page: its ids begin with the picture's name, its ink is the page's."""
    file = BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue().decode("utf-8")
    element = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", element)


def _png(figure: "Figure", caption: str) -> bytes:
    lines = textwrap.wrap(caption, _CAPTION_CHARS)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.16 * len(lines))
    figure.supxlabel("\n".join(lines), fontsize=7)
    file = BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()
