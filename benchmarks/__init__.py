"""Measurements of the runner itself. Each module is a command: python -m benchmarks.NAME. Read the ratios."""
