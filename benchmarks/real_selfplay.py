"""Self-play on real text: stories260K continues real story openings against a preference for real continuations.

    OMP_NUM_THREADS=1 python -m benchmarks.real_selfplay

The judge (benchmarks.real_judge: HRC 4+1 over all-MiniLM-L6-v2) learns to prefer a story's real continuation to what
the policy samples, both 64 tokens long, as it scores them later. Three rounds of DSPPO follow through the recipe
`align.selfplay.rounds`, 200 new openings each. Every policy then continues the same held-out openings, and its answers
are compared with other answers of the starting policy by the judge it was optimised against and by another one, which
learnt from other samples and first weights (there are two; seeds take turns). Held-out NLL of real stories, length and
distinct n-grams show whether it collapsed.

Two rows need no training: round 0 against itself, and the best of K answers of round 0 by the judge, which is what
the judge's signal is worth. The learning rate is the one of RATES with the best round 1 at seed 0, by its own judge on
validation openings that no reported number uses.

stories260K was trained on TinyStories, so its NLL here is near its training loss: a rise is forgetting, not
generalisation. Writes docs/results/real_selfplay.{json,md}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_data
from benchmarks.measure import machine
from benchmarks.real_judge import CONTINUATION, HELD_OUT, PLAY, VALID, opening, sample, train_judge

ROUNDS, PER_ROUND, K = 3, 200, 5
BETA, RATES = 0.1, (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
"""1/eta in win rate per nat, and the learning rates tried: the paper's 0.001 and 5e-7 are for models 30,000 times
larger."""
EPOCHS = 2.0
JUDGES = 2
"""Trained; seed s plays against judge s, and judge s + 1 is the other one, both modulo JUDGES."""
ANSWERS, BEST = 2, 1
"""Of each policy to each held-out opening, and how often the best of K is drawn."""
CHOICE_ANSWERS = 4
"""Of each policy to each validation opening."""
OUT = Path(__file__).parents[1] / "docs" / "results"
WORK = Path(__file__).parents[1] / "runs" / "real_selfplay"


def main(seeds: Sequence[str]) -> None:
    wanted = [int(seed) for seed in seeds or ("0", "1", "2")]
    stories, start = real_data.stories(), str(real_data.data_root() / "lm" / "stories260K")
    judges = [judge(number, start, stories) for number in range(JUDGES)]
    tried = choose_rate(start, stories)
    rate = max(tried, key=lambda row: row["win"])["rate"]
    rows: list[dict[str, Any]] = []
    for seed in wanted:
        rows.append(one_seed(seed, rate, start, stories))
        settings = {"rounds": ROUNDS, "openings_per_round": PER_ROUND, "K": K, "beta": BETA, "epochs": EPOCHS}
        results = {
            "command": "OMP_NUM_THREADS=1 python -m benchmarks.real_selfplay",
            "cpu_seconds": sum(found["cpu_seconds"] for found in (*rows, *judges, *tried)),
            "machine": machine(),
            "settings": {**settings, "learning_rate": rate},
            "judges": judges,
            "rates": tried,
            "seeds": rows,
            "mean": over_seeds(rows),
        }
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "real_selfplay.json").write_text(json.dumps(published(results), indent=1) + "\n", encoding="utf-8")
        (OUT / "real_selfplay.md").write_text(page(results), encoding="utf-8")


def judge(seed: int, start: str, stories: Sequence[str]) -> dict[str, Any]:
    """One of the judges, trained or found."""
    number = seed % JUDGES
    return train_judge(WORK / f"judge-{number}", start, stories, number)


def options(rate: float) -> Any:
    """How a round is fitted."""
    from launch.options import TrainOptions

    return TrainOptions(
        learning_rate=rate, optimizer="adamw", schedule="linear", warmup_ratio=0.1, epochs=EPOCHS, batch_size=8,
        save_steps=10**6,
    )  # fmt: skip


def play(seed: int, rate: float, start: str, stories: Sequence[str]) -> list[str]:
    """The policies 0 ... T of DSPPO against the seed's judge. A run that was stopped goes on from its folder."""
    from align.selfplay import rounds
    from launch.contracts import Sampling
    from launch.options import RunOptions
    from launch.runfolder import write_rows

    prompts = WORK / "openings.jsonl"
    write_rows(prompts, [{"prompt": opening(text)} for text in stories[PLAY][: ROUNDS * PER_ROUND]])
    write_rows(WORK / "openings_held_out.jsonl", [{"prompt": opening(text)} for text in stories[HELD_OUT]])
    folder = WORK / f"seed-{seed}-rate-{rate:g}"
    rounds.main(
        rounds.Config(
            policy=start,
            preference=judge(seed, start, stories)["folder"],
            prompts=str(prompts),
            rounds=ROUNDS,
            samples=K,
            sampling=Sampling(max_new_tokens=CONTINUATION, temperature=1.0),
            beta=BETA,
            max_length=256,
            mode="all_k",
            generate_batch=32,
            train=options(rate),
            run=RunOptions(folder=str(folder), seed=seed),
        )
    )
    mixture = json.loads((folder / "mixture" / "mixture.json").read_text(encoding="utf-8"))
    return [start, *(str((folder / "mixture" / path).resolve()) for path in mixture["policies"])]


