"""Schedules, win rates, selection and the pure losses: numbers derived by hand, and laws."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.selfplay import objective, pairs, schedule, winrate
from launch.contracts import Completion
from launch.errors import ConfigError, DataError


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def random_parts(rng: np.random.Generator, k: int) -> tuple[np.ndarray, np.ndarray]:
    f = rng.normal(size=k) * 3
    C = rng.normal(size=(k, k)) * 3
    return f[:, None] - f[None, :], (C - C.T) / 2


def samples(n: int, k: int, rng: np.random.Generator) -> list[list[Completion]]:
    def one(i: int, j: int) -> Completion:
        ids = tuple(int(x) for x in rng.integers(3, 30, size=4))
        return Completion(f"answer {i} {j}\u2028é", ids, (-1.0,) * 4, "stop", (1, 5, 6 + i))

    return [[one(i, j) for j in range(k)] for i in range(n)]


# ---------------------------------------------------------------- acceptance 1 and 8


def test_dsppo_acceptance_1_coefficients() -> None:
    """1 +- 1/sqrt(t): t = 2 gives 0.7071, t = 3 gives 0.5774."""
    expected = {1: (2.0, 0.0), 2: (1.7071, 0.2929), 3: (1.5774, 0.4226)}
    for t, pair in expected.items():
        assert schedule.coefficients(t) == pytest.approx(pair, abs=1e-4)
    assert schedule.coefficients(8, schedule="inv_cbrt") == pytest.approx((1.5, 0.5))  # 8^(1/3) = 2
    assert schedule.coefficients(3, schedule="sine") == pytest.approx((1.5, 0.5))  # sin(pi/6) = 1/2
    assert schedule.coefficients(3, schedule="constant") == (1.0, 1.0)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_dsppo_acceptance_1_limit_is_the_whole_game(name: str) -> None:
    S_T, S_C = random_parts(np.random.default_rng(0), 5)
    far = schedule.mixed_scores(S_T, S_C, 10**12, 1.0, name)
    assert np.abs(far - (S_T + S_C)).max() < 2e-3
    distance = [np.abs(schedule.mixed_scores(S_T, S_C, t, 1.0, name) - (S_T + S_C)).max() for t in (1, 10, 100)]
    assert distance == sorted(distance, reverse=True)


def test_dsppo_acceptance_1_lambda_0_is_sppo_byte_for_byte() -> None:
    """Every schedule at lambda 0 gives the bytes of the plain game S_T + S_C, in every round."""
    rng = np.random.default_rng(1)
    texts, parts = samples(6, 5, rng), [random_parts(rng, 5) for _ in range(6)]
    prompts = [f"prompt {i}" for i in range(6)]
    sppo = pairs.build_pairs(prompts, texts, [S_T + S_C for S_T, S_C in parts])
    for t, name in enumerate(schedule.SCHEDULES, 1):
        tables = [schedule.mixed_scores(S_T, S_C, t, 0.0, name) for S_T, S_C in parts]
        dsppo = pairs.build_pairs(prompts, texts, tables, t=t)
        assert dsppo.to_bytes() == sppo.to_bytes()
    changed = pairs.build_pairs(prompts, texts, [schedule.mixed_scores(S_T, S_C, 1, 1.0) for S_T, S_C in parts])
    assert changed.to_bytes() != sppo.to_bytes()


@given(
    seed=st.integers(0, 10**6), t=st.integers(1, 50), lam=st.floats(-3, 3), name=st.sampled_from([*schedule.SCHEDULES])
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_dsppo_acceptance_1_P_is_a_preference(seed: int, t: int, lam: float, name: str) -> None:
    S_T, S_C = random_parts(np.random.default_rng(seed), 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = schedule.mixed_scores(30 * S_T, 30 * S_C, t, lam, name)
    P = winrate.probabilities(s)
    assert P.min() >= 0 and P.max() <= 1
    assert np.abs(P + P.T - 1).max() < 1e-12
    assert np.diag(P) == pytest.approx(0.5)


def test_dsppo_acceptance_8_bt_plug_in() -> None:
    """Without a cyclic part, DSPPO's data are SPPO's on scores times (1 + lambda / sqrt t)."""
    rng = np.random.default_rng(2)
    S_T, _ = random_parts(rng, 5)
    texts = samples(1, 5, rng)
    for t, lam in [(1, 1.0), (2, 0.5), (3, -0.5)]:
        dsppo = pairs.build_pairs(["p"], texts, [schedule.mixed_scores(S_T, 0 * S_T, t, lam)])
        sppo = pairs.build_pairs(["p"], texts, [(1 + lam / np.sqrt(t)) * S_T])
        assert dsppo.rows[0]["index"] == sppo.rows[0]["index"]
        assert dsppo.rows[0]["win_rates"] == pytest.approx(sppo.rows[0]["win_rates"], abs=1e-12)


def test_negative_weight_warns_and_bad_names_are_refused() -> None:
    with pytest.warns(UserWarning, match="cyclic part the negative weight -1"):
        schedule.coefficients(1, 2.0)
    with pytest.warns(UserWarning, match="transitive"):
        schedule.coefficients(1, -2.0)
    with pytest.raises(ConfigError, match="inv_sqrt"):
        schedule.coefficients(1, 1.0, "linear")
    with pytest.raises(ConfigError, match="count from 1"):
        schedule.coefficients(0)


# ---------------------------------------------------------------- acceptance 3


def test_dsppo_acceptance_3_win_rate() -> None:
    """K = 5: head-to-head (.9, .8, .7, .6) and itself .5: (.9 + .8 + .7 + .6 + .5) / 5 = 3.5 / 5 = .70."""
    S = np.zeros((5, 5))
    S[0, 1:] = logit(np.array([0.9, 0.8, 0.7, 0.6]))
    S -= S.T
    assert winrate.win_rates(winrate.probabilities(S))[0] == pytest.approx(0.70)


def test_dsppo_acceptance_3_doubling() -> None:
    """A skew table with s = 1 is sigmoid(1) = .7311; the predecessor's S_ij - S_ji gives sigmoid(2) = .8808."""
    S = np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert winrate.probabilities(S)[0, 1] == pytest.approx(0.7311, abs=1e-4)
    assert winrate.probabilities(S, legacy_double=True)[0, 1] == pytest.approx(0.8808, abs=1e-4)


