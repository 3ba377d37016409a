"""Arena-Hard: verdicts read as both versions read them, ratings against the official fits done naively, the laws."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from launch.errors import ConfigError, DataError
from tasks.benchmarks import arena_hard as ah
from tasks.benchmarks.arena_hard import rating, style
from tasks.benchmarks.arena_hard.verdicts import Battle
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.intervals import percentile_interval

LABELS = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("reply", "v01", "ask_on", "v2"),
    [
        ("", None, True, None),
        ("Both are fine.", None, True, None),
        ("My final verdict is: [[A>B]]", "A>B", False, "A>B"),
        ("[[A>>B]]", "A>>B", False, "A>>B"),
        ("[[A=B]]", "A=B", False, "A=B"),
        ("[[B>A]]", "B>A", False, "B>A"),
        ("[[B>>A]].\n", "B>>A", False, "B>>A"),
        ("[[A>B]] ... so [[A>B]]", "A>B", False, "A>B"),
        ("[[A>>B]] ... no: [[B>A]]", None, False, "B>A"),
        ("[[A=B]] [[A>B]] [[A=B]]", None, False, "A=B"),
        ("[A>B]", None, True, "A>B"),
        ("[A>B] then [B>A]", None, True, "B>A"),
        ("[B>>A] but [[A>B]]", "A>B", False, "A>B"),
        ("[[a>b]]", None, True, "A>B"),
        ("[[A>b]]", None, True, "A>B"),
        ("[[A > B]]", None, True, None),
        ("[[C]]", None, True, None),
        ("[[B<A]]", "B<A", False, "B<A"),
        ("[[]]", None, True, None),
        ("**[[A<<B]]**", "A<<B", False, "A<<B"),
    ],
)
def test_preference_eval_acceptance_6_verdicts(reply, v01, ask_on, v2):
    assert ah.verdict_v01(reply) == (v01, ask_on)
    assert ah.verdict_v2(reply) == v2


def judged(label_1: str | None, label_2: str | None, uid: str = "q", model: str = "m", **more: Any) -> dict[str, Any]:
    return {"uid": uid, "model": model, "judge": "j", "games": [{"score": label_1}, {"score": label_2}], **more}


def test_battles_and_outcomes_by_hand():
    """Game 1 B>>A: the model (B) wins three times. Game 2 A=B: a tie. Together 3.5 of 4 outcomes, by both rules."""
    row = judged("B>>A", "A=B", category="hard_prompt")
    battles = ah.battles_v01([row], "base")
    assert [battle.winner for battle in battles] == ["model_b"] * 3 + ["tie"]
    assert ah.win_rates(battles, "base") == {"base": 0.5, "m": 3.5 / 4}
    outcomes, dropped = ah.outcomes_v2([row])
    assert (sorted(outcome.value for outcome in outcomes), dropped) == ([0.5, 1, 1, 1], 0)


def test_a_failed_game_costs_v01_the_game_and_v2_the_row():
    row = judged("B>A", None)
    assert [battle.winner for battle in ah.battles_v01([row])] == ["model_b"]
    assert ah.outcomes_v2([row]) == ([], 1)
    assert ah.outcomes_v2([{**row, "games": [None, {"score": "A>B"}]}]) == ([], 1)
    assert ah.battles_v01([judged("B<A", "A>B")])[0].winner == "model_b"  # v0.1 knows five labels, and B<A is none


def test_preference_eval_acceptance_5_order_of_games():
    """Showing the answers the other way round, with verdicts relabelled, is the same evidence."""
    rng = np.random.default_rng(0)
    rows = [judged(*rng.choice(LABELS, 2), uid=str(i), category="hard_prompt") for i in range(40)]
    turned = [{**row, "games": [{"score": ah.flip(row["games"][k]["score"])} for k in (1, 0)]} for row in rows]
    assert ah.win_rates(ah.battles_v01(rows), "gpt-4-0314") == ah.win_rates(ah.battles_v01(turned), "gpt-4-0314")
    same, other = (sorted(o.value for o in ah.outcomes_v2(some)[0]) for some in (rows, turned))
    assert same == other
    assert ah.flip("A>>B") == "B>>A" and ah.flip("A=B") == "A=B"


# ---------------------------------------------------------------- ratings


def random_battles(seed: int, models: int = 4, n: int = 300) -> list[Battle]:
    """Against one baseline, with ties and triples."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        name = f"m{rng.integers(models)}"
        winner = str(rng.choice(["model_a", "model_b", "tie"], p=[0.45, 0.4, 0.15]))
        found += [Battle(str(i), "base", name, winner)] * (3 if winner != "tie" and rng.random() < 0.3 else 1)
    return found


