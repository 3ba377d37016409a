"""From K scored samples of each prompt to the rows self-play trains on.

Selection (SPPO's and GPO's pipeline): chosen = argmax and rejected = argmin of the rank value mean_j (S_ij - S_ji),
ties to the lowest index; the soft targets are row means of P. Only those two answers are trained on, so the regression
is multiplicative weights on part of the support only; mode "all_k" trains on all K with their own targets.

A row is JSON: ``prompt, chosen, rejected, chosen_probs, chosen_probs_win, chosen_probs_lose`` (as the predecessors name
them), ``responses`` [K], ``P`` [K, K], and what training needs without tokenising again: ``prompt_ids``,
``response_ids`` [K], ``index`` (chosen, rejected), ``win_rates`` [K] and ``scores`` [K] (s_hat, logits). Nothing about
the schedule is in it: with lambda = 0 the file is SPPO's, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from align.selfplay.winrate import mean_scores, probabilities, rank_values, win_rates
from launch.contracts import Completion, Prompt
from launch.errors import ConfigError, DataError, check_choice
from launch.jsonlines import Lines

Mode = Literal["pair", "all_k"]
LossName = Literal["sppo", "sppo_single", "sppo_hard", "gpo"]
Row = dict[str, Any]


@dataclass
class PairDataset:
    """One round's rows, in prompt order. Behaves as a sequence of rows."""

    rows: Sequence[Row]
    mode: Mode = "pair"
    dropped: int = 0
    """Prompts without a row: all K answers equal, or equally good."""
    t: int = 0
    """Round, for logs only; not part of the rows."""
    P: list[np.ndarray] = field(default_factory=list)
    """[K, K] of every prompt, dropped ones included: what gap and histogram are measured on."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def to_bytes(self) -> bytes:
        """JSON lines, keys sorted, floats in their shortest exact form: equal rows give equal bytes."""
        return b"".join(_line(row) for row in self.rows)

    @property
    def hash(self) -> str:
        """sha256 of `to_bytes`."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(_line(row))
        return digest.hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write ``rows.jsonl`` (ours) and ``trl.jsonl`` (prompt/chosen/rejected); return the first."""
        folder = Path(folder)
        _write_header(folder, self.mode, self.dropped, self.t, _write_lines(folder, self.rows), self.P)
        return folder / "rows.jsonl"

    @classmethod
    def load(cls, folder: str | Path) -> PairDataset:
        """Open what `save` or `write_pairs` wrote; rows are read when they are asked for.

        Raises:
            DataError: a file is missing, or the rows are not those that were saved.
        """
        folder = Path(folder)
        try:
            header = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            with (folder / "rows.jsonl").open("rb") as rows:
                found = hashlib.file_digest(rows, "sha256").hexdigest()
            with np.load(folder / "P.npz") as tables:
                P = [tables[f"arr_{i}"] for i in range(len(tables.files))]
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"{folder} holds no pair dataset ({error}); run the round again") from error
        if found != header["hash"]:
            raise DataError(f"{folder}/rows.jsonl has changed since it was written; delete the folder and run again")
        return cls(Lines(folder / "rows.jsonl"), header["mode"], header["dropped"], header["t"], P)


def select(rank: np.ndarray) -> tuple[int, int]:
    """(chosen, rejected) = (argmax, argmin) of the rank values [K], ties to the lowest index; equal when all tie.

    Values within 1e-9 tie: rows that are permutations of each other sum to different last bits.
    """
    rank = np.round(rank, 9)
    return int(np.argmax(rank)), int(np.argmin(rank))


def make_row(
    prompt: Prompt, completions: Sequence[Completion], S: np.ndarray, legacy_double: bool = False
) -> tuple[Row | None, np.ndarray]:
    """One prompt's row and its table P [K, K]; the row is None when no two answers differ in text or in rank.

    Args:
        completions: the K samples.
        S: float [K, K], the logits the round is played with (`schedule.mixed_scores`).

    Raises:
        DataError: the table's size is not K, K < 2, or a score is not finite.
    """
    K = len(completions)
    if K < 2 or S.shape != (K, K):
        raise DataError(f"{K} answers with a score table {S.shape}; self-play needs K >= 2 answers and a [K, K] table")
    S = np.asarray(S, dtype=np.float64)
    P = probabilities(S, legacy_double)
    w, l = select(rank_values(S))  # noqa: E741
    if completions[w].text == completions[l].text:
        return None, P
    rates = win_rates(P)
    row = {
        "prompt": prompt,
        "chosen": completions[w].text,
        "rejected": completions[l].text,
        "chosen_probs": float(P[w, l]),
        "chosen_probs_win": float(rates[w]),
        "chosen_probs_lose": float(rates[l]),
        "responses": [completion.text for completion in completions],
        "P": P.tolist(),
        "win_rates": rates.tolist(),
        "scores": mean_scores(S, legacy_double).tolist(),
        "index": [w, l],
        "prompt_ids": list(completions[0].prompt_ids),
        "response_ids": [list(completion.token_ids) for completion in completions],
    }
    return row, P


def build_pairs(
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    tables: Sequence[np.ndarray],
    mode: Mode = "pair",
    legacy_double: bool = False,
    t: int = 0,
) -> PairDataset:
    """The dataset of one round: one row per prompt whose answers differ.

    Args:
        samples: K completions for each prompt.
        tables: float [K, K] mixed logits for each prompt.

    Raises:
        DataError: lists of unequal length, or a bad table (the prompt's index is named).
    """
    rows, P = zip(*pair_rows(prompts, samples, tables, legacy_double), strict=True) if prompts else ((), ())
    kept = [row for row in rows if row is not None]
    return PairDataset(kept, mode, len(rows) - len(kept), t, list(P))


def pair_rows(
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    tables: Sequence[np.ndarray] | np.ndarray,
    legacy_double: bool = False,
) -> Iterator[tuple[Row | None, np.ndarray]]:
    """`make_row` of every prompt, one at a time; arguments and errors are `build_pairs`'s."""
    if not len(prompts) == len(samples) == len(tables):
        raise DataError(f"{len(prompts)} prompts, {len(samples)} sample lists, {len(tables)} tables: must be equal")
    for i, (prompt, completions, S) in enumerate(zip(prompts, samples, tables, strict=True)):
        try:
            yield make_row(prompt, completions, S, legacy_double)
        except DataError as error:
            raise DataError(f"prompt {i}: {error}") from error


def write_pairs(folder: Path, found: Iterable[tuple[Row | None, np.ndarray]], mode: Mode = "pair", t: int = 0) -> None:
    """Write what `pair_rows` yields as `PairDataset.save` writes it, one row in memory at a time."""
    P: list[np.ndarray] = []

    def rows() -> Iterator[Row]:
        for row, table in found:
            P.append(table)
            if row is not None:
                yield row

    digest = _write_lines(folder, rows())
    _write_header(folder, mode, len(P) - len(Lines(folder / "rows.jsonl")), t, digest, P)


def _write_lines(folder: Path, rows: Iterable[Row]) -> str:
    """Write rows.jsonl and trl.jsonl; returns the first one's sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (folder / "rows.jsonl").open("wb") as ours, (folder / "trl.jsonl").open("wb") as trl:
        for row in rows:
            line = _line(row)
            digest.update(line)
            ours.write(line)
            trl.write(_line(trl_row(row)))
    return digest.hexdigest()


def _write_header(folder: Path, mode: Mode, dropped: int, t: int, digest: str, P: Sequence[np.ndarray]) -> None:
    header = {"mode": mode, "dropped": dropped, "t": t, "hash": digest}
    (folder / "dataset.json").write_text(json.dumps(header, sort_keys=True), encoding="utf-8")
    np.savez(folder / "P.npz", *P)


def check_mode(loss: str, mode: str) -> None:
    """Raise ConfigError for an unknown loss or mode, or a combination without a meaning."""
    check_choice("loss", loss, LossName)
    check_choice("mode", mode, Mode)
    if mode == "all_k" and loss in ("sppo_single", "sppo_hard"):
        raise ConfigError(f"loss {loss} is about one pair and has no targets for all K; use sppo or gpo", "mode")


def trl_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """``prompt, chosen, rejected`` as TRL's DPO trainer reads them, e.g. for ``loss_type="sppo_hard"``.

    A plain-text prompt gives three strings; a chat gives message lists, the answers as one assistant turn each.
    """
    if isinstance(row["prompt"], str):
        return {key: row[key] for key in ("prompt", "chosen", "rejected")}
    answers = {key: [{"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")}
    return {"prompt": row["prompt"], **answers}


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