def test_torch_and_numpy_agree_and_batches_are_rows() -> None:
    S = np.random.default_rng(3).normal(size=(4, 5, 5))
    for function in (winrate.probabilities, winrate.mean_scores, winrate.rank_values):
        whole = function(S)
        assert function(torch.tensor(S)).numpy() == pytest.approx(whole, abs=1e-12)
        assert np.stack([function(one) for one in S]) == pytest.approx(whole, abs=1e-15)
    assert winrate.mean_scores(S).mean(-1) == pytest.approx(np.zeros(4), abs=1e-12)  # GPO needs no normaliser


def test_non_finite_scores_are_refused_with_the_prompt() -> None:
    S = np.zeros((2, 2))
    S[0, 1] = np.nan
    with pytest.raises(DataError, match=r"prompt 1: .*NaN"):
        pairs.build_pairs(["a", "b"], samples(2, 2, np.random.default_rng(0)), [np.zeros((2, 2)), S])


def test_histogram_counts_everything() -> None:
    """-.5 and .5 fall in the end bins, as does what rounding puts beyond them."""
    h = winrate.histogram([-0.5, -0.5000001, 0.0, 0.5], bins=4)
    assert h["edges"] == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert h["counts"] == [2, 0, 1, 1]


# ---------------------------------------------------------------- selection


