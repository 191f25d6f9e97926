"""The runs to compare: reads their folders, and finds the run folders that a command's argument names."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from runner.batching.modes import MODES
from runner.config.schema import leaves
from runner.errors import UsageError
from runner.record.folder import CONFIG, HYDRA, OUTCOMES, SUMMARY, SWEEP, RunFolder
from runner.record.manifest import Summary, environment_changes
from runner.record.prompts import PROMPTS
from runner.types import Completion, Outcome

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
Key = tuple[str, int]
"""A prompt's id and the number of the choice: the texts of two runs are matched by both."""


@dataclass(frozen=True, slots=True)
class ComparedText:
    """The compared part of a completion.

    Attributes:
        output_tokens: None where the service counted nothing.
        text_tokens: those of `output_tokens` that are the text's: reasoning is no part of it.
        token_ids: the new tokens; None where they are not on record.
    """

    text: str
    finish_reason: str
    output_tokens: int | None
    text_tokens: int | None
    token_ids: "array[int] | None" = None

    @classmethod
    def of(cls, completion: Completion) -> Self:
        """Return the compared part of a completion."""
        usage, token_ids = completion.usage, completion.token_ids
        return cls(
            completion.text,
            completion.finish_reason,
            None if usage is None else usage.output_tokens,
            None if usage is None else usage.output_tokens - (usage.reasoning_tokens or 0),
            None if token_ids is None else array("q", token_ids),  # 8 bytes a token
        )


ComparedTexts = Mapping[Key, ComparedText | None]
"""The texts of a run; None where the prompt failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run without its texts; `read_texts` reads them.

    Attributes:
        label: short, and unique among the compared runs.
        settings: every leaf of the configuration by its dotted name.
        facts: what was resolved on loading (dtype, device), and the machine, by dotted names.
        prompts_sha256: of prompts.jsonl; None where the folder has no such file.
        environment_changes: what changed where the run was resumed elsewhere, in words; empty for one environment.
    """

    label: str
    folder: RunFolder
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    summary: Summary | None
    prompts_sha256: str | None
    environment_changes: tuple[str, ...] = ()

    @property
    def metrics(self) -> Mapping[str, float]:
        """The run's metrics by their names; empty without a summary."""
        return self.summary.metrics if self.summary else {}

    @property
    def status(self) -> str:
        """How the run ended, in one or two words."""
        if self.summary is None:
            return "no result"
        failed = self.metrics.get("failed_prompts", 0)
        if self.summary.status == "FINISHED":
            return f"{failed:.0f} failed" if failed else "ok"
        return self.summary.status

    @property
    def is_finished(self) -> bool:
        """Whether the run tried all of its prompts: only then is its speed that of the whole prompt set."""
        return self.summary is not None and self.summary.status == "FINISHED"

    @property
    def is_complete(self) -> bool:
        """Whether the run finished, and completed every prompt: only then is its speed that of the whole job."""
        return self.is_finished and not self.metrics.get("failed_prompts")

    @property
    def has_texts(self) -> bool:
        """Whether the folder has outcomes to compare, and prompts to match them by."""
        return bool(self.settings) and self.prompts_sha256 is not None and self.folder.outcomes.path.exists()

    @property
    def keeps_several_in_flight(self) -> bool:
        """Whether several prompts were to be generated at a time, each with its own start and end."""
        name, size = self.settings.get("batch.mode"), self.settings.get("batch.size")
        together = [mode.name for mode in MODES.values() if not (mode.batch_is_call or mode.is_job)]
        return size != 1 and name in together

    @property
    def is_sampled(self) -> bool:
        """Whether the texts depend on random numbers."""
        return bool(self.settings.get("generation.temperature"))


def folders(path: Path) -> list[Path]:
    """Return the folder of a run, or the job folders of a sweep.

    Raises:
        UsageError: the path is neither a run nor a sweep.
    """
    if is_run(path):
        return [path]
    if jobs := sweep_folders(path):
        return jobs
    raise UsageError(
        f"{str(path)!r} is neither a run (it has no {CONFIG} and no {OUTCOMES}) nor a sweep (it has no "
        "numbered jobs): give the folder of one"
    )


