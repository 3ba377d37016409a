"""The regression of self-play: losses on summed log-ratios, the anchor, and the Objective that trains with them.

With a(y) = log pi(y|x) - log pi_t(y|x) in nats, SUMMED over the answer's tokens, and beta = 1/eta:

    sppo        [(a_w - (P_w - 1/2)/beta)^2 + (a_l - (P_l - 1/2)/beta)^2] / 2   P_w, P_l: win rates (arXiv 2405.00675)
    sppo_single the same with targets +-(P(w > l) - 1/2)/beta
    sppo_hard   (a_w - 1/(2 beta))^2 + (a_l + 1/(2 beta))^2                        TRL's DPO loss_type, no factor 1/2
    gpo         sppo with P - 1/2 replaced by s_hat, the target clamped            (arXiv 2410.02197; reconstructed)
    all_k       mean over all K answers of (a_k - target_k)^2, targets as in sppo or gpo

At beta = 0.001 these begin at 1e4 to 1e6 per pair: that is the size of the targets, not divergence.

The anchor (option, not in those papers). The target of answer y gets

    - gamma * (log pi_t(y)/pi_0(y) - mean over the K samples of the same),

so with an exact fit pi_{t+1} is proportional to pi_t^(1-gamma) pi_0^gamma exp(eta P_hat(y > pi_t)). The mean over K
estimates KL(pi_t || pi_0), the pi_t-average of the log-ratio, and so keeps the targets centred, as the 1/2 does.
This is magnetic mirror descent (Sokota et al. 2023, arXiv 2206.05825) with the start as magnet:

    argmax_pi  eta' <P pi_t, pi> - eta' alpha KL(pi || pi_0) - KL(pi || pi_t)
        =  [ pi_t pi_0^(alpha eta') exp(eta' P pi_t) ]^(1 / (1 + alpha eta'))  up to the normaliser,

which is ours at gamma = alpha eta'/(1 + alpha eta') and eta = eta'/(1 + alpha eta'); hence alpha = gamma/eta and
eta' = eta/(1 - gamma). Its fixed point log pi = log pi_0 + (P pi - 1/2)/alpha + const is the equilibrium of the game
P(pi > pi') - alpha KL(pi||pi_0) + alpha KL(pi'||pi_0), and the LAST policy converges to it linearly when
eta' <= alpha/L^2 with L = max |P - 1/2| <= 1/2, that is

    eta L <= sqrt(gamma (1 - gamma)),        always true for eta <= 2 sqrt(gamma (1 - gamma)).

The price is a bias: the limit is the equilibrium of the regularised game, whose gap in the game itself grows with
alpha = gamma beta. A weaker pull ends nearer to the truth and takes longer. Nash-MD (Munos et al. 2024, arXiv
2312.00886) has the same limit but mixes the opponent toward pi_0 as well; here it stays pi_t, whose samples we have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch

from align.selfplay.pairs import LossName, check_mode
from align.selfplay.winrate import TARGET_CLAMP
from launch.contracts import Completion, Loss
from launch.counters import Work, work_metrics
from launch.errors import ConfigError, DataError
from launch.logprob import Targets, completion_logprobs, completion_logprobs_packed, layout_for, pack_answers
from launch.packing import Layout
from launch.rendering import Renderer, pad

Tensor = torch.Tensor


def sppo_loss(a_w: Tensor, a_l: Tensor, p_win: Tensor, p_lose: Tensor, beta: float) -> Tensor:
    """SPPO's soft loss, [B] from log-ratios [B] (nats) and win rates [B] in [0, 1]."""
    return ((a_w - (p_win - 0.5) / beta) ** 2 + (a_l - (p_lose - 0.5) / beta) ** 2) / 2


def sppo_single_loss(a_w: Tensor, a_l: Tensor, p: Tensor, beta: float) -> Tensor:
    """SPPO from the head-to-head probability P(w > l) alone, [B]."""
    return ((a_w - (p - 0.5) / beta) ** 2 + (a_l + (p - 0.5) / beta) ** 2) / 2


