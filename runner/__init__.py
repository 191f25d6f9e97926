"""Batched text generation, measured: one configuration in, outcomes, metrics and an MLflow run out."""
