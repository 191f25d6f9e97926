"""Batch modes: each turns pending prompts into a stream of outcomes. One file and one Mode value per mode."""
