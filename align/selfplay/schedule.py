"""How much of the ranking and of the cycle each round of self-play sees.

DSPPO ("Transitivity Meets Cyclicity", arXiv 2605.17342, section 5) plays round t against the game
s_t = (1 + w_t) S_T + (1 - w_t) S_C with w_t = lambda / sqrt(t), so early rounds follow the ranking and later rounds
the whole game S = S_T + S_C. SPPO is lambda = 0. The other decays are the paper's alternatives, reported there as not
consistently better. Theorem 5.3 needs mean_t |w_t| = O(1/sqrt T): 1/sqrt t and sin(pi/2t), with log T / T, have it,
t^(-1/3), with T^(-1/3), has not.

>>> coefficients(1), coefficients(4)
((2.0, 0.0), (1.5, 0.5))
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, TypeVar, cast, get_args

from launch.errors import ConfigError

ScheduleName = Literal["inv_sqrt", "inv_cbrt", "sine", "constant"]

SCHEDULES: dict[str, Callable[[int], float]] = {
    "inv_sqrt": lambda t: 1.0 / math.sqrt(t),
    "inv_cbrt": lambda t: 1.0 / t ** (1.0 / 3.0),
    "sine": lambda t: math.sin(math.pi / (2.0 * t)),
    "constant": lambda t: 0.0,
}
"""Decay of the round index t >= 1; lambda multiplies it. `constant` is the undisturbed game: SPPO, whatever lambda."""

assert set(SCHEDULES) == set(get_args(ScheduleName))

Array = TypeVar("Array")


def coefficients(t: int, lam: float = 1.0, schedule: str = "inv_sqrt") -> tuple[float, float]:
    """The weights of (S_T, S_C) in round `t` (1, 2, …): (1 + lam * decay(t), 1 - lam * decay(t)).

    A negative weight (|lam| > 1 in early rounds) rewards what the preference model says people dislike; it is allowed,
    because the paper's study goes there, and warned about.

    Raises:
        ConfigError: unknown schedule, t < 1, or a lambda that is not finite.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule {schedule!r} is not known; choose one of {', '.join(SCHEDULES)}")
    if t < 1:
        raise ConfigError(f"round t={t}: rounds count from 1")
    if not math.isfinite(lam):
        raise ConfigError(f"lam={lam} is not a finite number; the paper uses 1, SPPO is 0")
    offset = lam * SCHEDULES[schedule](t)
    weights = (1.0 + offset, 1.0 - offset)
    if min(weights) < 0:
        part = "transitive" if weights[0] < 0 else "cyclic"
        warnings.warn(
            f"round {t} with lam={lam} gives the {part} part the negative weight {min(weights):.3g}: the policy is "
            f"rewarded for being beaten in it; use |lam| <= 1 to avoid that",
            stacklevel=2,
        )
    return weights


def mixed_scores(S_T: Array, S_C: Array, t: int, lam: float = 1.0, schedule: str = "inv_sqrt") -> Array:
    """The logits round `t` is played with, from the two parts of a game.

    Args:
        S_T: ranking part, float [..., K, K], logits already divided by the model's tau (numpy or torch).
        S_C: cyclic part, same shape.

    Returns:
        s_t, same type and shape; skew-symmetric when both parts are.
    """
    transitive, cyclic = coefficients(t, lam, schedule)
    return cast(Array, transitive * S_T + cyclic * S_C)  # type: ignore[operator]
