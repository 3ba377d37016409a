"""Preference models that keep cycles visible, and self-play toward the equilibrium."""