def test_selection_is_by_rank_value_not_by_win_rate() -> None:
    """Answer 0 beats one rival by far (logit 9) and loses to one (-1): rank 8/3. Answer 1 beats both a little
    (1 and 1.. against 0: +1, against 2: +1): rank 2/3 but P_hat .65 above answer 0's .59."""
    S = np.array([[0, -1.0, 9.0], [1.0, 0, 1.0], [-9.0, -1.0, 0]])
    row, P = pairs.make_row("p", samples(1, 3, np.random.default_rng(0))[0], S)
    assert row is not None and row["index"] == [0, 2]
    assert winrate.win_rates(P).argmax() == 1
    assert row["chosen_probs"] == pytest.approx(1 / (1 + np.exp(-9)))
    assert row["chosen_probs_win"] == pytest.approx(P[0].mean())
    assert row["chosen_probs_lose"] == pytest.approx(P[2].mean())


def test_ties_go_to_the_lowest_index() -> None:
    assert pairs.select(np.array([1.0, 2.0, 2.0, 0.0, 0.0])) == (1, 3)
    assert pairs.select(np.array([0.1 + 0.2, 0.3, 0.0])) == (0, 2)  # last-bit differences are ties
    assert pairs.select(np.zeros(3)) == (0, 0)


def test_rows_whose_answers_agree_are_dropped_and_counted() -> None:
    rng = np.random.default_rng(4)
    texts = samples(3, 3, rng)
    texts[1] = [texts[1][0]] * 3
    tables = [np.array([[0, 1, 2], [-1, 0, 1], [-2, -1, 0.0]])] * 2 + [np.zeros((3, 3))]
    dataset = pairs.build_pairs(["a", "b", "c"], texts, tables)
    assert len(dataset) == 1 and dataset.dropped == 2 and len(dataset.P) == 3
    with pytest.raises(DataError, match="K >= 2"):
        pairs.build_pairs(["a"], [texts[0][:1]], [np.zeros((1, 1))])


def test_dataset_file_round_trip_and_trl_rows(tmp_path) -> None:
    rng = np.random.default_rng(5)
    chat = [{"role": "user", "content": "a?"}]
    tables = [sum(random_parts(rng, 3)) for _ in range(2)]
    dataset = pairs.build_pairs(["plain\u2028", chat], samples(2, 3, rng), tables, "all_k", t=2)
    dataset.save(tmp_path)
    again = pairs.PairDataset.load(tmp_path)
    assert again.hash == dataset.hash and list(again.rows) == dataset.rows and again.mode == "all_k" and again.t == 2
    assert np.array_equal(again.P[1], dataset.P[1])
    plain, talk = [json.loads(line) for line in (tmp_path / "trl.jsonl").read_text().split("\n") if line]
    assert plain == {key: dataset.rows[0][key] for key in ("prompt", "chosen", "rejected")}
    assert talk["prompt"] == chat and talk["chosen"] == [{"role": "assistant", "content": dataset.rows[1]["chosen"]}]
    (tmp_path / "rows.jsonl").write_text((tmp_path / "rows.jsonl").read_text().replace("answer", "anzwer"))
    with pytest.raises(DataError, match="has changed"):
        pairs.PairDataset.load(tmp_path)


def test_pairs_written_one_by_one_are_those_that_are_saved(tmp_path) -> None:
    rng = np.random.default_rng(6)
    texts = samples(5, 3, rng)
    texts[2] = [texts[2][0]] * 3  # a dropped one in between
    prompts, tables = [f"p{i}" for i in range(5)], np.stack([sum(random_parts(rng, 3)) for _ in range(5)])
    pairs.build_pairs(prompts, texts, list(tables), "all_k", True, 3).save(tmp_path / "list")
    pairs.write_pairs(tmp_path / "rows", pairs.pair_rows(prompts, texts, tables, True), "all_k", 3)
    for name in ("rows.jsonl", "trl.jsonl", "dataset.json"):
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / "list" / name).read_bytes()
    one, two = (pairs.PairDataset.load(tmp_path / name) for name in ("rows", "list"))
    assert one.dropped == 1 and all(np.array_equal(a, b) for a, b in zip(one.P, two.P, strict=True))


# ---------------------------------------------------------------- acceptance 2: losses


