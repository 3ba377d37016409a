"""A judge of story continuations for benchmarks.real_selfplay: HRC 4+1 that prefers real text to sampled text.

Its backbone is all-MiniLM-L6-v2, trained whole. On the policy's own backbone (stories260K) a judge stays near what
length alone tells; see docs/log.md.

A pair is one story opening, the policy's continuation as it was sampled (64 tokens, never clipped), and the story's
real continuation cut to the same number of tokens, counted on the text as the judge reads it. So neither length nor a
cut end tells the two apart. Two more marks of the making, not of the text, are kept out: samples that ended early (a
real cut has no end) and samples that do not begin with a space (openings are cut between words, so a real one always
does). Both are counted. `length_only` is the accuracy of what length still tells, `marks_only` that of punctuation.

Stories are shared out once: the judge's, those that rates are chosen on, and those of every reported number are
different ones, and none is played on. stories260K itself was trained on TinyStories, these perhaps among them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import features
from benchmarks.real_preferences import correct
from launch.contracts import Completion

CONTINUATION = 64
"""Tokens sampled by the policy, at most."""
OPENING = 24
"""Words of an opening."""
SAMPLES = 3
"""Continuations of each opening that are sampled to make pairs."""
RATE = 1e-4
"""The only one tried; one epoch."""
PLAY, LEARN, VALID, HELD_OUT = slice(0, 600), slice(600, 820), slice(820, 880), slice(880, 1000)
"""Which of the 1,000 stories the rounds, the judge, the choice of the policy's rate, and the reported numbers see."""


@dataclass(frozen=True)
class Contest:
    """Two continuations of one opening, alike in tokens."""

    story: int
    opening: str
    real: str
    sampled: str


