"""A run's folder: all reading and writing of its files."""
