"""How long the product waits for others: one frozen value, which a test may replace by shorter waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds.

    Attributes:
        grace_s: after an interrupt, for requests in flight.
        throttled_s: a prompt may be throttled for so long; a service that answers nothing else then ends the run.
        publish_s: after a run's end, for one step of a slow MLflow store.
        connect_s: for an MLflow server that has not answered once: it may accept connections and never answer.
        store_retry_s: between attempts to reach an MLflow store.
    """

    grace_s: float = 30.0
    throttled_s: float = 900.0
    publish_s: float = 60.0
    connect_s: float = 5.0
    store_retry_s: float = 10.0
