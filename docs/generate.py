"""Writes docs/reference/ from the code and conf/: `python docs/generate.py`; --check says which page is stale."""

import functools
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, TypeAdapter

from runner.batching.modes import MODES, modes_of
from runner.cli.compose import compose_config
from runner.config.schema import CONF_DIR, Address, RunConfig, VariableName
from runner.metrics.definitions import MEASURED, METRICS
from runner.metrics.samples import MIN_CALLS
from runner.providers.factory import build, provider_class
from runner.providers.protocols import Provider
from runner.record import folder, lock, repair
from runner.record.codec import to_record
from runner.record.manifest import MlflowRunRef, RunManifest, Segment, Summary
from runner.types import Completion, ErrorInfo, Failure, Timing, Usage

REFERENCE = Path(__file__).parent / "reference"
HEAD = "<!-- Written by docs/generate.py: do not edit. `make docs` writes it anew. -->\n"
PARAMS = ("temperature", "top_p", "top_k", "stop_sequences", "n")
VARIANTS: Mapping[str, Sequence[Sequence[str]]] = {
    "openai": [["provider.endpoint=chat"], ["provider.endpoint=completions"], ["provider.endpoint=responses"]],
    "azure": [["provider.endpoint=chat"], ["provider.endpoint=completions"], ["provider.endpoint=responses"]],
    "bedrock": [
        ["provider.api=converse"],
        ["provider.api=converse", "model.id=anthropic.claude-sonnet-4-5-20250929-v1:0"],
        ["provider.api=invoke"],
        ["provider.api=invoke", "model.id=anthropic.claude-sonnet-4-5-20250929-v1:0"],
        ["provider.api=invoke", "model.id=meta.llama3-3-70b-instruct-v1:0"],
        ["provider.api=invoke", "model.id=mistral.mistral-large-2402-v1:0"],
        ["provider.api=invoke", "model.id=amazon.titan-text-express-v1"],
    ],
}
"""Settings on which it depends what a provider honours."""

