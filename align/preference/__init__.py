"""Preference models over K answers (Bradley-Terry, GPM, HRC) and the game that their scores are.

Importing this registers the model type with transformers, so that ``AutoModel.from_pretrained`` loads one.
"""

from align.preference.model import PreferenceConfig, PreferenceModel, register
from align.preference.score import Scores

register()

__all__ = ["PreferenceConfig", "PreferenceModel", "Scores"]