def sppo_hard_loss(a_w: Tensor, a_l: Tensor, beta: float) -> Tensor:
    """TRL's ``sppo_hard``, [B]: win rates fixed to 1 and 0, no factor 1/2."""
    return (a_w - 0.5 / beta) ** 2 + (a_l + 0.5 / beta) ** 2


def gpo_loss(
    a_w: Tensor, a_l: Tensor, s_win: Tensor, s_lose: Tensor, beta: float, clamp: float = TARGET_CLAMP
) -> Tensor:
    """GPO's regression, [B], from mean scores [B] in logits; targets clamped to +-`clamp` nats."""
    t_w, t_l = (s_win / beta).clamp(-clamp, clamp), (s_lose / beta).clamp(-clamp, clamp)
    return ((a_w - t_w) ** 2 + (a_l - t_l) ** 2) / 2


def all_k_loss(a: Tensor, targets: Tensor) -> Tensor:
    """Mean over K of (a - target)^2, [B] from [B, K]: the regression on the whole sample."""
    return ((a - targets) ** 2).mean(-1)


def anchor_shift(log_ratio_to_start: Tensor, gamma: float) -> Tensor:
    """- gamma * (log pi_t/pi_0 - its mean over K), [..., K] nats: what the anchor adds to the targets of K samples."""
    return -gamma * (log_ratio_to_start - log_ratio_to_start.mean(-1, keepdim=True))


def targets(row: Mapping[str, Any], loss: LossName, mode: str, beta: float) -> tuple[list[int], list[float]]:
    """Which of a row's K answers are trained on, and their target log-ratios in nats (anchor not included).

    Raises:
        ConfigError: a loss that has no target for all K answers, in mode "all_k".
    """
    w, l = row["index"]  # noqa: E741
    if loss == "gpo":
        every = [max(-TARGET_CLAMP, min(TARGET_CLAMP, s / beta)) for s in row["scores"]]
    else:
        every = [(p - 0.5) / beta for p in row["win_rates"]]
    if mode == "all_k":
        check_mode(loss, mode)
        return list(range(len(every))), every
    if loss == "sppo_single":
        half = (row["chosen_probs"] - 0.5) / beta
        return [w, l], [half, -half]
    if loss == "sppo_hard":
        return [w, l], [0.5 / beta, -0.5 / beta]
    return [w, l], [every[w], every[l]]


@dataclass(frozen=True)
class Example:
    """One prompt's trained answers: what `SelfPlayObjective.collate` takes."""

    ids: list[list[int]]
    """[k] sequences, prompt and answer, already cut."""
    prompt_lengths: list[int]
    targets: list[float]
    """[k] target log-ratios in nats, anchor included."""
    reference: list[float]
    """[k] log pi_t(y|x), summed over the answer's tokens, nats."""


