"""Owns a run's budget in US dollars: what was spent, and the maximum cost of requests in flight."""

from collections.abc import Iterable

from runner.errors import BudgetError, ConfigError
from runner.pricing import Price
from runner.types import Generated, Outcome, Usage


class Budget:
    """What was spent, and what is reserved for requests in flight. Without a limit there is room for every request.

    Args:
        limit_usd: `limits.max_cost_usd`.
        price: what tokens cost; None where the price is not known.

    Raises:
        ConfigError: a limit is set and the price is not known.
    """

    def __init__(self, limit_usd: float | None, price: Price | None) -> None:
        if limit_usd is not None and price is None:
            raise ConfigError(
                f"limits.max_cost_usd={limit_usd} needs the model's price, which is not known: set "
                "model.price={input_usd_per_million: X, output_usd_per_million: Y} or leave limits.max_cost_usd unset"
            )
        self._limit_usd = limit_usd
        self._price = None if limit_usd is None else price
        self._spent_usd = self._reserved_usd = 0.0
        self._in_flight = 0

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of a request of these tokens; 0 without a limit."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return 0.0 if self._price is None else self._price.usage_usd(usage)

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Add the cost of outcomes to what was spent. Reads nothing without a limit."""
        if self._price is not None:
            self._spent_usd += sum(map(self._price.outcome_usd, outcomes))

    def refusal(self, max_cost_usd: float) -> BudgetError | None:
        """Return the error of a request that can never be sent; None if the requests in flight leave room for it."""
        if self._limit_usd is None or self._spent_usd + max_cost_usd <= self._limit_usd:
            return None
        return BudgetError(
            f"stopped before a request that could pass limits.max_cost_usd={self._limit_usd}: "
            f"${self._spent_usd:.6f} are spent, and this one could cost ${max_cost_usd:.6f} (all of "
            "generation.max_tokens, and an input token for every byte): raise the limit, or lower generation.max_tokens"
        )

    def has_room(self, max_cost_usd: float) -> bool:
        """Return whether there is room for a request beside those in flight."""
        return self._limit_usd is None or self._spent_usd + self._reserved_usd + max_cost_usd <= self._limit_usd

    def reserve(self, max_cost_usd: float) -> None:
        """Reserve a request's maximum cost."""
        self._in_flight += 1
        self._reserved_usd += max_cost_usd

    def settle(self, max_cost_usd: float, results: Iterable[Generated], *, may_be_billed: bool) -> None:
        """Release a request's reserved cost, and add the cost of its results.

        Where it failed and may be billed, its maximum cost is added.
        """
        self._in_flight -= 1
        # exactly 0 with nothing in flight: a rounding error left here would never be released
        self._reserved_usd = self._reserved_usd - max_cost_usd if self._in_flight else 0.0
        if may_be_billed:
            self._spent_usd += max_cost_usd
        if self._price is not None:
            for result in results:
                for choice, answer in enumerate(result.answers):
                    self._spent_usd += self._price.usage_usd(answer.usage, with_input=choice == 0)
