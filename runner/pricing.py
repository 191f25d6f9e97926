"""What tokens cost. A price that is not known is None, never a guess.

genai-prices (an offline snapshot) falls back silently: a model that is not in its list may match by prefix
(nova-micro-v9 gets the price of v1), and an unknown context keeps the standard price. A listed price therefore counts
only if its model is the configured one, perhaps as a dated snapshot or through an inference profile. The rates are read
from genai-prices once: pricing one request there takes as long as a request to a fast server.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from runner.config.schema import ModelConfig, PriceConfig
from runner.types import Completion, Outcome, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """US dollars per token, for requests with more than `above_tokens` input tokens.

    A request over the threshold pays these rates for all of its tokens.
    """

    above_tokens: int
    input_usd: float
    cached_input_usd: float
    cache_written_usd: float
    output_usd: float

    def scaled(self, factor: float) -> "Rates":
        """Return these rates times a factor."""
        scaled = {name: value * factor for name, value in asdict(self).items() if name.endswith("_usd")}
        return replace(self, **scaled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, or the hours of the hardware that it runs on.

    Attributes:
        rates: begin with those of the longest requests; of hardware, whose tokens cost nothing, they are 0.
        source: the origin of the price.
        usd_per_hour: of the hardware; 0 where tokens are paid for.
    """

    rates: tuple[Rates, ...]
    source: str
    usd_per_hour: float = 0.0

    def discounted(self, ratio: float, source: str) -> "Price":
        """Return the price of tokens with a share of it taken off.

        Args:
            ratio: the share.
            source: who says so.
        """
        rates = tuple(rates.scaled(1 - ratio) for rates in self.rates)
        return replace(self, rates=rates, source=f"{self.source} x {1 - ratio:g} ({source})")

    def time_usd(self, seconds: float) -> float:
        """Return the cost of the hardware for this time in US dollars."""
        return self.usd_per_hour * seconds / 3600

    def usage_usd(self, usage: Usage, *, with_input: bool = True) -> float:
        """Return the cost of one prompt and one answer; `with_input=False` for a prompt's second answer and later."""
        rates = next(rates for rates in self.rates if usage.input_tokens > rates.above_tokens)
        output_usd = usage.output_tokens * rates.output_usd
        if not with_input:
            return output_usd
        uncached_tokens = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_written_tokens)
        return (
            output_usd
            + uncached_tokens * rates.input_usd
            + usage.cached_input_tokens * rates.cached_input_usd
            + usage.cache_written_tokens * rates.cache_written_usd
        )

    def outcome_usd(self, outcome: Outcome) -> float:
        """Return the cost of one outcome; 0 for a failure and for a text without usage: their tokens are not known."""
        if not isinstance(outcome, Completion) or outcome.usage is None:
            return 0.0
        return self.usage_usd(outcome.usage, with_input=outcome.choice == 0)


def find_price(model: ModelConfig, price_catalog: str | None) -> Price | None:
    """Return the model's price from the configuration, or else from the catalog; None if neither has it."""
    if model.price is not None and model.price.has_price:
        return _configured_price(model.price)
    return None if price_catalog is None else _catalog_price(model.id, price_catalog)


def recorded_price(environment: Mapping[str, Any]) -> Price | None:
    """Return the price that a run's environment.json has; None where it has none, as in records of older versions."""
    record = environment.get("price")
    return record and Price(**{**record, "rates": tuple(Rates(**rates) for rates in record["rates"])})


def _configured_price(price: PriceConfig) -> Price:
    cached = price.cached_input_usd_per_million
    input_usd = (price.input_usd_per_million or 0.0) / 1e6
    rates = Rates(
        above_tokens=-1,
        input_usd=input_usd,
        cached_input_usd=input_usd if cached is None else cached / 1e6,
        cache_written_usd=input_usd,
        output_usd=(price.output_usd_per_million or 0.0) / 1e6,
    )
    if price.usd_per_hour is None:
        return Price(rates=(rates,), source="model.price")
    return Price(rates=(rates,), source="model.price.usd_per_hour", usd_per_hour=price.usd_per_hour)


def _catalog_price(model_id: str, price_catalog: str) -> Price | None:
    import genai_prices
    from genai_prices.types import TieredPrices

    try:
        match = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1, output_tokens=1), model_ref=model_id, provider_id=price_catalog
        )
    except LookupError:
        return None
    prices = match.model_price
    if (
        match.provider.id != price_catalog
        or _base_name(model_id) != _base_name(match.model.id)
        or prices.input_mtok is None
        or prices.output_mtok is None
    ):
        return None
    tiers = (price.tiers for price in vars(prices).values() if isinstance(price, TieredPrices))
    thresholds = {-1, *(tier.start for tier in itertools.chain.from_iterable(tiers))}
    return Price(
        rates=tuple(_rates(prices, above_tokens) for above_tokens in sorted(thresholds, reverse=True)),
        source=f"genai-prices {genai_prices.__version__}: {match.provider.id}/{match.model.id}",
    )


def _rates(prices: Any, above_tokens: int) -> Rates:
    """Return the rates above a threshold, from genai-prices' costs of requests just above it, one per kind of token."""
    from genai_prices import Usage as CatalogUsage

    length = above_tokens + 2
    input_usd, cached_input_usd, cache_written_usd = (
        float(prices.calc_price(CatalogUsage(input_tokens=length, **cache))["input_price"] / length)
        for cache in ({}, {"cache_read_tokens": length}, {"cache_write_tokens": length})
    )
    return Rates(
        above_tokens=above_tokens,
        input_usd=input_usd,
        cached_input_usd=cached_input_usd,
        cache_written_usd=cache_written_usd,
        output_usd=float(prices.calc_price(CatalogUsage(input_tokens=length, output_tokens=1))["output_price"]),
    )


def _base_name(model_id: str) -> str:
    """Return the model's name without an ARN's path, an inference profile's prefix, or a snapshot's date."""
    name = re.sub(r"^(us|us-gov|eu|apac|jp|au|global|regional)\.", "", model_id.rpartition("/")[2])
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)
