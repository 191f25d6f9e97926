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
        publish_whole_s: for all steps; the process that publishes then goes on by itself.
        worker_s: until that process ends, counted from the run's end; a resume publishes the rest.
        connect_s: for the first answer of an MLflow server.
        min_poll_s, max_poll_s: from one poll of a batch job to the next; waits grow while nothing changes.
        store_retry_s: between two attempts to reach an MLflow store.
    """

    grace_s: float = 30.0
    throttled_s: float = 900.0
    publish_s: float = 60.0
    publish_whole_s: float = 600.0
    worker_s: float = 3600.0
    connect_s: float = 5.0
    min_poll_s: float = 1.0
    max_poll_s: float = 60.0
    store_retry_s: float = 10.0
