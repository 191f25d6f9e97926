"""Hydra's sweeper for this runner; Hydra finds plugins in the namespace package `hydra_plugins` only."""
