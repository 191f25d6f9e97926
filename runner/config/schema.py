"""Owns types and bounds of the configuration. YAML owns the values: a key of a YAML file has no default here."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from runner.config.secrets import QUERY_NAMES, has_password, has_secret_query, has_user, is_variable_name

_PACKAGE = Path(__file__).resolve().parents[1]
CONF_DIR = next(path for path in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if path.is_dir())
"""In a wheel inside the package; in a clone beside the package."""

BatchMode = Literal["static", "continuous", "concurrent", "job"]
NonEmptyStr = Annotated[str, StringConstraints(min_length=1)]


def _variable_name(text: str) -> str:
    if not is_variable_name(text):
        raise ValueError("give the name of the environment variable that holds the key, not the key")
    return text


def web_address(text: str) -> str:
    """Return an http address unchanged.

    Raises:
        ValueError: the text is no http address, or has a user name, a password or a query in it, which would be written
            to disk. The message does not repeat the text.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # whose message repeats the address
        usable = False
    if not usable or has_user(text) or has_secret_query(text):
        raise ValueError(
            "give an address: http(s)://HOST[:PORT][/PATH], without a user name, a password or a query "
            f"(but {', '.join(QUERY_NAMES)})"
        )
    return text


VariableName = Annotated[NonEmptyStr, AfterValidator(_variable_name)]
Address = Annotated[NonEmptyStr, AfterValidator(web_address)]
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)


class Section(BaseModel):
    """A part of the configuration: frozen, without unknown keys, without conversion of types."""

    model_config = STRICT


class PriceConfig(Section):
    """US dollars per million tokens, or per hour of the hardware. Cached input without a price costs as other input.

    `batch_discount` is the share that a batch job takes off the price, the catalog's where no other is set; null is the
    service's own.
    """

    input_usd_per_million: NonNegativeFloat | None = None
    output_usd_per_million: NonNegativeFloat | None = None
    cached_input_usd_per_million: NonNegativeFloat | None = None
    usd_per_hour: PositiveFloat | None = None
    batch_discount: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def has_price(self) -> bool:
        """Whether there is a price, and not a discount alone."""
        return {self.input_usd_per_million, self.usd_per_hour} != {None}

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        prices = self.input_usd_per_million, self.output_usd_per_million
        if self.batch_discount is not None and {*prices, self.usd_per_hour} == {None}:
            return self
        if self.usd_per_hour is None and None in prices:
            raise ValueError("set input_usd_per_million and output_usd_per_million, or usd_per_hour for own hardware")
        if self.usd_per_hour is not None and {*prices, self.cached_input_usd_per_million} != {None}:
            raise ValueError(
                f"usd_per_hour={self.usd_per_hour} is the whole price of own hardware: set it without prices per "
                "million tokens"
            )
        return self


class ModelConfig(Section):
    """The model: a hub id, a folder, a deployment or a service's model name. `price` null looks the price up."""

    id: NonEmptyStr
    revision: NonEmptyStr | None
    price: PriceConfig | None


