"""The list of pictures: a new picture is one more entry."""

from runner.comparison.compare import Comparison
from runner.comparison.present.plots.bars import draw_time, draw_work
from runner.comparison.present.plots.by_size import draw_divergence, draw_latency, draw_throughput
from runner.comparison.present.plots.margins import draw_margins
from runner.comparison.present.plots.pareto import draw_pareto
from runner.comparison.present.plots.plot import Picture, Plot

PLOTS = (
    Plot(
        name="throughput",
        title="Prompts per second by batch size",
        alt="Prompts per second by batch size, a line per mode",
        draw=draw_throughput,
    ),
    Plot(
        name="time",
        title="Where the time went",
        alt="Seconds of prefill, decoding, tail wait and waiting, a bar per configuration",
        draw=draw_time,
    ),
    Plot(
        name="latency",
        title="Latency of completed calls by batch size",
        alt="Percentiles of the latency by batch size, a panel per mode",
        draw=draw_latency,
    ),
    Plot(
        name="divergence",
        title="Exact matches by batch size",
        alt="Share of answers with the reference's exact text by batch size",
        draw=draw_divergence,
    ),
    Plot(
        name="margins",
        title="Margins of the differences",
        alt="The gap between the two tokens where answers part, a point per answer, a strip per run, and the bound",
        draw=draw_margins,
    ),
    Plot(
        name="work",
        title="Where the work went",
        alt="Shares of useful tokens, padding and tail wait, a bar per configuration",
        draw=draw_work,
    ),
    Plot(
        name="pareto",
        title="Latency against throughput",
        alt="Median latency and prompts per second of every configuration, the Pareto front marked",
        draw=draw_pareto,
    ),
)
"""In the order of the page."""


def draw(comparison: Comparison) -> tuple[Picture, ...]:
    """Draw all pictures; one without data has a reason instead."""
    return tuple(plot.picture(comparison) for plot in PLOTS)