def choose_rate(start: str, stories: Sequence[str]) -> list[dict[str, Any]]:
    """Round 1 at seed 0 with each rate, from the same answers; win rate over round 0 on VALID by its own judge."""
    from align import selfplay
    from align.preference import PreferenceModel
    from launch.contracts import Sampling
    from launch.runfolder import write_json

    done = WORK / "rates.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    begun = time.process_time()
    model = PreferenceModel.from_pretrained(judge(0, start, stories)["folder"]).eval()
    taught = [opening(text) for text in stories[PLAY][:PER_ROUND]]
    sampling = Sampling(max_new_tokens=CONTINUATION, temperature=1.0)
    dataset = selfplay.round(start, taught, model, t=1, k=K, sampling=sampling, seed=0, mode="all_k")
    openings = [opening(text) for text in stories[VALID]]
    policies = [
        selfplay.train(
            start, None, dataset, beta=BETA, folder=WORK / f"rate-{rate:g}", options=options(rate), max_length=256
        )
        for rate in RATES
    ]
    answers = [texts(sample(policy, openings, CHOICE_ANSWERS, seed=8)) for policy in policies]
    base = texts(sample(start, openings, CHOICE_ANSWERS, seed=7))
    found: list[dict[str, Any]] = [
        {"rate": rate, **summary(each), "nll": nll(policy, stories[VALID])}
        for rate, policy, each in zip(RATES, policies, wins(model, openings, answers, base), strict=True)
    ]
    for row in found:
        row["cpu_seconds"] = round((time.process_time() - begun) / len(found))
    print(found, flush=True)
    write_json(done, found)
    return found


def one_seed(seed: int, rate: float, start: str, stories: Sequence[str]) -> dict[str, Any]:
    """Three rounds and their measurements; kept beside the seed's folder."""
    from align.preference import PreferenceModel
    from launch.runfolder import write_json

    done = WORK / f"seed-{seed}-rate-{rate:g}.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    begun = time.process_time()
    policies = play(seed, rate, start, stories)
    openings = [opening(text) for text in stories[HELD_OUT]]
    own, other = (PreferenceModel.from_pretrained(judge(n, start, stories)["folder"]).eval() for n in (seed, seed + 1))
    base = texts(sample(start, openings, ANSWERS, seed=10 * seed + 100_000))
    table: list[dict[str, Any]] = []
    answers: list[list[list[str]]] = []
    for t, policy in enumerate(policies):
        drawn = sample(policy, openings, ANSWERS, seed=10 * seed + 100_001)
        answers.append(texts(drawn))
        ended = float(np.mean([c.finish == "stop" for row in drawn for c in row]))
        table.append({"who": f"round {t}", "nll": nll(policy, stories[HELD_OUT]), "ended": ended})
    answers.append(best_of(own, openings, texts(sample(start, openings, BEST * K, seed=10 * seed + 100_002))))
    table.append({"who": f"best of {K} of round 0"})
    for row, found in zip(table, answers, strict=True):
        row |= text_numbers(found)
    for name, model in (("own judge", own), ("other judge", other)):
        for row, each in zip(table, wins(model, openings, answers, base), strict=True):
            row[name] = {**summary(each), "each": each.tolist()}
    print(f"seed {seed}", published(table), flush=True)
    made = {"seed": seed, "rows": table, "cpu_seconds": round(time.process_time() - begun)}
    write_json(done, made)
    return made