class GenerationConfig(Section):
    """How to generate. Temperature 0 is greedy; `max_tokens` counts new tokens only; `n` is answers per prompt."""

    max_tokens: PositiveInt
    temperature: Annotated[float, Field(ge=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    top_k: PositiveInt | None
    stop_sequences: Annotated[tuple[NonEmptyStr, ...], Field(strict=False)]
    n: PositiveInt

    @model_validator(mode="after")
    def _refuse_sampling_keys_when_greedy(self) -> Self:
        ignored = " and ".join(name for name in ("top_p", "top_k") if getattr(self, name) is not None)
        if self.temperature == 0 and ignored:
            raise ValueError(
                f"temperature=0 is greedy, where {ignored} would have no effect: unset {ignored} "
                "or set temperature above 0"
            )
        return self


class GenerationParams(GenerationConfig):
    """The generation section and the seed of a call: what a provider takes."""

    seed: int


class PromptsConfig(Section):
    """Source of the prompts: a file, or a dataset of the Hugging Face hub."""

    path: NonEmptyStr | None
    format: Literal["jsonl", "csv", "parquet", "txt"] | None
    dataset: NonEmptyStr | None
    subset: NonEmptyStr | None
    split: NonEmptyStr | None
    revision: NonEmptyStr | None
    text_field: NonEmptyStr
    messages_field: NonEmptyStr
    id_field: NonEmptyStr
    limit: PositiveInt | None
    system: NonEmptyStr | None

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("set exactly one of path (a file) and dataset (a hub id)")
        return self


MAX_REQUESTS_IN_FLIGHT = 1024
"""Upper bound of the requests in flight that batch.size=auto tries."""


class BatchConfig(Section):
    """How prompts reach the model. `mode` null is the provider's default mode.

    `size` auto finds the number of requests in flight that a service sustains (mode concurrent), or is as many prompts
    as the service takes (mode job). `warmup` auto generates the first batch unmeasured until its time settles. `detach`
    leaves batch jobs once they are submitted.
    """

    mode: BatchMode | None
    size: PositiveInt | Literal["auto"]
    order: Literal["length", "given"]
    warmup: NonNegativeInt | Literal["auto"]
    detach: bool

    @property
    def count(self) -> int:
        """`size` as a number; for auto, the upper bound of what is tried."""
        return MAX_REQUESTS_IN_FLIGHT if self.size == "auto" else self.size


class LimitsConfig(Section):
    """Limits of requests, and when a run stops. null is no limit."""

    max_attempts: PositiveInt
    timeout_s: PositiveFloat
    requests_per_minute: PositiveFloat | None
    tokens_per_minute: PositiveFloat | None
    max_cost_usd: PositiveFloat | None
    max_failures: NonNegativeInt | Annotated[float, Field(gt=0, lt=1)] | None


_NO_FILE = re.compile(r"sqlite:///(file:)?(:memory:|\s)*(\?.*)?")
_STORES = ("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql", "databricks")


class TrackingConfig(Section):
    """The MLflow store, and how many outcomes become traces. `uri` null does not log to MLflow."""

    uri: NonEmptyStr | None
    traces: Literal["sample", "all", "off"]

    @model_validator(mode="after")
    def _check_uri(self) -> Self:
        if self.uri is None:
            return self
        if has_password(self.uri) or has_secret_query(self.uri):
            raise ValueError(
                "the uri has a password or a query in it, and would be written to disk: give it without, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN (for a database: its "
                f"own, such as PGPASSWORD). Of a query, {' and '.join(QUERY_NAMES)} may stay"
            )
        if not self.uri.startswith(_STORES):
            raise ValueError(
                f"uri={self.uri!r} is not an MLflow store: use sqlite:///FILE or http://HOST:PORT, or "
                "tracking=off for none"
            )
        if _NO_FILE.fullmatch(self.uri):
            raise ValueError(f"uri={self.uri!r} names no file, so that the record would be lost: use sqlite:///FILE")
        return self


class ProviderConfig(BaseModel):
    """The provider: `_target_` names a class below runner.providers, the other keys are its constructor's arguments."""

    model_config = STRICT | ConfigDict(extra="allow")
    target: Annotated[str, StringConstraints(pattern=r"^runner\.providers\.\w+\.\w+$")] = Field(alias="_target_")

    @property
    def name(self) -> str:
        """The provider's name: that of its module."""
        return self.target.split(".")[2]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The constructor's arguments."""
        return self.__pydantic_extra__ or {}


class RunConfig(Section):
    """The whole configuration of one run. `repeat` only numbers equal runs and changes no result."""

    name: NonEmptyStr
    seed: NonNegativeInt
    repeat: PositiveInt
    provider: ProviderConfig
    model: ModelConfig
    generation: GenerationConfig
    prompts: PromptsConfig
    batch: BatchConfig
    limits: LimitsConfig
    tracking: TrackingConfig

    def params(self, *, seed: int | None = None) -> GenerationParams:
        """Return the generation parameters, with the run's seed unless another is given."""
        return GenerationParams(**self.generation.model_dump(), seed=self.seed if seed is None else seed)

    def with_mode(self, mode: BatchMode) -> "RunConfig":
        """Return this configuration with its batch mode resolved."""
        return self.model_copy(update={"batch": self.batch.model_copy(update={"mode": mode})})

    @property
    def label(self) -> str:
        """A name that distinguishes runs in a list: provider, model, mode and size."""
        model = self.model.id.rpartition("/")[2]
        return " ".join(dict.fromkeys((self.provider.name, model, str(self.batch.mode), str(self.batch.size))))

    def differences(self, other: "RunConfig") -> list[str]:
        """Return one text per key whose value differs in `other`."""
        here, there = self.flat(), other.flat()
        names = dict.fromkeys((*here, *there))
        return [
            f"{name}={here.get(name)!r}, and now {there.get(name)!r}"
            for name in names
            if here.get(name) != there.get(name)
        ]

    def flat(self) -> dict[str, Any]:
        """Return every leaf under its dotted name, which is also its Hydra override."""
        return dict(leaves(self.model_dump(by_alias=True)))


def leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value that is not a section, with its dotted name."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
