"""What a run may still spend, in US dollars: what was spent, and what requests in flight can cost at most."""

from collections.abc import Iterable

from runner.errors import BudgetError, ConfigError
from runner.pricing import Price
from runner.types import Completion, Generated, Outcome, Usage


class Budget:
    """What was spent and what is set aside for requests in flight. Without a limit it has room for everything.

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
        """Return what a request of these tokens costs; nothing where there is no limit to keep."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return 0.0 if self._price is None else self._price.usage_usd(usage)

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Count what outcomes cost: a prompt's input once, every answer's output. They may be a stream."""
        if self._price is None:
            return
        for outcome in outcomes:
            if isinstance(outcome, Completion):
                self._spent_usd += self._price.usage_usd(outcome.usage, with_input=outcome.choice == 0)

    def refusal(self, max_cost_usd: float) -> BudgetError | None:
        """Return why a request can never be sent, if so: it could pass the limit whatever those in flight cost."""
        if self._limit_usd is None or self._spent_usd + max_cost_usd <= self._limit_usd:
            return None
        return BudgetError(
            f"stopped before a request that could pass limits.max_cost_usd={self._limit_usd}: "
            f"${self._spent_usd:.6f} are spent, and this one could cost ${max_cost_usd:.6f} (all of generation.max_tokens, "
            "and an input token for every byte): raise the limit, or lower generation.max_tokens"
        )

    def has_room(self, max_cost_usd: float) -> bool:
        """Return whether a request fits beside those in flight; they give back what they do not cost."""
        return self._limit_usd is None or self._spent_usd + self._reserved_usd + max_cost_usd <= self._limit_usd

    def reserve(self, max_cost_usd: float) -> None:
        """Set aside the most that a request can cost."""
        self._in_flight += 1
        self._reserved_usd += max_cost_usd

    def settle(self, max_cost_usd: float, results: Iterable[Generated], *, lost: bool) -> None:
        """Replace what was set aside by what the request cost: all of it, if its answer was lost."""
        self._in_flight -= 1
        # sums of fractions leave a rest, and a rest that nothing in flight gives back would be waited for in vain
        self._reserved_usd = self._reserved_usd - max_cost_usd if self._in_flight else 0.0
        if lost:
            self._spent_usd += max_cost_usd
        if self._price is not None:
            for result in results:
                for choice, answer in enumerate(result.answers):
                    self._spent_usd += self._price.usage_usd(answer.usage, with_input=choice == 0)