# ---------------------------------------------------------------- measuring


def texts(samples: Sequence[Sequence[Any]]) -> list[list[str]]:
    return [[completion.text for completion in row] for row in samples]


def wins(
    model: Any, openings: Sequence[str], answers: Sequence[Sequence[list[str]]], base: Sequence[list[str]]
) -> list[np.ndarray]:
    """Per policy, the mean P(its answer beats a base answer) of each opening, over all pairs of the two.

    `answers` [policies][openings] lists of texts, `base` [openings]. Each different text is read once.
    """
    rows = zip(openings, base, *answers, strict=True)
    scored = model.score_many([(o, [text for found in lists for text in found]) for o, *lists in rows], batch_size=32)
    found, at, start = [], len(base[0]), len(base[0])
    for policy in answers:
        n = len(policy[0])
        found.append(np.array([s.P[at : at + n, :start].mean() for s in scored]))
        at += n
    return found


def summary(each: np.ndarray) -> dict[str, float]:
    """Mean over openings with its 95 % interval; `each` is [openings] or [seeds, openings], drawn together."""
    table = np.atleast_2d(each)
    draw = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        rows = table[draw.integers(len(table), size=len(table))]
        found.append(rows[:, draw.integers(table.shape[1], size=table.shape[1])].mean())
    low, high = np.quantile(found, [0.025, 0.975])
    return {"win": float(table.mean()), "low": float(low), "high": float(high)}


