"""A mode turns a list of prompts into a stream of outcomes. One file per mode; modes.py names them."""
