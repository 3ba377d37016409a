"""Measurements: each module writes a JSON and a page under docs/results, and says the command that makes them."""
