"""Self-play on real text: stories260K continues real story openings against a preference for real continuations.

    OMP_NUM_THREADS=1 python -m benchmarks.real_selfplay

The preference model (HRC 4+1 over the same backbone, fine-tuned whole) learns to prefer a story's real continuation to
continuations that the policy samples; its accuracy on held-out stories is reported. Three rounds of DSPPO follow
through the recipe `align.selfplay.rounds`, 200 new openings each. Every policy then continues the same held-out
openings, and is judged by the preference model it was optimised against and by a second one, made from another seed
and other samples. Held-out NLL of real stories, length and distinct n-grams show whether it collapsed.

stories260K was trained on TinyStories, so its NLL here is near its training loss: a rise is forgetting, not
generalisation. Writes docs/results/real_selfplay.{json,md}.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_data
from benchmarks.measure import machine

ROUNDS, PER_ROUND, K = 3, 200, 5
CONTINUATION = 64
"""Tokens sampled; openings are 24 words, real continuations 40, and judges compare the first 24 words of both."""
BETA, RATE = 0.1, 1e-3
"""1/eta in win rate per nat, and the learning rate: the paper's 0.001 and 5e-7 are for models 30,000 times larger."""
OUT = Path(__file__).parents[1] / "docs" / "results"
WORK = Path(__file__).parents[1] / "runs" / "real_selfplay"
PLAY, LEARN, HELD_OUT = slice(0, 600), slice(600, 860), slice(860, 1000)
"""Which of the 1,000 stories the rounds, the preference model and the measurement see."""


def main(seeds: Sequence[str]) -> None:
    begun = time.time()
    wanted = [int(seed) for seed in seeds or ("0", "1", "2")]
    rows: list[dict[str, Any]] = []
    for seed in wanted:
        rows.append(one_seed(seed))
        results = {
            "command": "OMP_NUM_THREADS=1 python -m benchmarks.real_selfplay "
            + " ".join(map(str, wanted[: len(rows)])),
            "seconds": round(time.time() - begun),
            "machine": machine(),
            "settings": {
                "rounds": ROUNDS,
                "openings_per_round": PER_ROUND,
                "K": K,
                "beta": BETA,
                "learning_rate": RATE,
            },
            "seeds": rows,
        }
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "real_selfplay.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (OUT / "real_selfplay.md").write_text(page(results), encoding="utf-8")


def one_seed(seed: int) -> dict[str, Any]:
    """Preference models, three rounds, measurements. A run that was stopped goes on from its folder."""
    from align.preference import PreferenceModel
    from align.selfplay import rounds
    from launch.contracts import Sampling
    from launch.options import RunOptions, TrainOptions

    folder = WORK / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    start = str(real_data.data_root() / "lm" / "stories260K")
    stories = [text.replace("\n\n", "\n") for text in real_data.stories()]  # as the policy writes paragraphs
    cut = [cut_story(text) for text in stories]
    judges = [preference_model(folder / f"judge-{n}", start, cut, seed=10 * seed + n) for n in (0, 1)]
    openings = folder / "openings.jsonl"
    openings.write_text("".join(json.dumps({"prompt": o}) + "\n" for o, _ in cut[PLAY]), encoding="utf-8")
    config = rounds.Config(
        policy=start,
        preference=str(judges[0]["folder"]),
        prompts=str(openings),
        rounds=ROUNDS,
        samples=K,
        sampling=Sampling(max_new_tokens=CONTINUATION, temperature=1.0),
        beta=BETA,
        max_length=256,
        mode="all_k",
        train=TrainOptions(
            learning_rate=RATE,
            optimizer="adamw",
            schedule="linear",
            warmup_ratio=0.1,
            epochs=2.0,
            batch_size=8,
            save_steps=10**6,
        ),
        run=RunOptions(folder=str(folder / "run"), seed=seed),
    )
    rounds.main(config)
    mixture = json.loads((folder / "run" / "mixture" / "mixture.json").read_text(encoding="utf-8"))
    policies = [start, *((folder / "run" / "mixture" / path).resolve() for path in mixture["policies"])]
    held = [opening for opening, _ in cut[HELD_OUT]]
    samples = [sample(policy, held, 4, seed=seed + 1000) for policy in policies]
    models = [PreferenceModel.from_pretrained(judge["folder"]).eval() for judge in judges]
    table = []
    for t, (policy, texts) in enumerate(zip(policies, samples, strict=True)):
        row: dict[str, Any] = {"round": t, "nll": nll(policy, stories[HELD_OUT]), **text_numbers(texts)}
        for name, model in zip(("own judge", "other judge"), models, strict=True):
            row[name] = win_rate(model, held, texts, samples[0])
        table.append(row)
        print(f"seed {seed} {row}", flush=True)
    return {"seed": seed, "judge_accuracy": [judge["accuracy"] for judge in judges], "rounds": table}


def cut_story(text: str) -> tuple[str, str]:
    """Opening and real continuation of a story, cut by words to about the token numbers above."""
    words = text.split(" ")
    return " ".join(words[:24]), " " + " ".join(words[24 : 24 + 40])