def naive_elo(battles: list[Battle], baseline: str) -> dict[str, float]:
    """The official fit row by row: battles doubled, a tie one win and one loss."""
    names = sorted({name for battle in battles for name in (battle.model_a, battle.model_b)})
    X, y = [], []
    for copy in range(2):
        for battle in battles:
            row = np.zeros(len(names))
            row[names.index(battle.model_a)], row[names.index(battle.model_b)] = math.log(10), -math.log(10)
            X.append(row)
            y.append(battle.winner == "model_a" or (battle.winner == "tie" and copy == 0))
    coef = LogisticRegression(fit_intercept=False, C=np.inf, tol=1e-8, max_iter=1000).fit(np.array(X), y).coef_[0]
    elo = 400 * coef + 1000
    return dict(zip(names, elo + 1000 - elo[names.index(baseline)], strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_preference_eval_acceptance_5_closed_form(seed):
    battles = random_battles(seed)
    closed, slow, fast = ah.win_rates(battles, "base"), naive_elo(battles, "base"), ah.bradley_terry(battles, "base")
    for name, rate in closed.items():
        assert 100 * rate == pytest.approx(float(rating.score_of_elo(np.array(slow[name]))), abs=0.01)
        assert 100 * rate == pytest.approx(float(rating.score_of_elo(np.array(fast[name]))), abs=0.01)


def test_bradley_terry_of_many_opponents_equals_the_naive_fit():
    rng = np.random.default_rng(3)
    names = ["base", "x", "y", "z"]
    battles = []
    for i in range(200):
        a, b = rng.choice(names, 2, replace=False)
        battles.append(Battle(str(i), str(a), str(b), str(rng.choice(["model_a", "model_b", "tie"]))))
    slow, fast = naive_elo(battles, "base"), ah.bradley_terry(battles, "base")
    assert fast == pytest.approx(slow, abs=0.05)
    turned = [replace(b, model_a=b.model_b, model_b=b.model_a, winner=_other(b.winner)) for b in battles]
    assert ah.bradley_terry(turned, "base") == pytest.approx(fast, abs=0.05)
    with pytest.raises(DataError, match="is not against base"):
        ah.win_rates(battles, "base")


def _other(winner: str) -> str:
    return {"model_a": "model_b", "model_b": "model_a", "tie": "tie"}[winner]


def test_bootstraps_take_the_official_resamples():
    """numpy's global generator with seed 42 draws as pandas' sample does; here per model by hand."""
    battles = random_battles(5, models=2, n=60)
    names, elo = rating.bootstrap_elo(battles, "base", 3, 42)
    generator = np.random.RandomState(42)
    for i in range(3):
        drawn = [battles[k] for k in generator.choice(len(battles), len(battles), replace=True)]
        assert dict(zip(names, elo[i], strict=True)) == pytest.approx(naive_elo(drawn, "base"), abs=0.1)


def test_real_battles_against_one_baseline(data_dir: Path):
    """Four models against claude-3-haiku: 480 wins, 59 losses, 5 ties give (480 + 2.5)/544, and so on."""
    rows = read_rows(data_dir / "eval/arena_hard/battles_haiku_baseline.jsonl.gz")
    baseline = "claude-3-haiku-20240307"
    battles = [Battle(str(r["question_id"]), r["model_a"], r["model_b"], r["winner"]) for r in rows]
    closed = ah.win_rates(battles, baseline)
    assert closed["claude-3-5-sonnet-20240620"] == pytest.approx(482.5 / 544)
    assert closed["claude-3-opus-20240229"] == pytest.approx(390.5 / 514)
    elo = ah.bradley_terry(battles, baseline)
    for name, rate in closed.items():
        assert 100 * rate == pytest.approx(float(rating.score_of_elo(np.array(elo[name]))), abs=0.01)
    _, draws = rating.bootstrap_elo(battles, baseline, 100, 42)
    low, high = rating.score_of_elo(np.percentile(draws, [2.5, 97.5], axis=0))
    assert (low < 100 * np.array([closed[name] for name in [baseline, *sorted(set(closed) - {baseline})]]) + 1e-9).all()
    assert (high - low)[1:].min() > 2


@pytest.mark.parametrize(("bench", "models"), [("arena_hard", 28), ("arena_hard_bt", 28), ("mt_bench", 25)])
def test_published_intervals_are_these_percentiles(bench, models, data_dir: Path):
    rows = read_rows(data_dir / f"eval/arena_hard/bootstrap/{bench}.jsonl.gz")
    for row in rows:
        told = percentile_interval(row["score"], np.array(row["results"]), len(row["results"]))
        assert (told.low, told.high) == pytest.approx((row["lower"], row["upper"]))
    assert len(rows) == models


# ---------------------------------------------------------------- style


ANSWER = """# Title
Some **bold** and __more bold__ text.
1. one
2. two
- a
* b
```python
# no header
- no item
```
### Deep
"""


def test_markdown_is_counted_outside_code():
    counts = ah.markdown_counts(ANSWER)
    assert counts["header_count"] == {"h1": 1, "h2": 0, "h3": 1, "h4": 0, "h5": 0, "h6": 0}
    assert counts["list_count"] == {"ordered": 2, "unordered": 2}
    assert counts["bold_count"] == {"**": 1, "__": 1}
    assert ah.metadata("", len)["token_len"] == 0


def styled_game(seed: int, n: int = 60) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Judgments of two models and everyone's answers; longer answers tend to win."""
    rng = np.random.default_rng(seed)
    answers: dict[str, list[dict[str, Any]]] = {}
    for name in ("o3-mini-2025-01-31", "x", "y"):
        answers[name] = [
            {
                "uid": str(i),
                "metadata": {
                    "token_len": int(rng.integers(0 if i == 0 else 20, 400)),
                    "header_count": {"h1": int(rng.integers(3))},
                    "list_count": {"ordered": int(rng.integers(5)), "unordered": 0},
                    "bold_count": {"**": int(rng.integers(4)), "__": 0},
                },
            }
            for i in range(n)
        ]
    rows = []
    for name in ("x", "y"):
        for i in range(n):
            longer = (
                answers[name][i]["metadata"]["token_len"] > answers["o3-mini-2025-01-31"][i]["metadata"]["token_len"]
            )
            labels = [LABELS[int(np.clip(rng.integers(0, 4) + longer, 0, 4))] for _ in range(2)]
            rows.append(judged(labels[0], ah.flip(labels[1]), str(i), name, category="hard_prompt"))
    return rows, answers


def test_style_control_of_v2_equals_the_official_computation_done_naively():
    """One resample (all rows once): the official tensors, row by row, and its optimiser."""
    rows, answers = styled_game(0)
    outcomes, _ = ah.outcomes_v2(rows)
    table = style.style_table(answers)
    base, names = "o3-mini-2025-01-31", ["o3-mini-2025-01-31", "x", "y"]
    ours, theirs = (
        torch.tensor(np.stack([table[who(o)][o.uid] for o in outcomes]), dtype=torch.float32)
        for who in (lambda o: o.model, lambda o: base)
    )
    final = torch.zeros_like(ours)
    final[:, 0] = (ours[:, 0] - theirs[:, 0]) / (ours[:, 0] + theirs[:, 0])
    x, y = ours[:, 1:] / (ours[:, :1] + 1), theirs[:, 1:] / (theirs[:, :1] + 1)
    final[:, 1:] = (x - y) / (x + y + 1)
    normal = (final - final.mean(0)) / final.std(0)
    hot = torch.zeros(len(outcomes), 3)
    for i, o in enumerate(outcomes):
        hot[i, names.index(o.model)], hot[i, 0] = 1, -1
    drawn = np.random.default_rng(9).integers(0, len(outcomes), len(outcomes))
    X, target = torch.cat([hot, normal], 1)[drawn], torch.tensor([o.value for o in outcomes])[drawn]
    coef = torch.full((7,), 0.5, requires_grad=True)
    optimizer = torch.optim.LBFGS([coef], lr=0.1, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(X @ coef, target, reduction="sum")
        loss.backward()
        return loss

    optimizer.step(closure)
    z, used = style.standardise(style.features_v2(ours.double().numpy(), theirs.double().numpy()), style.FEATURES, 1)
    assert used == list(style.FEATURES)
    mine = style.fit_v2(
        np.concatenate([style.one_hot([o.model for o in outcomes], names, base), z], axis=1),
        np.array([o.value for o in outcomes]),
        np.bincount(drawn, minlength=len(outcomes)).astype(float),
    )
    assert mine == pytest.approx(coef.detach().numpy(), abs=2e-3)


def test_style_control_of_v01_equals_the_official_computation_done_naively():
    """Battles doubled, ties once as a win and once as a loss, scikit-learn's default penalty."""
    rows, answers = styled_game(1)
    base = "o3-mini-2025-01-31"
    battles, table = ah.battles_v01(rows, base), style.style_table(answers)
    names = [base, "x", "y"]
    a, b = (np.stack([table[getattr(k, side)][k.uid] for k in battles]) for side in ("model_a", "model_b"))
    difference = (a - b) / (a + b + 1)
    z = (difference - difference.mean(0)) / difference.std(0)
    X, y = [], []
    for copy in range(2):
        for i, battle in enumerate(battles):
            row = np.zeros(3)
            row[0], row[names.index(battle.model_b)] = math.log(10), -math.log(10)
            X.append(np.concatenate([row, z[i]]))
            y.append(battle.winner == "model_a" or (battle.winner == "tie" and copy == 0))
    coef = LogisticRegression(fit_intercept=False).fit(np.array(X), y).coef_[0]
    table_of = {
        row["model"]: row for row in ah.score(rows, "v0.1", None, base, ("length", "markdown"), answers, rounds=5)
    }
    for i in (1, 2):
        expected = 100 / (1 + 10 ** (coef[0] - coef[i]))
        assert table_of[names[i]]["score"] == pytest.approx(expected, abs=0.02)
    assert list(table_of["x"]["style"].values()) == pytest.approx(coef[3:], abs=1e-3)
    assert table_of["x"]["style"]["token_len"] > 0  # a is the baseline: it wins more where it is longer


def test_preference_eval_acceptance_5_a_feature_without_spread_is_left_out():
    rows, answers = styled_game(2, n=30)
    for some in answers.values():
        for row in some:
            row["metadata"]["bold_count"] = {"**": 0}
    with pytest.warns(UserWarning, match="bold_count is the same in all battles"):
        table = ah.score(rows, "v2.0", style=("length", "markdown"), answers=answers, rounds=10)
    assert all(math.isfinite(row[key]) for row in table for key in ("score", "low", "high"))
    assert [sorted(row["style"]) for row in table if "style" in row] == [
        ["header_count", "list_count", "token_len"]
    ] * 2
    only = ah.score(rows, "v2.0", style=("length",), answers=answers, rounds=10)
    assert list(next(row for row in only if row["model"] == "x")["style"]) == ["token_len"]


def test_two_empty_answers_are_equally_long():
    nothing = np.zeros((1, 4))
    assert style.features_v2(nothing, nothing).tolist() == [[0, 0, 0, 0]]


# ---------------------------------------------------------------- boards


def test_a_board_does_not_change_with_other_models_or_the_order_of_rows():
    rng = np.random.default_rng(4)
    rows = [
        judged(*rng.choice(LABELS, 2), uid=str(i), model=model, category="hard_prompt")
        for model in "xy"
        for i in range(30)
    ]
    both = {row["model"]: row for row in ah.score(rows)}
    alone = {row["model"]: row for row in ah.score([row for row in rows if row["model"] == "y"])}
    assert both["y"] == alone["y"]
    outcomes = [o.value for o in ah.outcomes_v2(rows)[0] if o.model == "y"]
    assert both["y"]["score"] == pytest.approx(100 * np.mean(outcomes), abs=2)
    assert both["y"]["low"] < both["y"]["score"] < both["y"]["high"]
    assert both["o3-mini-2025-01-31"]["score"] == 50
    old = {row["model"]: row["score"] for row in ah.score(rows[::-1], "v0.1")}
    assert old["x"] == pytest.approx(100 * ah.win_rates(ah.battles_v01(rows), "gpt-4-0314")["x"])


def test_a_model_that_wins_everything_has_a_hundred():
    [best, base] = ah.score([judged("B>>A", "A>B", str(i)) for i in range(5)], "v0.1")
    assert (best["score"], base["score"]) == (100, 50)
    assert best["low"] > 99.99


def test_preference_eval_acceptance_8_judgments_come_back_as_they_went(tmp_path):
    rows = [
        judged("A>B", "B>A", "q1", category="hard_prompt", baseline="o3-mini-2025-01-31"),
        judged(None, "A=B", "q2"),
    ]
    rows[1]["category"] = "hard_prompt"
    back = read_rows(write_rows(tmp_path / "m.jsonl", rows))
    assert back == rows and ah.score(back) == ah.score(rows)
    assert next(row for row in ah.score(back) if row["model"] == "m")["dropped"] == 1
    assert set(back[0]) == {"uid", "category", "judge", "model", "baseline", "games"}


@pytest.mark.parametrize(
    ("call", "error", "complaint"),
    [
        (lambda: ah.outcomes_v2([judged("A>B", "A?B")]), DataError, "row 1: score 'A\\?B' is no label"),
        (lambda: ah.outcomes_v2([judged("A>B", "A>B")] * 2), DataError, "m on q is there already, in row 1"),
        (lambda: ah.score([{"uid": "q", "model": "m", "games": [None]}]), DataError, "row 1: 1 games, not two"),
        (lambda: ah.score([{"model": "m", "games": []}]), DataError, "row 1 has no 'uid'"),
        (lambda: ah.score([judged(None, None)]), DataError, "none of 1 judgments"),
        (lambda: ah.score([judged(None, None)], "v0.1"), DataError, "no judgment holds a verdict"),
        (lambda: ah.score([judged("A>B", "A>B")], "v3"), ConfigError, "no version 'v3'"),  # type: ignore[arg-type]
        (
            lambda: ah.score([judged("A>B", "A>B", c, category=c) for c in ("math", "coding")]),
            ConfigError,
            "coding, math; name one",
        ),
        (lambda: ah.score([judged("A>B", "A>B")], style=["length"]), ConfigError, "needs the answers of all models"),
        (
            lambda: ah.score([judged("A>B", "A>B")], style=["length"], answers={"m": []}),
            DataError,
            "no answer of m to q",
        ),
        (lambda: style.columns(["weight"]), ConfigError, "no style 'weight'"),
    ],
)
def test_bad_judgments_are_refused_in_one_line(call, error, complaint):
    with pytest.raises(error, match=complaint) as caught:
        call()
    assert "\n" not in str(caught.value)