class SelfPlayObjective:
    """Fits log-ratios to targets; one unit of the loss is one prompt.

    Examples are mappings with the fields of `Example` (see `examples`). No answer is given an end-of-sequence token
    it did not sample, and the reference pass read the same cut sequences, so truncation cannot differ between them.

    Args:
        scale: weight of one prompt's squared error sum: 1/2 for soft pairs, 1 for hard ones, 1/K for all_k.
        pad_id: any token id; it is masked.
        chunk: positions whose logits exist at once; 0: by memory (`launch.head.LOGIT_BYTES`).
        layout: "shared" reads a prompt once for its answers. "padded", one row an answer, is the twin to read and to
            test against, and what `launch.logprob.layout_for` picks for architectures that cannot be packed.
        kernel: the model's attention kernel (`launch.masks.kernel_of`), which decides what padding costs in the report;
            "": one that takes a mask over whole rows. It changes no number of the training.
    """

    def __init__(
        self, scale: float, pad_id: int = 0, chunk: int = 0, layout: Layout = "shared", kernel: str = ""
    ) -> None:
        self.scale, self.pad_id, self.chunk, self.layout, self.kernel = scale, pad_id, chunk, layout, kernel

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The answers of all prompts as one batch; ``"count"`` is the number of prompts."""
        batch = self.encode(
            [ids for example in examples for ids in example["ids"]],
            [n for example in examples for n in example["prompt_lengths"]],
        )
        return batch | {
            "targets": torch.tensor([t for example in examples for t in example["targets"]], dtype=torch.float32),
            "reference": torch.tensor([r for example in examples for r in example["reference"]], dtype=torch.float32),
            "count": float(len(examples)),
        }

    def encode(self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> dict[str, Any]:
        """What `logprobs` reads, for answers given as prompt and answer ids in one list."""
        if self.layout == "padded":
            ids, mask = pad(sequences, self.pad_id)
            starts = torch.tensor(prompt_lengths)
            completion = mask & (torch.arange(ids.shape[1]) >= starts[:, None])
            return {
                "input_ids": ids,
                "attention_mask": mask,
                "completion_mask": completion,
                **Work.padded(mask, completion).facts(),
            }
        packed, targets = pack_answers(sequences, prompt_lengths, self.pad_id, self.layout == "shared")
        return {**packed.tensors(), **targets._asdict(), **Work.packed(packed, len(targets.token), self.kernel).facts()}

    def logprobs(self, model: torch.nn.Module, batch: Mapping[str, Any], answers: int) -> Tensor:
        """log p of each answer of an `encode`d batch, summed over its tokens, nats: float32 [answers]."""
        if self.layout == "padded":
            masks = (batch["attention_mask"], batch["completion_mask"])
            return completion_logprobs(model, batch["input_ids"], *masks, chunk=self.chunk)
        packed = {key: batch[key] for key in ("input_ids", "position_ids", "tree", "branch")}
        targets = Targets(batch["source"], batch["token"], batch["answer"])
        return completion_logprobs_packed(model, **packed, targets=targets, answers=answers, chunk=self.chunk)

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        """Sum over prompts of scale * sum_k (a_k - target_k)^2."""
        target = batch["targets"]
        a = self.logprobs(model, batch, len(target)) - batch["reference"]  # [N], N = answers of all prompts
        total = self.scale * ((a - target) ** 2).sum()
        with torch.no_grad():
            n = batch["count"]
            per = n / len(a)  # sums over answers, given as sums over prompts: the trainer divides by prompts
            metrics: dict[str, Any] = {
                "log_ratio": a.sum() * per,
                "log_ratio_abs": a.abs().sum() * per,
                "target_abs": target.abs().sum() * per,
                "agreement": ((a * target) > 0).float().sum() * per,
                "answer_tokens": batch["work_head"] * per,
            }
        return Loss(total, n, metrics | work_metrics(batch))


def objective_scale(loss: LossName, mode: str, k: int) -> float:
    """What `SelfPlayObjective` weighs a prompt's squared errors with, so that it equals the pure losses above."""
    return 1.0 / k if mode == "all_k" else 1.0 if loss == "sppo_hard" else 0.5


def encode_row(row: Mapping[str, Any], renderer: Renderer) -> tuple[list[list[int]], list[int]]:
    """The K sequences of a row under `renderer` (cut "prompt_left", end "keep"), and their prompt lengths.

    Raises:
        ConfigError: the renderer would add an end token.
        DataError: token ids are missing: the answers were sampled by a server that returns text alone.
    """
    if renderer.end != "keep":
        raise ConfigError("self-play needs Renderer(end='keep'): an answer cut while sampling must not be given an end")
    if not row["prompt_ids"] or not all(row["response_ids"]):
        raise DataError("a row has no token ids; sample with a generator that returns them (hf, vllm, a vLLM server)")
    encoded = [
        renderer.encode_sampled(Completion("", tuple(ids), (), "stop", tuple(row["prompt_ids"])))
        for ids in row["response_ids"]
    ]
    return [e.ids for e in encoded], [e.prompt_length for e in encoded]


