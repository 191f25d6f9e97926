"""Owns how long the runner waits for people and services: one frozen value, which a test may shorten."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Maximum waits, in seconds.

    Attributes:
        grace_s: for requests in flight after an interrupt.
        throttled_s: for a prompt whose requests are throttled (429). If a service only throttles,
            the run ends after that time.
        publish_s: for one step of a slow MLflow store, after the run's end.
        connect_s: for the first answer of an MLflow server.
        store_retry_s: between two attempts to reach an MLflow store.
    """

    grace_s: float = 30.0
    throttled_s: float = 900.0
    publish_s: float = 60.0
    connect_s: float = 5.0
    store_retry_s: float = 10.0
