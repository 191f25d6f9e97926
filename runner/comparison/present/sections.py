"""The parts of the page that are tables with the words that explain them: a new part is one more entry of SECTIONS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from runner.comparison.compare import Comparison
from runner.comparison.present.tables import Table, grouped_speed_tables, grouped_text_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: the part's id on the page.
        title: its heading.
        tables: each with its title, which is left out where it is the heading.
        paragraphs: plain texts behind the tables.
        terms: what the heads of columns mean.
    """

    anchor: str
    title: str
    tables: Sequence[Table] = ()
    paragraphs: Sequence[str] = ()
    terms: Mapping[str, str] = field(default_factory=dict)


_SPEED_TERMS = {
    "*": "the best of its column; of measured figures only where repeats tell it apart.",
    "( )": "the range of repeats; of percentiles a 95 % interval, of repeats from the lowest to the highest end.",
    "speed-up": "prompts per second against the reference's, with a 95 % interval from 3 repeats on; ~ is a difference "
    "that is not beyond noise.",
    "front": "the Pareto front: a run that completed every prompt, and no other that did, asked the same of the same "
    "model, answers both sooner and more prompts per second.",
    "calls": "completed calls, of which the percentiles are: rows of a static batch are one. p90 needs 10 calls, p95 "
    "20, p99 100.",
    "failed": "the share of prompts without an answer, whose calls are in no percentile.",
    "TTFT": "time to first token.",
    "padding, tail": "the shares of prompt and decode slots that were computed for nothing.",
    "-": "a figure that the run does not have.",
}
_SIGNS = ("*", "( )", "-")
_TEXT_TERMS = {
    "vs": "the reference: the run that the row's run is compared with.",
    "compared": "the answers that both runs completed; the figures are of these.",
    "exact": "the share with the reference's exact text, with its 95 % interval.",
    "floor": "the share of prompts in which the reference's own repeat has its exact text.",
    "differ": "the answers with another text.",
    "1st": "the first token, word or character that differs, counted from 0: the median of the Kaplan-Meier estimate; "
    "never where more than half never part.",
    "/1k tokens": "answers that part per 1,000 tokens compared, with their 95 % interval.",
    "similar": "mean similarity of all compared: 100 % less the Levenshtein distance over the longer text's length.",
    "if differ": "the median similarity of those that differ.",
    "tokens": "the mean change of an answer's length, in output tokens.",
    "finish": "answers that ended for another reason.",
    "one side": "prompts that only one of the two runs completed.",
    "measured": "differences whose margin was measured: all, or a random sample.",
    "near-ties": "differences that rounding explains: their margin is at most the noise bound.",
    "unexplained": "differences whose margin is above the noise bound.",
    "margin, largest": "how far apart the reference's token and the run's were where the answers part, in logits.",
    "bound, noise": "the largest change of such a gap by rounding, over so many positions, among so many copies.",
    "reference's, run's": "the two tokens where the answers part; (end) where an answer has no further token.",
    "at token": "the number of the token where the answers part, from 0.",
}


def speed_section(comparison: Comparison) -> Section:
    """Return speed, latency and cost, with every interval."""
    tables = tuple(grouped_speed_tables(comparison))
    return Section(anchor="speed", title="Speed and cost", tables=tables, terms=_terms_of(tables, _SPEED_TERMS))


def texts_section(comparison: Comparison) -> Section | None:
    """Return how the texts differ; None where none were compared."""
    tables = tuple(grouped_text_tables(comparison))
    if not tables:
        return None
    return Section(
        anchor="divergence", title="Texts against the reference's", tables=tables, terms=_terms_of(tables, _TEXT_TERMS)
    )


def _terms_of(tables: Sequence[Table], terms: Mapping[str, str]) -> Mapping[str, str]:
    """Return the terms that a head of the tables begins with, and the signs of cells."""
    heads = [head for table in tables for head in table.columns]
    return {
        term: meaning
        for term, meaning in terms.items()
        if term in _SIGNS or any(head.startswith(tuple(term.split(", "))) for head in heads)
    }


SECTIONS: tuple[Callable[[Comparison], Section | None], ...] = (speed_section, texts_section)
"""What makes the parts, in the order of the page."""
