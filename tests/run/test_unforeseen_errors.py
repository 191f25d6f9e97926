"""An exception that nobody foresaw, in a call of a local model: its prompts fail, the run goes on, its record is closed."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import app
from runner.batching.base import PendingPrompts
from runner.batching.modes import MODES
from runner.config.schema import BatchConfig, GenerationParams, RunConfig
from runner.errors import UnforeseenError
from runner.providers.echo import EchoProvider
from runner.providers.factory import build
from runner.record.folder import RunFolder
from runner.run.result import OnOutcomes, SilentObserver
from runner.types import Completion, Failure, Generated, Outcome, Prompt, Timing
from tests.conftest import Compose
from tests.factories import numbered, prompts, summary_of

UNKNOWN = "ж"
"""A token that the tokenizer has and the model's embedding lacks."""


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, whose tokenizer got a token without the model being resized: torch raises an IndexError at it."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([UNKNOWN])
    tokenizer.save_pretrained(folder)
    return folder


def composed(config: Compose, model: Path, folder: Path, texts: Sequence[str], *overrides: str) -> RunConfig:
    (folder / "p.txt").write_text("\n".join(texts))
    return config(
        f"model.id={model}", "provider.device=cpu", "generation.max_tokens=4", "batch.mode=static", "batch.order=given",
        "prompts=file", f"prompts.path={folder / 'p.txt'}", *overrides,
    )  # fmt: skip


def outcomes_of(run: Path) -> list[Outcome]:
    return list(RunFolder(run).outcomes.read())


@pytest.mark.parametrize("warmup", ["1", "0"])
def test_a_batch_in_which_torch_raises_fails_alone(warmup: str, config: Compose, model: Path, tmp_path: Path):
    texts = [UNKNOWN, "bb", "cc", "dd", "ee", "ff"]
    result = app.run(composed(config, model, tmp_path, texts, "batch.size=2", f"batch.warmup={warmup}"), tmp_path / "r")
    outcomes = outcomes_of(tmp_path / "r")
    assert [isinstance(outcome, Completion) for outcome in outcomes] == [False, False, True, True, True, True]
    failed = outcomes[0]
    assert isinstance(failed, Failure)
    assert (failed.error.type, failed.error.retryable) == ("IndexError", False)
    assert "index out of range" in failed.error.message
    assert failed.model == str(model)
    assert (result.status, result.metrics["completed_prompts"], result.metrics["failed_prompts"]) == ("FINISHED", 4, 2)


def test_three_batches_in_a_row_that_raise_the_same_end_the_run_in_order(config: Compose, model: Path, tmp_path: Path):
    texts = ["aa", *[UNKNOWN] * 8]
    with pytest.raises(UnforeseenError, match="3 batches in a row failed with IndexError: index out of range"):
        app.run(composed(config, model, tmp_path, texts, "batch.size=1", "batch.warmup=0"), tmp_path / "r")
    assert [isinstance(outcome, Completion) for outcome in outcomes_of(tmp_path / "r")] == [True, False, False, False]
    summary = summary_of(tmp_path / "r")
    assert (summary.status, summary.error and summary.error["type"]) == ("FAILED", "UnforeseenError")
    assert (summary.metrics["completed_prompts"], summary.metrics["failed_prompts"]) == (1, 3)


def test_an_answered_batch_between_two_that_raise_lets_the_run_go_on(config: Compose, model: Path, tmp_path: Path):
    texts = [UNKNOWN, UNKNOWN, "aa", UNKNOWN, UNKNOWN, "bb"]
    result = app.run(composed(config, model, tmp_path, texts, "batch.size=1", "batch.warmup=0"), tmp_path / "r")
    assert (result.status, result.metrics["completed_prompts"], result.metrics["failed_prompts"]) == ("FINISHED", 2, 4)


