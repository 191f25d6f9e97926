"""Imports what a tracking worker imports, for a server that forks workers."""

from runner.tracking import worker
from runner.tracking.store import store_errors

with store_errors(""):  # which imports MLflow, with the settings of a worker
    assert worker
