"""What tokens cost. A price that is not known is None, never a guess.

genai-prices (offline snapshot) falls back silently: a model that it does not know may match by prefix (a nova-micro-v9
gets the price of v1), and an unknown context keeps the standard price. So only the very model counts, as a dated
snapshot or through an inference profile too, and a service tier other than the standard one has no looked-up price.
"""

import re
from dataclasses import dataclass

from runner.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per token, and where that is from."""

    input_usd: float
    output_usd: float
    source: str

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return what these tokens cost."""
        return input_tokens * self.input_usd + output_tokens * self.output_usd


def price_of(model: ModelConfig, price_list: str | None) -> Price | None:
    """Return the model's price: the configuration's, else the list's, else None."""
    if model.price is not None:
        stated = model.price
        return Price(
            input_usd=stated.input_usd_per_million / 1e6,
            output_usd=stated.output_usd_per_million / 1e6,
            source="model.price",
        )
    return None if price_list is None else _looked_up(model.id, price_list)


def _looked_up(model_id: str, price_list: str) -> Price | None:
    import genai_prices

    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1, output_tokens=1), model_ref=model_id, provider_id=price_list
        )
    except LookupError:
        return None
    if (
        found.provider.id != price_list
        or not _is_same(model_id, found.model.id)
        or found.input_price is None
        or found.output_price is None
    ):
        return None
    return Price(
        input_usd=float(found.input_price),
        output_usd=float(found.output_price),
        source=f"genai-prices {genai_prices.__version__}: {found.provider.id}/{found.model.id}",
    )


def _is_same(asked: str, found: str) -> bool:
    return asked == found or _bare(asked) == _bare(found)


def _bare(model_id: str) -> str:
    """Return the model's name without an ARN's path, an inference profile's prefix, or a snapshot's date."""
    name = re.sub(r"^(us|us-gov|eu|apac|jp|au|global|regional)\.", "", model_id.rpartition("/")[2])
    return re.sub(r"-\d{4}-\d{2}-\d{2}$", "", name)
