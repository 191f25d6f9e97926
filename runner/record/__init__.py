"""A run's folder, whole, for everyone who reads or writes it."""