def test_dsppo_acceptance_2_loss_fixture() -> None:
    """a = 0, P = .8 and .3, beta .001: (300^2 + 200^2)/2 = 65000; hard: 2 * 500^2 = 500000, by the formula of TRL's
    ``sppo_hard`` (importing TRL itself would cost 12 s): (a_w - .5/beta)^2 + (a_l + .5/beta)^2."""
    zero = torch.zeros(1, dtype=torch.float64)
    soft = objective.sppo_loss(zero, zero, torch.tensor([0.8]).double(), torch.tensor([0.3]).double(), 1e-3)
    assert soft.item() == pytest.approx(65000, rel=1e-6)
    assert objective.sppo_hard_loss(zero, zero, 1e-3).item() == pytest.approx(500000)
    single = objective.sppo_single_loss(zero, zero, torch.tensor([0.8]).double(), 1e-3)
    assert single.item() == pytest.approx(90000, rel=1e-6)  # 300^2 twice, halved


def test_dsppo_acceptance_2_gradient_zero_at_targets() -> None:
    a = torch.tensor([300.0, -200.0], dtype=torch.float64, requires_grad=True)
    p = torch.tensor([0.8, 0.3], dtype=torch.float64)
    objective.sppo_loss(a[0], a[1], p[0], p[1], 1e-3).backward()
    assert a.grad is not None and a.grad.abs().max() < 1e-9
    off = torch.tensor([301.0, -200.0], dtype=torch.float64, requires_grad=True)
    objective.sppo_loss(off[0], off[1], p[0], p[1], 1e-3).backward()
    assert off.grad is not None and off.grad[0].item() == pytest.approx(1.0)  # d/da of (a - 300)^2 / 2


def test_gpo_loss_clamps_its_targets() -> None:
    """s = 2 at beta .001 asks for 2000 nats, clamped to 1000: (1000^2 + 500^2)/2 = 625000."""
    zero = torch.zeros(1, dtype=torch.float64)
    loss = objective.gpo_loss(zero, zero, torch.tensor([2.0]).double(), torch.tensor([-0.5]).double(), 1e-3)
    assert loss.item() == pytest.approx(625000)


@pytest.mark.parametrize("loss", ["sppo", "sppo_single", "sppo_hard", "gpo"])
def test_row_targets_equal_the_pure_losses(loss: pairs.LossName) -> None:
    rng = np.random.default_rng(6)
    row, _ = pairs.make_row("p", samples(1, 4, rng)[0], sum(random_parts(rng, 4)))
    assert row is not None
    which, target = objective.targets(row, loss, "pair", 0.1)
    a = torch.tensor(rng.normal(size=2))
    total = objective.objective_scale(loss, "pair", 4) * ((a - torch.tensor(target)) ** 2).sum()
    w, l = row["index"]  # noqa: E741
    soft = [torch.tensor(row[key]) for key in ("chosen_probs_win", "chosen_probs_lose")]
    pure = {
        "sppo": lambda: objective.sppo_loss(a[0], a[1], *soft, 0.1),
        "sppo_single": lambda: objective.sppo_single_loss(a[0], a[1], torch.tensor(row["chosen_probs"]), 0.1),
        "sppo_hard": lambda: objective.sppo_hard_loss(a[0], a[1], 0.1),
        "gpo": lambda: objective.gpo_loss(a[0], a[1], *(torch.tensor(row["scores"][i]) for i in (w, l)), 0.1),
    }[loss]()
    assert which == [w, l] and total.item() == pytest.approx(pure.item(), rel=1e-6)


def test_all_k_loss_is_the_mean_over_answers() -> None:
    """Errors 1 and 3: (1 + 9) / 2 = 5."""
    assert objective.all_k_loss(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).item() == 5
    assert objective.objective_scale("sppo", "all_k", 5) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="one pair"):
        pairs.check_mode("sppo_hard", "all_k")


def test_anchor_shift_is_centred_and_pulls_back() -> None:
    """Log-ratios to the start (3, 1, 2), mean 2, gamma .5: -(1, -1, 0) / 2."""
    shift = objective.anchor_shift(torch.tensor([3.0, 1.0, 2.0]), 0.5)
    assert shift.tolist() == [-0.5, 0.5, 0.0]
