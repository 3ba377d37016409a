"""Preference models over K answers (Bradley-Terry, GPM, HRC) and the game their scores are."""
