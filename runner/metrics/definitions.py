"""Every metric: its name, its definition, its unit."""

from collections.abc import Mapping

from runner.text import rate

_COMPLETED = "percentile of completed calls"
_QUEUED = f"{_COMPLETED}: from when the mode wanted to send until the first attempt left (own limits, shared pauses)"
_LATENCY = f"{_COMPLETED}: from the first attempt to the last token; in a static batch its batch's"
_TTFT = f"{_COMPLETED}: from the first attempt to the first new token; absent where nothing is streamed"
_TTFAT = f"{_COMPLETED} in which reasoning came before the text: from the first attempt to the first token of the text"
_ITL = (
    f"{_COMPLETED}, one mean per call: (last token - first token) / (output tokens of its longest answer - 1). After "
    "reasoning, of the text alone; a call whose reasoning tokens are not known apart has none"
)
_ICL = (
    f"{_COMPLETED}: every gap between two chunks of a stream with new tokens. Exact up to 1,048,576 gaps, within 0.5 % "
    "above"
)

METRICS: Mapping[str, str] = {
    "completed_prompts": "prompts with an answer",
    "failed_prompts": "prompts without an answer whose last attempt ended in an error",
    "input_tokens": (
        "sum over completed prompts of the prompt's tokens without padding, once for n answers; absent, as every "
        "figure of tokens, where the service counted nothing for an answer"
    ),
    "cached_input_tokens": "those of `input_tokens` that the service read from its cache; absent where there are none",
    "output_tokens": "sum over all answers; the first end-of-sequence token counts and ends an answer",
    "reasoning_tokens": "those of `output_tokens` that are no part of the text; absent where no answer counts them",
    "duration_s": (
        "from the first prompt sent to the last outcome, summed over the processes of a resumed run; of batch jobs, "
        "from when the first was formed to when the service ended the last"
    ),
    "job_queue_s": "of batch jobs: from when the service created the first to when it began the first; absent where "
    "it does not say when it began",
    "job_run_s": "of batch jobs: from when the service began the first to when it ended the last; absent likewise",
    "load_s": "loading the model, or opening the client; measured apart from `duration_s`",
    "output_tokens_per_s": "`output_tokens` / `duration_s`",
    "steady_output_tokens_per_s": (
        "output tokens per second between the first and the last time that `peak_requests_in_flight` calls were in "
        "flight, a call's tokens spread evenly from its first token to its end: ramp-up and drain are left out "
        "(deletion of the initial transient: Law, Simulation Modeling and Analysis, chapter 9). Absent unless as many "
        "calls ended within that time as were in flight"
    ),
    "input_tokens_per_s": "`input_tokens` / `duration_s`",
    "total_tokens_per_s": "(`input_tokens` + `output_tokens`) / `duration_s`",
    "prompts_per_s": "`completed_prompts` / `duration_s`",
    "mean_requests_in_flight": (
        "sum of the calls' latencies / `duration_s` (Little's law), failed calls and waits between attempts included; "
        "of sequences in mode continuous; absent for static batches in this process"
    ),
    "peak_requests_in_flight": "most calls in flight at any time, counted in the same way",
    "latency_samples": "completed calls: what every latency percentile is of; rows of a static batch are one call",
    **{f"queued_p{rank}_s": _QUEUED for rank in (50, 99)},
    **{f"latency_p{rank}_s": _LATENCY for rank in (50, 90, 95, 99)},
    **{f"time_to_first_token_p{rank}_s": _TTFT for rank in (50, 90, 95, 99)},
    **{f"time_to_first_answer_token_p{rank}_s": _TTFAT for rank in (50, 90, 95, 99)},
    **{f"inter_token_latency_p{rank}_s": _ITL for rank in (50, 99)},
    **{f"inter_chunk_latency_p{rank}_s": _ICL for rank in (50, 99)},
    "prefill_s": (
        "sum over completed calls, from the start of the last attempt to the first token; calls in flight together "
        "count each. Absent where nothing is streamed"
    ),
    "decode_s": "sum over completed calls, from the first token to the last; absent where nothing is streamed",
    "retries": "sum over prompts of `attempts` - 1, that of superseded outcomes included",
    "prompt_padding_ratio": "1 - input tokens / (widest prompt of the batch x rows), summed over padded batches",
    "tail_wait_ratio": "1 - output tokens / (longest answer of the batch x rows), summed over padded batches",
    "cost_usd": (
        "sum over answers of tokens x price, by kind of token, superseded answers included; with "
        "`model.price.usd_per_hour` that x `duration_s` / 3600 (generation, without loading and warm-up). Absent where "
        "the price is not known"
    ),
    "cost_at_most_usd": (
        "`cost_usd` + the most that lost answers may cost: the prompt's tokens and `generation.max_tokens` for each "
        "attempt without an answer that the service may bill, and for an answer without a count. Absent where there "
        "are none: then `cost_usd` is all"
    ),
    "overhead_s": (
        "`duration_s` minus the time during which at least one call was in flight, or waited for own limits or a pause"
    ),
    "warmup_s": "generating the first batch unmeasured (`batch.warmup`), before `duration_s` begins; local models only",
    "cpu_s": "CPU seconds of this process, all threads, while it generated; of a resumed run, of its last process",
    "other_cpu_share": "share of the usable CPUs' time that other processes took meanwhile, this run's own left out",
    "child_cpu_share": "share that processes took which this one started: the one that publishes to MLflow",
    "steal_share": "share of the usable CPUs' time that the hypervisor gave to other machines meanwhile",
    "client_cpu_share": "CPU seconds of the thread that sends and receives / `duration_s`; hosted providers only",
    "first_call_ratio": (
        "seconds of the first call / those that the median pace of later calls of like size gives; needs 3 calls "
        "that began after it ended; local models only; of a resumed run, the largest of its processes"
    ),
    "peak_memory_mb": "largest resident memory of the process while it generated, in MiB",
    "peak_gpu_memory_mb": "largest memory of tensors on the GPU while the run generated, by its allocator, in MiB",
}
"""The definition of every metric, in the order in which metrics are shown; fields and metrics stand in backticks."""
NAMES = tuple(METRICS)

MEASURED = frozenset(
    {
        *("load_s", "warmup_s", "cpu_s", "other_cpu_share", "child_cpu_share", "steal_share", "client_cpu_share"),
        *("peak_memory_mb", "peak_gpu_memory_mb"),
    }
)
"""Metrics that only the process that generated can measure; the others follow from outcomes, segments and price."""

_UNITS = {
    "_ratio": "{:.1%}",
    "_share": "{:.1%}",
    "_usd": "${:,.4f}",
    "_mb": "{:,.0f} MiB",
    "_in_flight": "{:,.4g}",
    "_s": "{:,.3f} s",
}


def in_order(values: Mapping[str, float]) -> dict[str, float]:
    """Return metrics in the order of NAMES.

    Raises:
        ValueError: a metric is not in NAMES.
    """
    if unknown := values.keys() - set(NAMES):
        raise ValueError(f"no definition in METRICS: {', '.join(sorted(unknown))}")
    return {name: values[name] for name in NAMES if name in values}


def format_metric(name: str, value: float) -> str:
    """Return a metric's value, or an end of its interval, with the unit that its name ends with."""
    name = name.removesuffix("_low").removesuffix("_high")
    for suffix, template in _UNITS.items():
        if name.endswith("_per_s"):
            return f"{rate(value)} /s"
        if name.endswith(suffix):
            return template.format(value)
    return f"{value:,.0f}"
