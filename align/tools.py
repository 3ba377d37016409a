"""What a model may ask of preferences: which of several answers people like better, and what to do with a cycle."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from launch.errors import DataError
from launch.tools import data_path, tool, written

if TYPE_CHECKING:
    from align.preference import PreferenceModel


@tool(imports=["align.preference"], seconds=120, megabytes=16_384)
def score_answers(prompt: str, answers: list[str], model: str) -> dict[str, Any]:
    """Judge several answers to one prompt with a trained preference model.

    Args:
        prompt: The question or instruction that was answered.
        answers: The answers to compare.
        model: Folder of the preference model, below the data folder.

    Returns:
        win_probability[i][j], the chance in 0 to 1 that answer i is preferred to answer j; winner, the index of the
        answer that beats all others, null if they go in circles; mixture, the chance in 0 to 1 with which to give each
        answer so that none beats the mixture; cyclicity, the share in 0 to 1 of the scores that no ranking explains.
    """
    folder = data_path(model)
    scores = _model(str(folder), written(folder)).score(prompt, answers)
    return {
        "win_probability": scores.P.round(6),
        "winner": scores.winner,
        "mixture": scores.nash.round(6),
        "cyclicity": round(scores.cyclicity, 6),
    }


@lru_cache(maxsize=1)
def _model(folder: str, when: int) -> PreferenceModel:
    from align.preference import PreferenceModel

    return PreferenceModel.from_pretrained(folder).eval()


@tool(imports=["align.preference.game"], seconds=30, megabytes=1024)
def nash_mixture(win_probability: list[list[float]]) -> dict[str, Any]:
    """Find how often to give each of several options when preferences between them may go in circles.

    Args:
        win_probability: Square table; entry [i][j] is the chance in 0 to 1 that option i is preferred to option j.
            Entries [i][j] and [j][i] add up to 1, and entries [i][i] are 0.5.

    Returns:
        mixture, the chance in 0 to 1 with which to give each option so that no option beats the mixture; winner, the
        index of the option that beats all others, null if there is none; gap_of_uniform, by how much in 0 to 1 the best
        reply beats giving all options equally often; cyclicity, the share in 0 to 1 of the table that no ranking
        explains.
    """
    import numpy as np

    from align.preference import game

    sizes = {len(row) for row in win_probability}
    if sizes != {len(win_probability)}:
        raise DataError(
            f"win_probability has {len(win_probability)} rows of {sorted(sizes)} entries; it must be square"
        )
    P = np.array(win_probability, dtype=np.float64)
    if P.min() < 0 or P.max() > 1:
        raise DataError(f"win_probability goes from {P.min():g} to {P.max():g}; chances lie in 0 to 1")
    equilibrium = game.nash(P - 0.5)
    return {
        "mixture": equilibrium.mixture.round(9),
        "winner": game.condorcet_winner(P - 0.5),
        "gap_of_uniform": round(game.duality_gap(P, np.full(len(P), 1 / len(P))), 9),
        "cyclicity": round(game.cyclicity(P - 0.5), 9),
    }