class Breaking(EchoProvider):
    """Raises once it comes to the prompt "3", as an engine would whose step fails for all that are in it."""

    def _generate(self, prompt: Prompt, params: GenerationParams, timing: Timing) -> Generated:
        if prompt.text == "3":
            raise LookupError("slot 3")
        return super()._generate(prompt, params, timing)


def test_prompts_that_are_alive_in_continuous_batching_fail_and_the_others_are_generated(config: Compose):
    echo = config("provider=echo", "batch.mode=continuous", "batch.size=2")
    provider = Breaking(model=echo.model, **echo.provider.settings)
    pending = PendingPrompts(prompts=numbered(7), model_id="m")
    calls = MODES["continuous"].generate(provider, pending, echo.params(), echo.batch)
    ended = {outcome.prompt_id: outcome for call in calls for outcome in call}
    assert list(ended) == [f"p{number}" for number in range(7)]
    failed = {prompt: outcome for prompt, outcome in ended.items() if isinstance(outcome, Failure)}
    assert list(failed) == ["p3", "p4"], "3 raises while 3 and 4 are alive"
    assert {(outcome.error.type, outcome.batch) for outcome in failed.values()} == {
        ("LookupError", 3),
        ("LookupError", 4),
    }


def test_three_calls_in_a_row_that_raise_the_same_end_continuous_batching(config: Compose):
    class Broken(EchoProvider):
        def _generate(self, prompt: Prompt, params: GenerationParams, timing: Timing) -> Generated:
            raise LookupError("no slot")

    echo = config("provider=echo", "batch.mode=continuous", "batch.size=2")
    provider = Broken(model=echo.model, **echo.provider.settings)
    calls = MODES["continuous"].generate(
        provider, PendingPrompts(prompts=numbered(40), model_id="m"), echo.params(), echo.batch
    )
    ended: list[Outcome] = []
    with pytest.raises(UnforeseenError, match="3 batches in a row failed with LookupError: no slot"):
        ended.extend(outcome for call in calls for outcome in call)
    assert [outcome.prompt_id for outcome in ended] == [f"p{number}" for number in range(6)], "3 calls with 2 alive"


def test_a_provider_that_raises_before_it_takes_a_prompt_ends_the_run_with_its_error(config: Compose):
    class Broken(EchoProvider):
        def generate_continuously(self, *_: object) -> Iterator[tuple[Prompt, Generated]]:
            raise LookupError("no engine")

    echo = config("provider=echo", "batch.mode=continuous")
    provider = Broken(model=echo.model, **echo.provider.settings)
    batch = BatchConfig(mode="continuous", size=2, order="given", warmup=0, detach=False)
    with pytest.raises(LookupError, match="no engine"):
        list(MODES["continuous"].generate(provider, PendingPrompts(prompts=prompts("a")), echo.params(), batch))


class FullTerminal(SilentObserver):
    """An observer that raises at the third call's outcomes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    @contextmanager
    def generating(self, total: int, *, completed: int) -> Iterator[OnOutcomes]:
        calls = iter([None, None, self._error])

        def count(_: Sequence[Outcome]) -> None:
            if error := next(calls):
                raise error

        yield count


@pytest.mark.parametrize("error", [ZeroDivisionError("an observer's"), MemoryError(), SystemExit(3)], ids=repr)
def test_whatever_ends_a_run_its_record_is_closed_with_its_metrics(
    error: BaseException, config: Compose, tmp_path: Path
):
    composed = config("provider=echo", "batch.mode=static", "batch.size=2", "prompts.limit=10")
    assert build(composed).is_local
    with pytest.raises(type(error)):
        app.run(composed, tmp_path / "r", observer=FullTerminal(error))
    summary = summary_of(tmp_path / "r")
    assert (summary.status, summary.metrics["completed_prompts"]) == ("FAILED", 6)
    assert summary.error
    assert type(error).__name__ in summary.error["message"]
    assert app.resume(tmp_path / "r").metrics["completed_prompts"] == 10