FILES = {
    folder.OUTCOMES: "one line per outcome, a completion or a failure, appended as it happens",
    folder.SUMMARY: "how the run ended: status, MLflow run id, every metric. Absent while the run goes on",
    folder.CONFIG: "the whole configuration, resolved, batch mode included",
    folder.PROMPTS: "the prompts as they were generated from; a prompt set itself (`prompts.path=...`)",
    folder.ENVIRONMENT: "commit, packages, machine, settings of the environment, what the provider resolved on "
    "loading, and the price per token where it is known. `environment.N.json` is that of an earlier process of a run "
    "that was resumed elsewhere",
    folder.MANIFEST: "what the run began with: enough to resume it, or to publish it later",
    folder.SEGMENTS: "what each process measured of its own part of the run",
    folder.MLFLOW_RUN: "which MLflow run the folder is; absent with `tracking=off`",
    folder.LOG: "the log, with every retry and every traceback",
    f"{folder.HYDRA}/": "what Hydra composed, and from which overrides; not where a run was started from Python",
    folder.LOCK: "while a process writes here: its id and its host",
    lock.SYSTEM_LOCK: "while a process writes here: tells a process in another container whether that process lives",
    repair.DAMAGED: "lines that were no outcomes, set aside by `python -m runner.resume RUN --repair`",
    folder.WORKER_LOCK: "lets one worker at a time publish the run to MLflow",
    folder.SIGNATURE: "the signature of `run.json`: whose run it is; see [Security](../security.md)",
}
SWEEP_FILES = {
    "0/, 1/, ...": "a run's folder per job",
    folder.SWEEP: "the parent run in MLflow: `uri`, `experiment`, `run_id`; and the sweep's `folder`, as in run.json",
    "sweep.hmac": "the signature of `sweep.json`, as `run.hmac`",
    "comparison.html": "the comparison as one page: tables, pictures, texts side by side",
    "comparison.json": "the same figures for scripts",
    "plots/": "the pictures as PNG, with their captions",
    ".sweep.lock": "while the jobs run: says that the sweep goes on",
    "multirun.yaml": "what Hydra composed for the sweep",
}
OUTCOME_FIELDS = {
    "prompt_id": "the prompt's id",
    "choice": "which of the prompt's `generation.n` answers, from 0",
    "segment": "which process of the run generated it: 0, then one more with each resume",
    "batch": "in mode static the batch's number in the plan, else the prompt's number in the set; from 0",
    "text": "the answer; null for a failure",
    "finish_reason": "stop, length, content_filter, tool_calls or unknown; null for a failure",
    "input_tokens": "the prompt's own tokens, never a padded width; null for a failure, and where a service "
    "counted nothing: no tokenizer stands in for its count",
    "output_tokens": "tokens of the answer, the first end-of-sequence token included; null as `input_tokens` is",
    "cached_input_tokens": "of `input_tokens`, those that the service read from its cache. Only where there are any",
    "cache_written_tokens": "of `input_tokens`, those that the service wrote to its cache. Only where there are any",
    "reasoning_tokens": "of `output_tokens`, those that are no part of the text. Only where the service counts them",
    "token_ids": "the new tokens, as many as `output_tokens`. Only where the provider has them",
    "system_fingerprint": "what the service says of the system that answered. Only where it says something",
    "latency_s": "from the first attempt to the last token; in mode static that of the batch, unless a service streams "
    "the batch: then to the prompt's own end",
    "time_to_first_token_s": "from the first attempt to the first new token; null where nothing was streamed",
    "time_to_first_answer_token_s": "the same to the first token of the text. Only where reasoning came before it",
    "queued_s": "from when the batch mode wanted to send until the first attempt left. Only of requests",
    "last_attempt_latency_s": "of the last attempt alone. Only where there were several",
    "chunk_gaps_s": "seconds between a chunk of an answer with new tokens and its next; of a prompt's n answers one "
    "answer after another. Only where there are any",
    "attempts": "how many requests it took; 1 inside this process",
    "lost_answers": "of `attempts`, those without an answer that may be billed all the same. Only where there are any",
    "started_at": "when the first attempt began, with time zone",
    "model": "which model answered, or was asked",
    "error": "null, or `{type, message, retryable}` of a failure",
}
SUMMARY_FIELDS = {
    "status": "FINISHED, FAILED or KILLED (interrupted), as MLflow has it",
    "mlflow_run_id": "the MLflow run; null if there is none",
    "metrics": "every metric of the run by [its name](metrics.md); one that does not exist for the run is absent",
    "series": "what changed during a run, as pairs of step and value: `batch/requests_in_flight` of `batch.size=auto`",
    "error": "null, or `{type, message}` of what ended the run early",
}
MLFLOW_RUN_FIELDS = {
    "uri": "the MLflow store",
    "experiment_id": "the experiment's id there",
    "run_id": "the run's id there",
}
STEP_METRICS = {
    "batch/latency_s": "the longest latency of the step's outcomes",
    "batch/output_tokens": "sum over the step",
    "batch/output_tokens_per_s": "`batch/output_tokens` / the step's wall time: from its first start, or the end of "
    "the step before where that is later, to its last end",
    "batch/time_to_first_token_s": "of the step's first completion that has one",
    "batch/requests_in_flight": "with `batch.size=auto`: requests in flight each time they were as many as allowed",
}
COMPARED_METRICS = {
    "exact_match_ratio": "share of the answers that both runs completed whose text is the reference's; "
    "not logged between different models",
    "exact_match_ratio_low": "lower end of its 95 % interval (Wilson); `exact_match_ratio_high` is the upper end",
    "divergences_per_1000_tokens": "answers that part from the reference's, per 1,000 tokens compared: each answer is "
    "compared up to and including the first token that differs, or to its end; only where tokens are on record or can "
    "be cut",
    "divergences_per_1000_tokens_low": "lower end of its 95 % interval (Garwood); "
    "`divergences_per_1000_tokens_high` is the upper end",
    "near_tie_ratio": "share of the differences from the reference whose margin was measured that are near-ties, "
    "which rounding explains; absent where there is none",
    "unexplained_differences": "differences whose margin is above the noise bound; absent where none was measured",
    "speedup": "`prompts_per_s` / the reference's, of complete runs with one request; over repeats the geometric mean",
    "latency_p50_s_low": "lower end of its 95 % interval (order statistics: Hahn and Meeker, Statistical Intervals, "
    "section 5.2); `latency_p50_s_high` is the upper end, and every percentile of `latency_*` and "
    "`time_to_first_token_*` has both. An end that so few calls cannot have is absent; so are both where the prompts "
    "of a list end one by one, because they are not independent",
    "speedup_low": "lower end of its 95 % interval, from 3 repeats on; `speedup_high` is the upper end",
    "output_tokens_speedup": "`output_tokens_per_s` / the reference's",
}
UNITS = {
    "_per_1000_tokens": "per 1,000 tokens",
    "_per_1000_tokens_low": "per 1,000 tokens",
    "_ratio": "share",
    "_ratio_low": "share",
    "_s_low": "seconds",
    "_share": "share",
    "_usd": "US dollars",
    "_mb": "MiB",
    "_per_s": "per second",
    "_s": "seconds",
}


