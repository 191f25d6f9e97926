"""A run as its folder tells it, and how a command's argument becomes folders. Reads files, compares nothing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner.config.renamed import with_current_keys
from runner.config.schema import leaves
from runner.errors import UsageError
from runner.record import folder
from runner.record.folder import CONFIG, OUTCOMES, PROMPTS, RunFolder
from runner.record.manifest import Summary
from runner.types import Completion

Key = tuple[str, int]
"""A prompt's id and the number of its answer: what answers are matched by, and nothing else."""

_SWEEP_FILE = "sweep.json"


@dataclass(frozen=True, slots=True)
class ComparedText:
    """What is compared of a completion."""

    text: str
    finish_reason: str
    output_tokens: int


ComparedTexts = Mapping[Key, ComparedText | None]
"""None is a failure: it has no text, not an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run without its answers, which `read_answers` reads when they are needed.

    Attributes:
        label: short, and unique among the runs that are compared.
        settings: every leaf of the configuration under its dotted name.
        facts: what was resolved on loading (dtype, device), under dotted names.
        prompts_sha256: of prompts.jsonl; None where the run kept none.
    """

    label: str
    folder: Path
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    summary: Summary | None
    prompts_sha256: str | None

    @property
    def metrics(self) -> Mapping[str, float]:
        """The run's metrics by their contract names; empty if it left none."""
        return self.summary.metrics if self.summary else {}

    @property
    def status(self) -> str:
        """How the run ended, in a word."""
        if self.summary is None:
            return "no result"
        failed = self.metrics.get("failed_prompts", 0)
        if self.summary.status == "FINISHED":
            return f"{failed:.0f} failed" if failed else "ok"
        return self.summary.status

    @property
    def is_finished(self) -> bool:
        """Whether it went through its prompts, whatever became of each: only then is its speed that of the whole."""
        return self.summary is not None and self.summary.status == "FINISHED"

    @property
    def has_answers(self) -> bool:
        """Whether there are texts to compare, and prompts to match them by."""
        return bool(self.settings) and self.prompts_sha256 is not None and (self.folder / OUTCOMES).exists()

    @property
    def is_sampled(self) -> bool:
        """Whether its texts depend on random numbers."""
        return bool(self.settings.get("generation.temperature"))


def folders(path: Path) -> list[Path]:
    """Return the run folders that the folder of a RUN or a SWEEP means.

    Raises:
        UsageError: it is neither.
    """
    if is_run(path):
        return [path]
    if found := sweep_folders(path):
        return found
    raise UsageError(
        f"{str(path)!r} is neither a run (it has no {CONFIG} and no {OUTCOMES}) nor a sweep (it has no "
        "numbered jobs): give the folder of one"
    )


def is_run(path: Path) -> bool:
    """Return whether a folder is a run's."""
    return any((path / name).is_file() for name in (CONFIG, OUTCOMES, folder.SUMMARY))


def is_sweep(path: Path) -> bool:
    """Return whether a folder is a sweep's."""
    return not is_run(path) and ((path / _SWEEP_FILE).is_file() or bool(sweep_folders(path)))


def sweep_folders(path: Path) -> list[Path]:
    """Return the numbered job folders of a sweep, in their order; none if it is no sweep."""
    jobs = [folder for folder in path.iterdir() if folder.name.isdigit()] if path.is_dir() else []
    tried = [folder for folder in jobs if is_run(folder) or (folder / ".hydra").is_dir()]
    return sorted(tried, key=lambda folder: int(folder.name))


def load(paths: Iterable[Path]) -> list[Run]:
    """Read runs, each folder once, in the order given."""
    distinct = list(dict.fromkeys(path.resolve() for path in paths))
    return [_load(folder, label) for folder, label in zip(distinct, _labels(distinct), strict=True)]


def read_answers(run: Run, among: frozenset[str] | None = None) -> dict[Key, ComparedText | None]:
    """Return what a run answered, by prompt and choice; `among` keeps the prompts of these ids only."""
    return {
        (outcome.prompt_id, outcome.choice): ComparedText(
            outcome.text, outcome.finish_reason, outcome.usage.output_tokens
        )
        if isinstance(outcome, Completion)
        else None
        for outcome in RunFolder(run.folder).outcomes.read()
        if among is None or outcome.prompt_id in among
    }


def prompts_in_common(first: Run, second: Run) -> frozenset[str]:
    """Return the ids of the prompts that both runs have, word for word."""
    kept = {prompt.id: prompt for prompt in RunFolder(first.folder).read_prompts()}
    return frozenset(prompt.id for prompt in RunFolder(second.folder).read_prompts() if kept.get(prompt.id) == prompt)


def prompt_texts(run: Run, ids: Iterable[str]) -> dict[str, str]:
    """Return the texts of some of a run's prompts."""
    wanted = set(ids)
    return (
        {prompt.id: prompt.text for prompt in RunFolder(run.folder).read_prompts() if prompt.id in wanted}
        if wanted
        else {}
    )


def _load(folder: Path, label: str) -> Run:
    prompts = folder / PROMPTS
    return Run(
        label=label,
        folder=folder,
        settings=dict(leaves(_config(folder))),
        facts=dict(_facts(folder)),
        summary=RunFolder(folder).read_summary(),
        prompts_sha256=hashlib.sha256(prompts.read_bytes()).hexdigest() if prompts.exists() else None,
    )


def _config(folder: Path) -> Mapping[str, Any]:
    """Return the configuration that ran; of a run that was refused before it was settled, what was composed."""
    composed = folder / ".hydra" / "config.yaml"
    if (folder / CONFIG).exists() or not composed.exists():
        return RunFolder(folder).read_config()
    return with_current_keys(yaml.safe_load(composed.read_text(encoding="utf-8")) or {})


def _facts(folder: Path) -> Iterator[tuple[str, Any]]:
    known = RunFolder(folder).read_environment()
    for section in ("provider", "packages", "git"):
        for name, value in leaves(known.get(section) or {}):
            if section != "git" or name == "commit":
                yield f"{section}.{name}", value[:12] if section == "git" and value else value


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, and as many parts before it as it takes to tell them apart."""
    for depth in range(1, 4):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if max(Counter(labels).values(), default=1) == 1:
            return labels
    return [str(path) for path in paths]
