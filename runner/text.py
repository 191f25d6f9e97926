"""Owns small operations on text. Imports no other module of the runner."""

import textwrap
import unicodedata
from collections.abc import Sequence
from math import floor, log10

_MARKDOWN = {char: f"\\{char}" for char in "\\`*_{}[]()#+!|~"} | {char: f"&#{ord(char)};" for char in "<>&$"}
"""MLflow renders notes with Showdown, which ignores a backslash before `<`, `&` and `$`."""


def first_line(error: object) -> str:
    """Return the first line of an error's message; the name of its type where it has none."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip()


def one_line(text: str) -> str:
    """Return the text with every run of white space as one blank."""
    return " ".join(text.split())


def shorten(text: str, width: int) -> str:
    """Return at most `width` characters; a cut text ends with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def excerpt(text: str, width: int = 500) -> str:
    """Return the text as one line of at most `width` characters.

    The text is cut between words, so that a secret is whole and can be redacted, or absent.
    """
    return textwrap.shorten(text, width, placeholder=" ...")


def percentage(share: float) -> str:
    """Return a share in percent. 100 % and 0 % are exact, never rounded."""
    text = f"{share:.1%}"
    return {"100.0%": "100%" if share == 1 else ">99.9%", "0.0%": "0%" if share == 0 else "<0.1%"}.get(text, text)


def rate(value: float) -> str:
    """Return a rate with one decimal; a smaller one with two digits, so that one of a night is not 0.0."""
    decimals = 1 if value == 0 else min(6, max(1, 1 - floor(log10(abs(value)))))
    return f"{value:,.{decimals}f}"


def plural(count: int, singular: str, plural: str) -> str:
    """Return the form of a word that goes with a count."""
    return singular if count == 1 else plural


def listed(items: Sequence[object], limit: int = 6) -> str:
    """Return the first items, and how many there are more, as a list in a sentence."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(str, items[:limit])) + more


def escape_markdown(text: str) -> str:
    """Return the text as one line without Markdown markup, table cells or HTML tags."""
    return "".join(_MARKDOWN.get(char, char) for char in one_line(text))


def strip_control(text: str) -> str:
    """Return the text with every control character except newline and tab replaced by U+FFFD."""
    return "".join(char if char in "\n\t" or unicodedata.category(char)[0] != "C" else "�" for char in text)
