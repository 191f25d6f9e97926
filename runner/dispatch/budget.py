"""Owns a run's budget in US dollars: what was spent, and the maximum cost of requests in flight and of lost answers."""

from collections import Counter
from collections.abc import Iterable, Sequence

from runner.config.schema import GenerationParams
from runner.dispatch.call import max_input_tokens
from runner.errors import BudgetError, ConfigError
from runner.pricing import Price
from runner.types import Completion, Generated, Outcome, Prompt, Usage


class Budget:
    """What was spent, and what is reserved for requests in flight. Without a limit there is room for every request.

    Args:
        limit_usd: `limits.max_cost_usd`.
        price: what tokens cost; None where the price is not known.

    Raises:
        ConfigError: a limit is set, and the price is not known or is one of hours.
    """

    def __init__(self, limit_usd: float | None, price: Price | None) -> None:
        if limit_usd is not None and price is None:
            raise ConfigError(
                f"limits.max_cost_usd={limit_usd} needs the model's price, which is not known: set "
                "model.price={input_usd_per_million: X, output_usd_per_million: Y} or leave limits.max_cost_usd unset"
            )
        if limit_usd is not None and price and price.usd_per_hour:
            raise ConfigError(
                f"limits.max_cost_usd={limit_usd} needs a price of tokens, and model.price.usd_per_hour="
                f"{price.usd_per_hour} is one of time, whose cost no request knows before: leave limits.max_cost_usd "
                "unset"
            )
        self._limit_usd = limit_usd
        self._price = None if limit_usd is None else price
        self._spent_usd = self._reserved_usd = 0.0
        self._in_flight = 0

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._limit_usd is not None

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of a request of these tokens; 0 without a limit."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        return 0.0 if self._price is None else self._price.usage_usd(usage)

    def count(self, outcomes: Iterable[Outcome], prompts: Iterable[Prompt], params: GenerationParams) -> None:
        """Add the cost of outcomes, and the maximum cost of their lost answers, to what was spent.

        Reads nothing without a limit.
        """
        if self._price is None:
            return
        with_lost = []
        for outcome in outcomes:
            self._spent_usd += self._price.outcome_usd(outcome)
            if possibly_billed(outcome):
                with_lost.append(outcome)
        self._spent_usd += lost_usd(with_lost, prompts, params, self._price)

    def refusal(self, max_cost_usd: float) -> BudgetError | None:
        """Return the error of a request that can never be sent; None if the requests in flight leave room for it."""
        if self._limit_usd is None or self._spent_usd + max_cost_usd <= self._limit_usd:
            return None
        return BudgetError(
            f"stopped before a request that could pass limits.max_cost_usd={self._limit_usd}: "
            f"${self._spent_usd:.6f} are spent, and this one could cost ${max_cost_usd:.6f} (all of "
            "generation.max_tokens, and an input token for every byte): resume with a higher limit: "
            "python -m runner.resume RUN limits.max_cost_usd=USD"
        )

    def has_room(self, max_cost_usd: float) -> bool:
        """Return whether there is room for a request beside those in flight."""
        return self._limit_usd is None or self._spent_usd + self._reserved_usd + max_cost_usd <= self._limit_usd

    def reserve(self, max_cost_usd: float) -> None:
        """Reserve a request's maximum cost."""
        self._in_flight += 1
        self._reserved_usd += max_cost_usd

    def settle(self, max_cost_usd: float, results: Sequence[Generated], *, may_be_billed: bool) -> None:
        """Release a request's reserved cost, and add the cost of its results.

        Where it failed and may be billed, or has a result whose tokens are not known, its maximum cost is added.
        """
        self.release(max_cost_usd)
        usages = [answer.usage for result in results for answer in result.answers]
        if may_be_billed or None in usages:
            self._spent_usd += max_cost_usd
        else:
            self.spend(results)

    def release(self, max_cost_usd: float) -> None:
        """Release a request's reserved cost."""
        self._in_flight -= 1
        # exactly 0 with nothing in flight: a rounding error left here would never be released
        self._reserved_usd = self._reserved_usd - max_cost_usd if self._in_flight else 0.0

    def spend(self, results: Iterable[Generated]) -> None:
        """Add the cost of results; nothing for answers whose tokens are not known."""
        if self._price is None:
            return
        for result in results:
            for choice, answer in enumerate(result.answers):
                if answer.usage is not None:
                    self._spent_usd += self._price.usage_usd(answer.usage, with_input=choice == 0)


def possibly_billed(outcome: Outcome) -> int:
    """Return how many answers to the prompt may be billed without a count: lost ones, and a text without usage."""
    if outcome.choice:
        return 0
    return outcome.lost_answers + (isinstance(outcome, Completion) and outcome.usage is None)


def lost_usd(outcomes: Iterable[Outcome], prompts: Iterable[Prompt], params: GenerationParams, price: Price) -> float:
    """Return the maximum cost of answers that were lost after the service may have generated them, in US dollars.

    A lost answer costs at most the prompt's input tokens, or an upper bound of them where no answer has counted them,
    and `params.max_tokens` for each of `params.n` choices.

    Args:
        outcomes: of one run, superseded ones too: their lost answers may be billed as well.
        prompts: the run's prompts; read only where a prompt without an answer has lost answers.
        params: how the answers were generated.
        price: what tokens cost.
    """
    lost_by_tokens, lost_by_prompt = Counter[int](), Counter[str]()
    for outcome in outcomes:
        usage = outcome.usage if isinstance(outcome, Completion) else None
        if usage is not None:
            lost_by_tokens[usage.input_tokens] += possibly_billed(outcome)
        elif lost := possibly_billed(outcome):
            lost_by_prompt[outcome.prompt_id] += lost
    for prompt in prompts if lost_by_prompt else ():
        lost_by_tokens[max_input_tokens(prompt)] += lost_by_prompt[prompt.id]
    output_tokens = params.max_tokens * params.n
    return sum(
        lost * price.usage_usd(Usage(input_tokens=tokens, output_tokens=output_tokens))
        for tokens, lost in lost_by_tokens.items()
        if lost
    )
