"""The configuration: its types and bounds, what is wrong with one, and secrets."""
