"""What tokens cost. A price that is not known is None, never a guess.

genai-prices (offline snapshot) falls back silently: a model that it does not know may match by prefix (a nova-micro-v9
gets the price of v1), and an unknown context keeps the standard price. So only the very model counts, as a dated
snapshot or through an inference profile too, and a service tier other than the standard one has no looked-up price.
Its rates are read once, for its own sum of one request takes as long as a request to a quick server.
"""

import re
from dataclasses import dataclass
from typing import Any

from runner.config.schema import ModelConfig, PriceConfig
from runner.types import Completion, Outcome, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """US dollars per token, of requests with more than `above` input tokens: a long context costs more, all of it."""

    above: int
    input_usd: float
    cached_input_usd: float
    cache_written_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost, and where that is from. `rates` begin with those of the longest requests."""

    rates: tuple[Rates, ...]
    source: str

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return what these tokens cost at most in requests of ordinary length: none of them is from a cache.

        For sums and estimates; `usage_usd` knows one request's length and what its cache did.
        """
        usual = self.rates[-1]
        return input_tokens * usual.input_usd + output_tokens * usual.output_usd

    def usage_usd(self, usage: Usage, *, with_input: bool = True) -> float:
        """Return what one prompt and answer cost; the input of further answers to a prompt is not paid again."""
        rates = next(rates for rates in self.rates if usage.input_tokens > rates.above)
        output_usd = usage.output_tokens * rates.output_usd
        if not with_input:
            return output_usd
        plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_written_tokens
        return (
            output_usd
            + plain * rates.input_usd
            + usage.cached_input_tokens * rates.cached_input_usd
            + usage.cache_written_tokens * rates.cache_written_usd
        )


class Bill:
    """Adds up what outcomes cost."""

    def __init__(self, price: Price) -> None:
        self._price = price
        self.cost_usd = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add what one outcome cost; a failure costs nothing that is known."""
        if isinstance(outcome, Completion):
            self.cost_usd += self._price.usage_usd(outcome.usage, with_input=outcome.choice == 0)


def price_of(model: ModelConfig, price_catalog: str | None) -> Price | None:
    """Return the model's price: the configuration's, else the list's, else None."""
    if model.price is not None:
        return _stated(model.price)
    return None if price_catalog is None else _looked_up(model.id, price_catalog)


def _stated(price: PriceConfig) -> Price:
    cached = price.cached_input_usd_per_million
    input_usd = price.input_usd_per_million / 1e6
    rates = Rates(
        above=-1,
        input_usd=input_usd,
        cached_input_usd=input_usd if cached is None else cached / 1e6,
        cache_written_usd=input_usd,
        output_usd=price.output_usd_per_million / 1e6,
    )
    return Price(rates=(rates,), source="model.price")


def _looked_up(model_id: str, price_catalog: str) -> Price | None:
    import genai_prices

    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1, output_tokens=1), model_ref=model_id, provider_id=price_catalog
        )
    except LookupError:
        return None
    listed = found.model_price
    if (
        found.provider.id != price_catalog
        or not _is_same(model_id, found.model.id)
        or listed.input_mtok is None
        or listed.output_mtok is None
    ):
        return None
    return Price(
        rates=tuple(_rates(listed, above) for above in sorted({-1, *_thresholds(listed)}, reverse=True)),
        source=f"genai-prices {genai_prices.__version__}: {found.provider.id}/{found.model.id}",
    )


def _thresholds(listed: Any) -> set[int]:
    """Return the input tokens above which another price holds."""
    from genai_prices.types import TieredPrices

    return {tier.start for price in vars(listed).values() if isinstance(price, TieredPrices) for tier in price.tiers}


def _rates(listed: Any, above: int) -> Rates:
    """Have genai-prices price a request just above a threshold, once with each kind of token."""
    from genai_prices import Usage as Counted

    length = above + 2

    def of_input(**kind: int) -> float:
        return float(listed.calc_price(Counted(input_tokens=length, **kind))["input_price"] / length)

    return Rates(
        above=above,
        input_usd=of_input(),
        cached_input_usd=of_input(cache_read_tokens=length),
        cache_written_usd=of_input(cache_write_tokens=length),
        output_usd=float(listed.calc_price(Counted(input_tokens=length, output_tokens=1))["output_price"]),
    )


def _is_same(asked: str, found: str) -> bool:
    return asked == found or _bare(asked) == _bare(found)


def _bare(model_id: str) -> str:
    """Return the model's name without an ARN's path, an inference profile's prefix, or a snapshot's date."""
    name = re.sub(r"^(us|us-gov|eu|apac|jp|au|global|regional)\.", "", model_id.rpartition("/")[2])
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)