def best_of(model: Any, openings: Sequence[str], many: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of every K answers to an opening, the one that wins most against the K, by `model`."""
    groups = [(o, row[k : k + K]) for o, row in zip(openings, many, strict=True) for k in range(0, len(row), K)]
    best = [row[int(s.P.mean(1).argmax())] for s, (_, row) in zip(model.score_many(groups, 32), groups, strict=True)]
    each = len(many[0]) // K
    return [best[n : n + each] for n in range(0, len(best), each)]


def nll(policy: str | Path, stories: Sequence[str]) -> float:
    """Mean nats a token of real stories, the first 256 tokens of each."""
    import torch

    from launch.logprob import completion_logprobs
    from launch.models import load_causal_lm, load_tokenizer
    from launch.rendering import Renderer, pad

    model, tokenizer = load_causal_lm(policy).eval(), load_tokenizer(policy)
    rows = [Renderer(tokenizer).prompt_ids(text)[:256] for text in stories]
    total = count = 0.0
    for begin in range(0, len(rows), 16):
        ids, mask = pad(rows[begin : begin + 16], tokenizer.pad_token_id)
        counted = mask.clone()
        counted[:, 0] = False
        with torch.inference_mode():
            total -= float(completion_logprobs(model, ids, mask, counted).sum())
        count += float(counted.sum())
    return total / count


def text_numbers(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Words per continuation, share of different bigrams within one and over all, share of different openings words."""
    flat = [text.split() for row in texts for text in row]
    bigrams = [list(pairwise(words)) for words in flat]
    pooled = [gram for grams in bigrams for gram in grams]
    own = [len(set(grams)) / len(grams) for grams in bigrams if grams]
    return {
        "words": float(np.mean([len(words) for words in flat])),
        "empty": float(np.mean([not words for words in flat])),
        "distinct_1": len({w for words in flat for w in words}) / max(1, sum(map(len, flat))),
        "distinct_2": len(set(pooled)) / max(1, len(pooled)),
        "distinct_2_within": float(np.mean(own)) if own else 0.0,
    }


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same table, mean over seeds; openings and seeds are drawn together for the intervals."""
    found = []
    for same in zip(*(row["rows"] for row in rows), strict=True):
        row: dict[str, Any] = {"who": same[0]["who"]}
        for key, value in same[0].items():
            if isinstance(value, dict):
                row[key] = summary(np.array([one[key]["each"] for one in same]))
            elif isinstance(value, float):
                row[key] = float(np.mean([one[key] for one in same]))
        found.append(row)
    return found


def published(data: Any) -> Any:
    """The results without the win rates of every opening and the places on this machine."""
    if isinstance(data, dict):
        return {key: published(value) for key, value in data.items() if key not in ("each", "folder")}
    return [published(value) for value in data] if isinstance(data, list) else data


# ---------------------------------------------------------------- the page


def page(results: dict[str, Any]) -> str:
    """The results as Markdown: mean over seeds, and each seed's values."""
    s, m = results["settings"], results["machine"]
    seeds = ", ".join(str(row["seed"]) for row in results["seeds"])
    lines = [
        "# Self-play on real text",
        "",
        f"Policy stories260K (260,032 parameters), {PER_ROUND} real story openings a round, {ROUNDS} rounds of DSPPO",
        f"with K = {K}, all K answers trained on for {EPOCHS:g} epochs, beta {BETA}, AdamW {s['learning_rate']:g}.",
        f"Judges: HRC 4+1 over all-MiniLM-L6-v2, real against sampled continuations of {CONTINUATION} tokens, alike in",
        f"tokens pair by pair. Win rates are against other answers of round 0 to {HELD_OUT.stop - HELD_OUT.start}",
        f"held-out openings ({ANSWERS} answers each): by the judge that was optimised against, and by another one of",
        "another seed and other samples. NLL in nats per token on the real stories of those openings. Intervals are",
        "95 %, over openings; in the mean over seeds too.",
        "",
        f"`{results['command']}` ({results['cpu_seconds']} CPU seconds on one core of {m['cpu']},",
        f"torch {m['torch']}, commit {m['commit']}); seeds {seeds}.",
        "",
        "## The judges",
        "",
        "Accuracy in % on held-out stories that neither a judge nor the rounds saw; beside it, what the longer or the",
        "shorter text (whichever was better on the taught pairs) gets, and a logistic regression on punctuation,",
        "spaces, capitals and the kind of the last characters (marks). The last column is the % of samples that made",
        "no pair: they ended early, or did not begin with a space.",
        "",
        "| judge | pairs taught | tested | accuracy | characters only | words only | marks only | ended, no space |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, found in enumerate(results["judges"]):
        accuracy = f"{100 * found['accuracy']:.1f} ({100 * found['low']:.1f}–{100 * found['high']:.1f})"
        lengths = (f"{100 * found[key]:.1f}" for key in ("characters only", "words only", "marks only"))
        left = ", ".join(f"{100 * found['left out'][key]:.1f}" for key in ("ended", "no space"))
        cells = (str(number), str(found["taught"]), str(found["tested"]), accuracy, *lengths, left)
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "## The learning rate",
        "",
        "Round 1 of seed 0 on validation openings, by its own judge; the best one is used everywhere else.",
        "",
        "| rate | win over round 0 | NLL |",
        "|---|---|---|",
        *(f"| {row['rate']:g} | {_win(row)} | {row['nll']:.3f} |" for row in results["rates"]),
        "",
        "## The rounds",
        "",
        "| seed | policy | win, own judge | win, other judge | NLL | words | ended | empty "
        "| distinct-1 | distinct-2 | distinct-2 within |",
        "|---" * 11 + "|",
    ]
    for name, table in [("mean", results["mean"]), *((row["seed"], row["rows"]) for row in results["seeds"])]:
        for row in table:
            keys = ("nll", "words", "ended", "empty", "distinct_1", "distinct_2", "distinct_2_within")
            numbers = (f"{row[key]:.3f}" if key in row else "–" for key in keys)
            cells = (str(name), row["who"], _win(row["own judge"]), _win(row["other judge"]), *numbers)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _win(row: dict[str, float]) -> str:
    return f"{row['win']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


if __name__ == "__main__":
    main(sys.argv[1:])