def reference_logprobs(
    model: torch.nn.Module,
    rows: Sequence[Mapping[str, Any]],
    renderer: Renderer,
    batch_size: int = 8,
    chunk: int = 0,
    layout: Layout | None = None,
) -> list[list[float]]:
    """log p(y_k | x) of every row's K answers under `model`, summed over tokens, nats; model unchanged.

    Computed once per (policy, dataset) and stored: training then needs no second model in memory. Rows go through in
    batches of `batch_size` prompts; values depend neither on it nor on `layout` (None: the fastest that is exact)
    beyond float32 rounding.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    objective = SelfPlayObjective(1.0, chunk=chunk, layout=layout or layout_for(model)[0])
    out: list[list[float]] = []
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            part = [encode_row(row, renderer) for row in rows[start : start + batch_size]]
            sequences = [ids for answers, _ in part for ids in answers]
            batch = objective.encode(sequences, [n for _, lengths in part for n in lengths])
            moved = {key: x.to(device) if isinstance(x, torch.Tensor) else x for key, x in batch.items()}
            values = objective.logprobs(model, moved, len(sequences)).tolist()
            for answers, _ in part:
                out.append(values[: len(answers)])
                values = values[len(answers) :]
    model.train(training)
    return out


def examples(
    rows: Sequence[Mapping[str, Any]],
    reference: Sequence[Sequence[float]],
    renderer: Renderer,
    *,
    loss: LossName = "sppo",
    mode: str = "pair",
    beta: float = 1e-3,
    gamma: float = 0.0,
    start: Sequence[Sequence[float]] | None = None,
) -> Examples:
    """Rows and cached log-probabilities to what the objective trains on.

    Args:
        reference: log pi_t of each row's K answers (`reference_logprobs` of the round's starting policy).
        gamma: the anchor's pull, in [0, 1); needs `start`, log pi_0 of the same answers.

    Raises:
        ConfigError: beta <= 0, gamma outside [0, 1), or gamma without `start`.
        DataError: reference values for another number of rows.
    """
    check_mode(loss, mode)
    if beta <= 0:
        raise ConfigError(f"beta={beta} must be positive; it is 1/eta (the paper uses 0.001)", "beta")
    if not 0 <= gamma < 1 or (gamma and start is None):
        raise ConfigError(f"anchor gamma={gamma} must lie in [0, 1) and needs the starting policy's log-probabilities")
    if len(reference) != len(rows):
        raise DataError(f"{len(reference)} reference values for {len(rows)} rows; compute them on this dataset")
    return Examples(rows, reference, renderer, loss, mode, beta, gamma, start)


@dataclass(frozen=True)
class Examples(Sequence[dict[str, Any]]):
    """What `examples` returns: a plain dict of `Example`'s fields for each row, made when it is asked for."""

    rows: Sequence[Mapping[str, Any]]
    reference: Sequence[Sequence[float]]
    renderer: Renderer
    loss: LossName
    mode: str
    beta: float
    gamma: float
    start: Sequence[Sequence[float]] | None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        row, reference = self.rows[at], self.reference[at]
        ids, lengths = encode_row(row, self.renderer)
        which, target = targets(row, self.loss, self.mode, self.beta)
        if self.gamma:
            assert self.start is not None
            drift = torch.tensor(reference).double() - torch.tensor(self.start[at]).double()
            shift = anchor_shift(drift, self.gamma).tolist()
            target = [value + shift[k] for value, k in zip(target, which, strict=True)]
        example = Example(
            [ids[k] for k in which], [lengths[k] for k in which], target, [float(reference[k]) for k in which]
        )
        return dict(vars(example))
