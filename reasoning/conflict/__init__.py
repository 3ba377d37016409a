"""Conflicting contexts: which source to follow, and why (KCR, arXiv 2508.01273).

    from reasoning.conflict import kcr_reward, kcr_rewards, resolve, extract_paths, build_instance

`instance` is the data, `extract`, `graph` and `paths` find chains of evidence, `completion` and `reward` judge what a
model wrote, `resolver` decides without a model, `sources`, `substitute`, `lengthen` and `balance` make instances,
`metrics` and `baselines` measure.
"""

from reasoning.conflict.instance import Context, Instance, Path, PathSet, Triple, build_instance, diagnose
from reasoning.conflict.paths import extract_paths, with_paths
from reasoning.conflict.resolver import conflict_paths, resolve
from reasoning.conflict.reward import Rules, kcr_reward, kcr_rewards

__all__ = [
    "Context",
    "Instance",
    "Path",
    "PathSet",
    "Rules",
    "Triple",
    "build_instance",
    "conflict_paths",
    "diagnose",
    "extract_paths",
    "kcr_reward",
    "kcr_rewards",
    "resolve",
    "with_paths",
]