def pages() -> dict[str, str]:
    """Return every page of the reference by its file name."""
    return {
        "configuration.md": _configuration(),
        "metrics.md": _metrics(),
        "outputs.md": _outputs(),
        "providers.md": _providers(),
    }


def stale(current: Mapping[str, str]) -> list[str]:
    """Return the names of the pages whose files are not what the code and conf/ say now."""
    return [
        name
        for name, text in current.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text(encoding="utf-8") != text
    ]


@functools.cache
def _config(*overrides: str) -> RunConfig:
    return compose_config(overrides)


# Configuration


def _configuration() -> str:
    defaults = _config().flat()
    rows: dict[str, list[tuple[str, str, str, str]]] = {}
    for key, annotation in _keys(RunConfig):
        section = key.partition(".")[0] if "." in key else ""
        row = (f"`{key}`", _type(annotation), _default(key, defaults), _meaning(key))
        rows.setdefault(section, []).append(row)
    parts = [
        f"{HEAD}# Configuration\n",
        "Every key, its type and bounds, its value without any override, and what it means. `python -m runner "
        "--cfg job` shows the "
        "configuration of a run, with your overrides, and runs nothing. The keys of a provider are in "
        "[providers](providers.md).\n",
        "A key is set with `KEY=VALUE`, an option of a group with `GROUP=OPTION`.\n",
        "## Groups\n",
        _table(("group", "option", "what it is"), _options()),
    ]
    for section, found in rows.items():
        parts += [f"## {section or 'The run'}\n", _table(("key", "type", "default", "meaning"), found)]
    return "\n".join(parts)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the annotation of every key of a section, and of the sections in it."""
    for name, field in section.model_fields.items():
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        key = f"{prefix}{field.alias or name}"
        if inner is None:
            yield key, _annotated(field)
            continue
        if type(None) in kinds:
            yield key, inner | None
        yield from _keys(inner, f"{key}.")


def _annotated(field: Any) -> Any:
    """Return a field's annotation with the constraints that pydantic took out of it."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _default(key: str, defaults: Mapping[str, Any]) -> str:
    if key not in defaults:
        return ""
    return f"`{_override(defaults[key])}`"