def groups(pairs: Sequence[Contest]) -> list[dict[str, Any]]:
    """One row of `PreferenceObjective` for each opening: every real cut beats the sample that it was cut for."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        row = found.setdefault(
            pair.opening,
            {"prompt": pair.opening, "responses": [], "winners": [], "losers": [], "weights": [], "ties": [],
             "source": f"tinystories:{pair.story}"},
        )  # fmt: skip
        row["responses"] += [text for text in (pair.real, pair.sampled) if text not in row["responses"]]
        row["winners"].append(row["responses"].index(pair.real))
        row["losers"].append(row["responses"].index(pair.sampled))
        row["weights"].append(1.0)
    return list(found.values())


def opening(story: str, words: int = OPENING) -> str:
    """The first words of a story."""
    return " ".join(story.split(" ")[:words])


def contests(policy: str | Path, stories: Sequence[str], n: int, seed: int) -> tuple[list[Contest], dict[str, float]]:
    """Pairs from `n` samples at the opening of each story, and the shares of samples that made none, by reason."""
    from launch.models import load_tokenizer

    tokenizer = load_tokenizer(policy)
    cut = [(number, opening(story), story) for number, story in enumerate(stories)]
    cut = [(number, start, story[len(start) :]) for number, start, story in cut if len(story) > len(start)]
    sampled = sample(policy, [start for _, start, _ in cut], n, seed)
    found: list[Contest] = []
    lost = {"ended": 0, "no space": 0, "cut": 0}
    for (number, start, rest), row in zip(cut, sampled, strict=True):
        ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
        for completion in row:
            text = completion.text
            if completion.finish != "length":
                lost["ended"] += 1
            elif not text.startswith(" "):
                lost["no space"] += 1
            else:
                real = alike(tokenizer, ids, text)
                lost["cut"] += real is None
                if real is not None and real != text:
                    found.append(Contest(number, start, real, text))
    return found, {reason: count / (n * len(cut)) for reason, count in lost.items()}


def alike(tokenizer: Any, ids: Sequence[int], text: str) -> str | None:
    """The start of the real continuation `ids` that has as many tokens as `text`; None if there is none that does."""
    count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) < count:
        return None
    real = tokenizer.decode(ids[:count])
    # What the tokenizer puts in front of every text is not a part of it.
    real = real if real.startswith(" ") else " " + real
    return real if tokenizer(real, add_special_tokens=False)["input_ids"] == list(ids[:count]) else None


def sample(policy: str | Path, openings: Sequence[str], n: int, seed: int) -> list[list[Completion]]:
    """`n` continuations of each opening from a fresh copy of the policy, fp32."""
    from launch.contracts import Sampling
    from launch.generate import HFGenerator
    from launch.models import load_causal_lm, load_tokenizer

    generator = HFGenerator(load_causal_lm(policy).eval(), load_tokenizer(policy), batch_size=32)
    return generator.generate(openings, n, Sampling(max_new_tokens=CONTINUATION, temperature=1.0, seed=seed))


def train_judge(folder: Path, policy: str | Path, stories: Sequence[str], seed: int) -> dict[str, Any]:
    """Train on LEARN, measure on HELD_OUT; found done if it was. `folder`/model holds the judge."""
    from align.preference import PreferenceModel
    from align.preference.objective import PreferenceObjective
    from launch.options import TrainOptions
    from launch.runfolder import RunFolder, write_json
    from launch.trainer import fit

    done = folder / "judge.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.process_time()
    learn, lost = contests(policy, stories[LEARN], SAMPLES, seed)
    backbone = features.backbones()["minilm"].path
    model = PreferenceModel.from_backbone(
        backbone, kind="hrc", dims=4, tau=1.0, lambda_sq_max=9.0, max_length=128, seed=seed
    )
    options = TrainOptions(learning_rate=RATE, epochs=1, batch_size=8, warmup_ratio=0.1, save_steps=10**6)
    run = RunFolder(folder / "run").open({"kind": "hrc", "seed": seed}, seed)
    objective = PreferenceObjective(model.renderer, model.config)
    fit(
        model, objective, groups(learn), options=options, run=run, name="preference", seed=seed,
        tokenizer=model.renderer.tokenizer,
    )  # fmt: skip
    model.eval().save_pretrained(folder / "model")
    shutil.rmtree(folder / "run" / "checkpoints")
    pairs, _ = contests(policy, stories[HELD_OUT], SAMPLES, seed + 500)
    found = {
        "folder": str(folder / "model"), "seed": seed, "rate": RATE, "taught": len(learn), "left out": lost,
        "tested": len(pairs), **accuracy(model, pairs), **length_only(learn, pairs), **marks_only(learn, pairs),
    }  # fmt: skip
    found["cpu_seconds"] = round(time.process_time() - begun)
    write_json(done, found)
    return found


def accuracy(model: Any, pairs: Sequence[Contest]) -> dict[str, float]:
    """Share of pairs where the real continuation is preferred, with a 95 % interval over stories."""
    rows = groups(pairs)
    scored = model.score_many([(row["prompt"], row["responses"]) for row in rows], batch_size=32)
    right = [correct(s.S[row["winners"], row["losers"]]) for s, row in zip(scored, rows, strict=True)]
    hits, count = np.array([found.sum() for found in right]), np.array([len(found) for found in right])
    draws = np.random.default_rng(0).integers(len(count), size=(1000, len(count)))
    low, high = np.quantile(hits[draws].sum(1) / count[draws].sum(1), [0.025, 0.975])
    return {"accuracy": float(hits.sum() / count.sum()), "low": float(low), "high": float(high)}


def length_only(learn: Sequence[Contest], pairs: Sequence[Contest]) -> dict[str, float]:
    """Accuracy of the longer (or the shorter, as was better on `learn`) text wins, in characters and in words."""
    measures = {"characters": len, "words": lambda text: len(text.split())}
    found = {}
    for name, measure in measures.items():

        def longer(contests: Sequence[Contest], measure: Any = measure) -> float:
            return float(np.mean([(np.sign(measure(c.real) - measure(c.sampled)) + 1) / 2 for c in contests]))

        found[f"{name} only"] = longer(pairs) if longer(learn) >= 0.5 else 1 - longer(pairs)
    return found


def marks_only(learn: Sequence[Contest], pairs: Sequence[Contest]) -> dict[str, float]:
    """Accuracy of a logistic regression on what is no word: how often every character that is no letter is used, and
    capitals, and of which kind the last two characters are. Marks of how the pairs were made would show here."""
    from scipy.optimize import minimize

    known = sorted({letter for c in learn for letter in c.real + c.sampled if not letter.isalpha()})

    def inputs(text: str) -> list[float]:
        ends = [kind(letter) for letter in text[-2:] for kind in (str.isalpha, str.isspace, str.isupper)]
        return [*(float(text.count(letter)) for letter in known), float(sum(map(str.isupper, text))), *map(float, ends)]

    def differences(contests: Sequence[Contest]) -> np.ndarray:
        return np.array([np.subtract(inputs(c.real), inputs(c.sampled)) for c in contests])

    X = differences(learn)
    loss = lambda w: np.logaddexp(0, -X @ w).mean() + 0.01 * w @ w  # noqa: E731
    scores = differences(pairs) @ minimize(loss, np.zeros(X.shape[1])).x
    return {"marks only": float(correct(scores).mean())}
