"""A comparison as tables, plots, a page and JSON."""