def preference_model(folder: Path, start: str, cut: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """HRC that prefers real to sampled continuations; trained on LEARN, accuracy on HELD_OUT."""
    from align.preference import PreferenceModel
    from align.preference.objective import PreferenceObjective
    from launch.options import TrainOptions
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    if (folder / "accuracy.json").exists():
        return json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    groups = {}
    for name, part in (("train", cut[LEARN]), ("test", cut[HELD_OUT])):
        sampled = sample(start, [opening for opening, _ in part], 4, seed=seed)
        groups[name] = [real_against(o, real, texts) for (o, real), texts in zip(part, sampled, strict=True)]
    model = PreferenceModel.from_backbone(start, kind="hrc", dims=4, max_length=256, seed=seed)
    options = TrainOptions(learning_rate=1e-3, epochs=2, batch_size=8, save_steps=10**6, log_steps=20)
    shutil.rmtree(folder, ignore_errors=True)
    run = RunFolder(folder / "run").open({"kind": "hrc", "seed": seed}, seed)
    objective = PreferenceObjective(model.renderer, model.config)
    fit(model, objective, groups["train"], options=options, run=run, name="preference", seed=seed,
        tokenizer=model.renderer.tokenizer)  # fmt: skip
    model.eval().save_pretrained(folder / "model")
    model.renderer.tokenizer.save_pretrained(folder / "model")
    right = [
        float((scores.S[0, 1:] > 0).mean())
        for scores in model.score_many([(group["prompt"], group["responses"]) for group in groups["test"]])
    ]
    done = {"folder": str(folder / "model"), "accuracy": float(np.mean(right))}
    (folder / "accuracy.json").write_text(json.dumps(done), encoding="utf-8")
    return done


def real_against(opening: str, real: str, sampled: Sequence[str]) -> dict[str, Any]:
    """One group: the real continuation beats every sampled one, all cut to the same number of words."""
    others = dict.fromkeys(clip(text) for text in sampled if clip(text).strip() and clip(text) != clip(real))
    responses = [clip(real), *others]
    n = len(responses) - 1
    return {
        "prompt": opening,
        "responses": responses,
        "winners": [0] * n,
        "losers": list(range(1, n + 1)),
        "weights": [1.0] * n,
        "ties": [],
        "source": "tinystories",
    }


def clip(text: str, words: int = 24) -> str:
    """So that neither length nor a cut end tells real from sampled."""
    return " ".join(text.split(" ")[: words + 1])


def sample(policy: str | Path, openings: Sequence[str], n: int, seed: int) -> list[list[str]]:
    """`n` continuations of each opening from a fresh copy of the policy, fp32."""
    from launch.contracts import Sampling
    from launch.generate import HFGenerator
    from launch.models import load_causal_lm, load_tokenizer

    generator = HFGenerator(load_causal_lm(policy).eval(), load_tokenizer(policy))
    sampling = Sampling(max_new_tokens=CONTINUATION, temperature=1.0, seed=seed)
    return [[completion.text for completion in row] for row in generator.generate(openings, n, sampling)]


def win_rate(
    model: Any, openings: Sequence[str], texts: Sequence[Sequence[str]], start: Sequence[Sequence[str]]
) -> Any:
    """Mean P(policy's answer beats the starting policy's), with a 95 % interval over openings. Cut as in training.

    The policies are compared as they sampled: with the same seed round 0 meets itself, and gets exactly 1/2.
    """
    n = len(texts[0])
    groups = [
        (o, [clip(t) if clip(t).strip() else "." for t in (*a, *b)])
        for o, a, b in zip(openings, texts, start, strict=True)
    ]
    each = np.array([scores.P[:n, n:].mean() for scores in model.score_many(groups)])
    draws = np.random.default_rng(0).integers(len(each), size=(1000, len(each)))
    low, high = np.quantile(each[draws].mean(1), [0.025, 0.975])
    return {"win": float(each.mean()), "low": float(low), "high": float(high)}


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


def page(results: dict[str, Any]) -> str:
    """The results as Markdown, mean over seeds and each seed's value."""
    seeds = results["seeds"]
    accuracies = ", ".join("/".join(f"{100 * a:.1f}" for a in row["judge_accuracy"]) for row in seeds)
    lines = [
        "# Self-play on real text",
        "",
        "Policy stories260K (260,032 parameters), 200 real story openings a round, 3 rounds of DSPPO with K = 5,",
        f"all K answers trained on for two epochs, beta {BETA}, AdamW {RATE}. Preference model: HRC 4+1 on the same",
        "backbone, real against sampled continuations.",
        "Win rates are against round 0 on 140 held-out openings (4 samples each): by the judge that was optimised",
        "against, and by a second one of another seed. NLL in nats per token on 140 held-out real stories.",
        "",
        f"`{results['command']}` ({results['seconds']} s).",
        f"Held-out accuracy in % of own/other judge per seed: {accuracies}.",
        "",
        "| seed | round | win, own judge | win, other judge | NLL | words | empty "
        "| distinct-1 | distinct-2 | distinct-2 within |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in seeds:
        for r in row["rounds"]:
            wins = (f"{r[j]['win']:.3f} ({r[j]['low']:.3f}–{r[j]['high']:.3f})" for j in ("own judge", "other judge"))
            numbers = (
                f"{r[k]:.3f}" for k in ("nll", "words", "empty", "distinct_1", "distinct_2", "distinct_2_within")
            )
            lines.append(f"| {row['seed']} | {r['round']} | " + " | ".join((*wins, *numbers)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
