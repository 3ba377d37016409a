"""Small exact environments in which the truth is known."""
