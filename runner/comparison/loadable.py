"""Decides whether a recorded model may be loaded to explain a pair of runs, and with which configuration."""

from pathlib import Path

from runner.comparison.load import Run
from runner.comparison.pairing import Pair
from runner.config.parse import parse
from runner.config.schema import ProviderConfig, RunConfig
from runner.errors import RunnerError, UsageError
from runner.providers.factory import provider_class
from runner.providers.protocols import GapProvider
from runner.text import first_line

_EMBEDDED = "embedded/"
"""Models that come with the product: their weights are checked against a published sha256."""
_NO_ARITHMETIC = ("git.", "limits.", "executor")
"""Settings and facts whose change moves no logit."""


def explainable_config(pair: Pair, *, model: Path | None) -> RunConfig | str:
    """Return the configuration that loads the model of both runs, or the reason why their differences stay unexplained.

    Device and dtype are those that the run resolved, so that another machine computes in the same dtype.

    Args:
        pair: texts of one model for the same request.
        model: weights to use instead of the recorded ones.
    """
    if pair.run.is_sampled:
        return "sampled texts depend on random numbers"
    differing = [entry.key for entry in pair.setting_differences if not entry.key.startswith(_NO_ARITHMETIC)]
    if differing:
        return f"the runs differ in {', '.join(differing)}, whose effect is no rounding inside a batch"
    try:
        config = parse(pair.run.folder.read_config())
        if not issubclass(provider_class(config), GapProvider):
            return no_gaps(config.provider.name)
    except RunnerError as error:
        return first_line(error)
    if model is None and (refusal := refuse_recorded_model(pair.run)):
        return refusal
    return _with_weights(config, pair.run, model)


def refuse_recorded_model(run: Run) -> str | None:
    """Return why the model that a run recorded is not loaded; None if it may be.

    A record is data: whoever wrote it must not decide what this machine downloads or executes. Embedded models are
    known; any other is loaded for the user's own runs only, and only as they began with it.
    """
    remedy = "give its weights with --model PATH"
    if run.settings.get("provider.trust_remote_code"):
        return f"the model {run.settings.get('model.id')!r} runs code of its own (provider.trust_remote_code): {remedy}"
    is_own = run.folder.is_own and run.folder.read_manifest().config == run.folder.read_config()
    loads_kernels = "/" in str(run.settings.get("provider.attn_implementation"))
    if is_own or (str(run.settings.get("model.id")).startswith(_EMBEDDED) and not loads_kernels):
        return None
    return f"run {run.label} is not one that you began here, and its model is not loaded unasked: {remedy}"


def no_gaps(provider: str) -> str:
    """Return why differences of a provider without GapProvider are not explained."""
    return f"provider {provider!r} does not give the logits of two tokens"


def check_weights(path: Path) -> Path:
    """Return the absolute path of a folder with safetensors, which hold no code.

    Raises:
        UsageError: the path is no such folder.
    """
    if not any(path.glob("*.safetensors")):
        raise UsageError(f"--model {str(path)!r} has no weights: give a model folder with *.safetensors")
    return path.absolute()


def _with_weights(config: RunConfig, run: Run, model: Path | None) -> RunConfig:
    resolved = {key: str(run.facts[f"provider.{key}"]).removesuffix(":0")
                for key in ("device", "dtype") if f"provider.{key}" in run.facts}  # fmt: skip
    settings = config.provider.model_dump(by_alias=True) | resolved
    weights: dict[str, str | None] = {}
    if model is not None:
        settings |= {"trust_remote_code": False, "attn_implementation": None}
        weights = {"id": str(model), "revision": None}
    provider = ProviderConfig.model_validate(settings)
    return config.model_copy(update={"provider": provider, "model": config.model.model_copy(update=weights)})
