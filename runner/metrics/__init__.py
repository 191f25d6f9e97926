"""Metrics of a run, computed from its outcomes. A metric that does not exist for a run is absent."""
