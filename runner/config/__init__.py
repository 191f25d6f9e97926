"""The configuration: types and bounds, messages for wrong values, secrets."""