def is_run(path: Path) -> bool:
    """Return whether a folder is a run's."""
    return any((path / name).is_file() for name in (CONFIG, OUTCOMES, SUMMARY))


def is_sweep(path: Path) -> bool:
    """Return whether a folder is a sweep's."""
    return not is_run(path) and ((path / SWEEP).is_file() or bool(sweep_folders(path)))


def sweep_folders(path: Path) -> list[Path]:
    """Return the numbered job folders of a sweep by number; none if the path is no sweep."""
    numbered = [job for job in path.iterdir() if job.name.isdigit()] if path.is_dir() else []
    started = [job for job in numbered if is_run(job) or (job / HYDRA).is_dir()]
    return sorted(started, key=lambda job: int(job.name))


def load(paths: Iterable[Path]) -> list[Run]:
    """Read runs, each folder once, in the order given."""
    distinct = list(dict.fromkeys(path.resolve() for path in paths))
    return [_read_run(RunFolder(path), label) for path, label in zip(distinct, _labels(distinct), strict=True)]


def read_texts(
    run: Run, prompt_ids: frozenset[str] | None = None, *, observers: Sequence[Callable[[Outcome], None]] = ()
) -> ComparedTexts:
    """Return the texts of a run by prompt and choice, in one pass over its outcomes.

    Args:
        run: whose outcomes are read.
        prompt_ids: of the texts to return; None for all.
        observers: each is called with every outcome that counts.
    """
    texts: dict[Key, ComparedText | None] = {}
    for outcome in run.folder.outcomes.read():
        for observe in observers:
            observe(outcome)
        if prompt_ids is None or outcome.prompt_id in prompt_ids:
            text = ComparedText.of(outcome) if isinstance(outcome, Completion) else None
            texts[outcome.prompt_id, outcome.choice] = text
    return texts


def common_prompt_ids(first: Run, second: Run) -> frozenset[str]:
    """Return the ids of the prompts that both runs have with the same messages."""
    prompts = {prompt.id: prompt for prompt in first.folder.read_prompts()}
    return frozenset(prompt.id for prompt in second.folder.read_prompts() if prompts.get(prompt.id) == prompt)


def prompt_texts(run: Run, ids: Set[str]) -> dict[str, str]:
    """Return the texts of the run's prompts with these ids."""
    return {prompt.id: prompt.text for prompt in run.folder.read_prompts() if prompt.id in ids} if ids else {}


def _read_run(folder: RunFolder, label: str) -> Run:
    folder.refuse_what_is_no_file()
    return Run(
        label=label,
        folder=folder,
        settings=dict(leaves(_read_config(folder))),
        facts=dict(_facts(folder)),
        summary=folder.read_summary(),
        prompts_sha256=folder.read_prompts().sha256 if (folder.path / PROMPTS).exists() else None,
        environment_changes=tuple(_environment_changes(folder)),
    )


def _read_config(folder: RunFolder) -> Mapping[str, Any]:
    """Return the recorded configuration; the one that Hydra composed where the run was refused before the record."""
    return folder.read_config() if (folder.path / CONFIG).exists() else folder.read_composed_config()


def _facts(folder: RunFolder) -> Iterator[tuple[str, Any]]:
    environment = folder.read_environment()
    if "os" in environment:
        yield "os", environment["os"]
        yield from ((f"settings.{name}", None) for name in _THREAD_SETTINGS)  # unset is a setting as well
    for section in ("provider", "packages", "git", "cpu", "settings", "machine_load"):
        for name, value in leaves(environment.get(section) or {}):
            if section != "git" or name == "commit":
                yield f"{section}.{name}", str(value)[:12] if section == "git" and value else value


def _environment_changes(folder: RunFolder) -> Iterator[str]:
    """Yield what changed from one process of the run to the next."""
    for before, after in pairwise(folder.read_environments()):
        yield from environment_changes(before, after)


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the last part of each path, with as many parts before as make the labels unique."""
    for depth in range(1, 4):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if max(Counter(labels).values(), default=1) == 1:
            return labels
    return [str(path) for path in paths]