def _override(value: Any) -> str:
    """Write a value as it stands behind KEY= on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(plain, default_flow_style=True)).splitlines()[0]


_SPECIAL = {
    "provider._target_": "the class of the provider, under `runner.providers`; `provider=NAME` sets it",
    "model.price.input_usd_per_million": "price of input tokens",
    "model.price.output_usd_per_million": "price of output tokens",
    "model.price.cached_input_usd_per_million": "price of input tokens from the service's cache; absent: as any other",
    "model.price.batch_discount": "share of the price that a batch job takes off, 0 to 1, whether the price is set or "
    "of the catalog; null is the service's own (0.5)",
    "model.price.usd_per_hour": "price of an hour of own hardware, instead of prices of tokens: `cost_usd` is that of "
    "`duration_s`",
}
"""Keys that stand in no YAML with a comment of their own."""


def _meaning(key: str) -> str:
    if key in _SPECIAL:
        return _SPECIAL[key]
    section, _, name = key.rpartition(".")
    files = sorted((CONF_DIR / section).rglob("*.yaml")) if (CONF_DIR / section).is_dir() and section else []
    files.sort(key=lambda path: (path.stem != "base", "transformers" not in path.parts))  # the default model's first
    for path, wanted in [*((path, name) for path in files), (CONF_DIR / "config.yaml", key)]:
        if meaning := _comments(path).get(wanted):
            return meaning
    raise ValueError(f"{key} has no comment in conf/: say there what it means")


def _comments(path: Path) -> dict[str, str]:
    """Return the comment of every key of a YAML file that has one, its following lines included."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    last = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"(?P<indent> *)(?P<key>\w+):(?P<rest>.*)", line)
        if match:
            indent = len(match["indent"])
            parents = [(depth, name) for depth, name in parents if depth < indent]
            last = ".".join([*(name for _, name in parents), match["key"]])
            parents.append((indent, match["key"]))
            comment = re.search(r"(?:^|\s)# ?(.*)", match["rest"])
            if comment:
                found[last] = comment[1].strip()
        elif last in found and re.match(r" {20,}# ", line):
            found[last] += " " + line.strip(" #")
        elif line and not line.startswith(" "):
            last = ""
    return found


def _options() -> Iterator[tuple[str, str, str]]:
    for group in ("provider", "model", "generation", "prompts", "batch", "tracking", "experiment"):
        for path in sorted((CONF_DIR / group).rglob("*.yaml")):
            option = path.relative_to(CONF_DIR / group).with_suffix("").as_posix()
            yield f"`{group}`", f"`{option}`", _first_comment(path) or _model_id(path)


def _model_id(path: Path) -> str:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return f"`{values['id']}`" if "id" in values else ""


def _first_comment(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    return " ".join(line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines))


# Types


def _type(annotation: Any) -> str:
    """Write a type and its bounds in words."""
    parts = get_args(annotation)
    for special, words in ((Address, "address (http or https)"), (VariableName, "name of an environment variable")):
        if annotation == special:
            return words
        if special in parts:
            return f"{words}, or null"
    return _words(TypeAdapter(annotation).json_schema())


def _words(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return ", or ".join(_words(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " \\| ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "object"))
    words = {"string": "text", "object": "section", "integer": "whole number", "boolean": "true \\| false"}.get(
        kind, kind
    )
    if kind == "array":
        words = f"list of: {_words(schema['items'])}"
    if "pattern" in schema:
        return f"text that matches `{schema['pattern']}`"
    bounds = [f"{text} {schema[name]}" for name, text in _BOUNDS.items() if name in schema]
    return " ".join([words, " and ".join(bounds)]).strip()


_BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "up to",
    "exclusiveMaximum": "below",
}


# Metrics


def _metrics() -> str:
    needed = ", ".join(f"p{rank} from {MIN_CALLS[rank]}" for rank in (90, 95, 99))
    return "\n".join(
        [
            f"{HEAD}# Metrics\n",
            "The same names stand in `summary.json` and in MLflow. A metric that does not exist for a run is "
            "absent, never 0 and "
            "never NaN. All follow from [outcomes.jsonl](outputs.md), except `duration_s`, "
            f"{', '.join(f'`{name}`' for name in METRICS if name in MEASURED)}, which "
            "only the process can know, and the costs, which need a price. What they mean and leave out: "
            "[decision 3](../decisions/0003-measurement.md).\n",
            _table(
                ("metric", "unit", "definition"),
                [(f"`{name}`", _unit(name), text) for name, text in METRICS.items()],
            ),
            "Percentiles are of completed calls: `failed_prompts` stands beside them. Answers with one timing, as the "
            "rows of a static batch, are one sample. They interpolate linearly between the closest ranks (Hyndman and "
            f"Fan's type 7): {needed} calls on; with fewer they are absent.\n",
            "## What a comparison adds\n",
            "A sweep, and `python -m runner.compare SWEEP`, log these to each run that they compare. The figures "
            "of a comparison "
            "itself are in [sweeps and comparing](../guide/sweeps.md).\n",
            _table(
                ("metric", "unit", "definition"),
                [(f"`{name}`", _unit(name), text) for name, text in COMPARED_METRICS.items()],
            ),
            "## Over the course of a run\n",
            "In MLflow, one point per step. A step is a static batch; in the other modes it is `batch.size` "
            "outcomes, or "
            "16 with `batch.size=auto`.\n",
            _table(
                ("metric", "unit", "definition"),
                [(f"`{name}`", _unit(name), text) for name, text in STEP_METRICS.items()],
            ),
        ]
    )


def _unit(name: str) -> str:
    if "speedup" in name:
        return "factor"
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "count")


# Outputs


def _outputs() -> str:
    parts = [
        f"{HEAD}# What a run leaves\n",
        "A run leaves a folder `outputs/runs/DATE/TIME_ID/`, a job of a sweep "
        "`outputs/sweeps/DATE/TIME_ID/NUMBER/`. The folder is the "
        "record: MLflow, pages and tables are made from it. `hydra.run.dir=` and `hydra.sweep.dir=` name other "
        "folders.\n",
        _table(("file", "what it holds"), _named(FILES)),
        f"## {folder.OUTCOMES}\n",
        "One JSON object a line, appended before an outcome counts. Where a prompt has outcomes of several "
        "segments, its last "
        "segment's count; the others stay as history. A last line without its end was being written when the "
        "process died, and "
        "is no outcome.\n",
        _table(("field", "meaning"), _named(_checked(OUTCOME_FIELDS, _outcome_fields()))),
        f"## {folder.SUMMARY}\n",
        _table(("field", "meaning"), _named(_checked(SUMMARY_FIELDS, Summary.__dataclass_fields__))),
        f"## {folder.MANIFEST}\n",
        _table(("field", "meaning"), _named(_checked(_documented(RunManifest), RunManifest.__dataclass_fields__))),
        f"## {folder.SEGMENTS}\n",
        "An object with one field, `segments`: a list with an object per process.\n",
        _table(("field", "meaning"), _named(_checked(_documented(Segment), Segment.__dataclass_fields__))),
        f"## {folder.MLFLOW_RUN}\n",
        _table(("field", "meaning"), _named(_checked(MLFLOW_RUN_FIELDS, MlflowRunRef.__dataclass_fields__))),
        "## A sweep's folder\n",
        _table(("file", "what it holds"), _named(SWEEP_FILES)),
    ]
    return "\n".join(parts)


def _outcome_fields() -> list[str]:
    """Return the fields that a line of outcomes.jsonl can have, in their order."""
    timing = Timing(
        started_at=datetime(2026, 1, 1, tzinfo=UTC), latency_s=1.0, time_to_first_token_s=1.0,
        time_to_first_answer_token_s=1.0, queued_s=1.0, last_attempt_latency_s=1.0, chunk_gaps_s=(1.0,),
    )  # fmt: skip
    usage = Usage(input_tokens=1, output_tokens=1, cached_input_tokens=1, cache_written_tokens=1, reasoning_tokens=1)
    completion = Completion(
        prompt_id="0", text="", finish_reason="stop", usage=usage, timing=timing, model="m", token_ids=(1,),
        system_fingerprint="f",
    )  # fmt: skip
    error = ErrorInfo(type="T", message="", retryable=False)
    failure = Failure(prompt_id="0", error=error, timing=timing, model="m", attempts=2, lost_answers=1)
    return list(dict.fromkeys([*to_record(completion), *to_record(failure)]))


def _checked(meanings: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the meanings in the order of the names.

    Raises:
        ValueError: a field has no meaning here, or a meaning is of no field.
    """
    listed = list(names)
    if differing := set(listed) ^ meanings.keys():
        raise ValueError(f"fields without a meaning, or meanings without a field: {', '.join(sorted(differing))}")
    return {name: meanings[name] for name in listed}


def _documented(kind: type, section: str = "Attributes") -> dict[str, str]:
    """Return what a class's docstring says of each of its attributes or arguments."""
    text = inspect.getdoc(kind) or ""
    block = text.partition(f"\n{section}:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in block.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif found and line.startswith("      "):
            found[name] += " " + line.strip()
    return found


# Providers


def _providers() -> str:
    names = sorted(path.stem for path in (CONF_DIR / "provider").glob("*.yaml"))
    kinds = {name: provider_class(_config(f"provider={name}")) for name in names}
    parts = [
        f"{HEAD}# Providers\n",
        "Who serves: `provider=NAME`. Each has a default model and a default batch mode. A knob or a mode that a "
        "provider cannot honour is "
        "refused before anything is loaded or sent.\n",
        "## Batch modes\n",
        _table(("provider", "default", *MODES), [_modes_row(name, kind) for name, kind in kinds.items()]),
        "`batch.size` means: "
        + "; ".join(f"{mode.size_unit} ({name})" for name, mode in MODES.items())
        + ". Mode `static` of a hosted provider needs `provider.endpoint=completions`; mode `job` is refused where "
        "`provider.job` is null.\n",
        "## Generation keys\n",
        "`generation.max_tokens` is honoured by all. Where a cell is empty, the key is refused unless it has the "
        "value that asks for "
        "nothing: temperature 0, null, no stop sequence, one answer.\n",
        _table(("provider", "with", *(f"`{name}`" for name in PARAMS)), list(_params_rows(names))),
    ]
    documented: set[type] = set()
    for name, kind in kinds.items():
        parts.append(f"## {name}\n")
        parts.append(_first_comment(CONF_DIR / "provider" / f"{name}.yaml") + "\n")
        if kind in documented or kind.name != name:
            parts += [_preset(name, kind), ""]
        else:
            documented.add(kind)
            parts.append(_table(("key", "type", "default", "meaning"), list(_settings(name, kind))))
    return "\n".join(parts)


def _modes_row(name: str, kind: type[Provider]) -> tuple[str, ...]:
    supported = modes_of(kind)
    return (f"`{name}`", kind.default_mode, *("yes" if mode in supported else "" for mode in MODES))


def _params_rows(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    for name in names:
        for overrides in VARIANTS.get(name, [[]]):
            supported = build(_config(f"provider={name}", *overrides)).supported_params
            with_ = ", ".join(f"`{override}`" for override in overrides)
            yield (f"`{name}`", with_, *("yes" if param in supported else "" for param in PARAMS))


def _settings(name: str, kind: type[Provider]) -> Iterator[tuple[str, str, str, str]]:
    config = _config(f"provider={name}")
    defaults = {f"provider.{key}": value for key, value in config.provider.settings.items()} | config.flat()
    meanings = _inherited(kind)
    for parameter in inspect.signature(kind).parameters.values():
        key, section = f"provider.{parameter.name}", _section_of(parameter.annotation)
        if section is not None and parameter.name != "model":
            paths = (*(CONF_DIR / "provider" / "shared").glob("*.yaml"), CONF_DIR / "provider" / f"{name}.yaml")
            comments = {key: comment for path in paths for key, comment in _comments(path).items()}
            for inner, annotation in _keys(section, f"{key}."):
                yield f"`{inner}`", _type(annotation), _default(inner, defaults), comments[inner.partition(".")[2]]
        elif parameter.name != "model":
            yield f"`{key}`", _type(parameter.annotation), _default(key, defaults), meanings[parameter.name]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an argument's type has, or may have beside null; None for any other type."""
    options = get_args(annotation) or (annotation,)
    return next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _inherited(kind: type) -> dict[str, str]:
    """Return what the docstring says of each argument; Azure's names OpenAI's for those that both have."""
    from runner.providers.openai import OpenAIProvider

    return {**_documented(OpenAIProvider, "Args"), **_documented(kind, "Args")}


def _preset(name: str, kind: type[Provider]) -> str:
    settings = _config(f"provider={name}").provider.settings
    usual = _config(f"provider={kind.name}").provider.settings
    changed = [f"`provider.{key}={_override(value)}`" for key, value in settings.items() if value != usual[key]]
    return f"As [{kind.name}](#{kind.name}), with {', '.join(changed)}."


# Markdown


def _named(meanings: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", text) for name, text in meanings.items()]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", "\\|", text)


def main() -> None:
    """Write the pages, or with --check exit with 1 if one is stale."""
    if "--check" in sys.argv[1:]:
        if names := stale(pages()):
            sys.exit(f"stale: {', '.join(names)}: make docs")
        return
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
