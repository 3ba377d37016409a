"""B2 and B4: K answers to a prompt, scored. Ours, a GPM-style ranker, and a pair-wise comparer on the same backbone.

- *arbiter*: `PreferenceModel.score_many`: one pass over the prompt and its answers, one product for the K x K scores.
- *ranker*: an honest twin of the GPM pipeline (arXiv 2410.02197), written anew from its description: batch size 1, one
  forward per candidate with the whole prompt, the skew operator built for each of the K^2 pairs in a Python loop.
  The scores must agree.
- *pairwise*: an honest twin of PairRM-style ranking (arXiv 2306.02561) with our backbone: for each ordered pair one
  forward over prompt, first and second answer. Its scores mean something else, so what must agree is how many ordered
  pairs are judged; tokens are counted, and quality is not compared.

    python -m benchmarks.run b2 b4
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import groups, preference_model, read_flops
from benchmarks.measure import Case, main
from launch.counters import NO_WORK, Work, cost_of

RANKED: dict[str, dict[str, Any]] = {
    "prompt 1024, K 5": {"count": 3, "answers": 5, "prompt": (1024, 1024), "answer": (96, 192)},
    "prompt 256, K 5": {"count": 4, "answers": 5, "prompt": (256, 256), "answer": (96, 192)},
    "prompt 256, K 16": {"count": 2, "answers": 16, "prompt": (256, 256), "answer": (96, 192)},
    "prompt 4, K 2": {"count": 32, "answers": 2, "prompt": (4, 4), "answer": (12, 12)},
}
COMPARED: dict[str, dict[str, Any]] = {
    "K 5": {"count": 1, "answers": 5, "prompt": (256, 256), "answer": (255, 255)},
    "K 16": {"count": 1, "answers": 16, "prompt": (128, 128), "answer": (63, 63)},
}
RANKING = Bench(
    key="b2",
    title="Scoring K answers",
    module="benchmarks.scoring",
    ours="arbiter",
    other="ranker",
    what="`PreferenceModel.score_many`, against a twin of GPM's ranker: one forward per candidate, a loop over pairs. "
    "All scores agree.",
    cases={
        "prompt 1024, K 5": Expect(goal=3.0, share=0.85),
        "prompt 256, K 5": Expect(share=0.85),
        "prompt 256, K 16": Expect(share=0.85),
        "prompt 4, K 2": Expect(loses=True, note="next to nothing to share"),
    },
)
PAIRWISE = Bench(
    key="b4",
    title="Ranking K candidates",
    module="benchmarks.scoring",
    ours="arbiter-pairs",
    other="pairwise",
    what="The same scoring, against a twin of PairRM-style ranking on the same backbone: K (K - 1) forwards over "
    "prompt and two answers. The numbers of ordered pairs agree; what the scores are worth is not compared.",
    cases={"K 5": Expect(share=0.8), "K 16": Expect(share=0.8)},
    rounds=1,
    bound_by="tokens",
)


def counted(rows: list[dict[str, Any]], how: str, model: Any) -> dict[str, float]:
    """Tokens and FLOPs of the backbone; EOS closes every sequence."""
    total = NO_WORK
    for row in rows:
        prompt, answers = len(row["prompt"].split()), [len(r.split()) + 1 for r in row["responses"]]
        if how == "arbiter":
            total += Work.needed(prompt, answers, head=False)
        elif how == "ranker":
            for n in answers:
                total += Work.needed(prompt, [n], head=False)
        else:
            for i, a in enumerate(answers):
                for j, b in enumerate(answers):
                    total += NO_WORK if i == j else Work.needed(prompt + a - 1, [b], head=False)
    read = sum(len(row["responses"]) + 1 for row in rows)  # each answer's end, and the prompt's for the gate
    flops = read_flops(model, total, read) if how == "arbiter" else cost_of(model).flops(total)
    return {"tokens": float(total.tokens), "flops": flops}


def arbiter(folder: Path) -> Iterator[Case]:
    model = preference_model(folder / "backbone").eval()
    for case, shape in RANKED.items():
        rows = groups(**shape)
        asked = [(row["prompt"], row["responses"]) for row in rows]
        yield Case(
            case,
            partial(model.score_many, asked),
            lambda found: [float(x) for scores in found for x in scores.S.ravel()],
            counted(rows, "arbiter", model),
        )


def arbiter_pairs(folder: Path) -> Iterator[Case]:
    model = preference_model(folder / "backbone").eval()
    for case, shape in COMPARED.items():
        rows = groups(**shape)
        asked = [(row["prompt"], row["responses"]) for row in rows]
        yield Case(
            case,
            partial(model.score_many, asked),
            lambda found: [float(scores.S.size - len(scores.S)) for scores in found],
            counted(rows, "arbiter", model),
        )


def ranker(folder: Path) -> Iterator[Case]:
    model = preference_model(folder / "backbone").eval()

    @torch.no_grad()
    def work(rows: list[dict[str, Any]]) -> list[float]:
        scores: list[float] = []
        for row in rows:
            outputs = []
            for response in row["responses"]:
                encoded = model.renderer.encode(row["prompt"], response)
                at = torch.tensor([encoded.prompt_length - 1])
                outputs.append(
                    model(input_ids=torch.tensor([encoded.ids]), gate_rows=torch.tensor([0]), gate_positions=at)
                )
            weight = outputs[0].lambda_sq[0]
            for one in outputs:
                for two in outputs:
                    scores.append(pair_score(one, two, weight))
        return scores

    for case, shape in RANKED.items():
        rows = groups(**shape)
        yield Case(case, partial(work, rows), lambda found: found, counted(rows, "ranker", model))


def pair_score(one: Any, two: Any, weight: torch.Tensor) -> float:
    """r_i - r_j + v_i^T D R D v_j with R built anew, as the pipeline does for every pair."""
    size = one.v.shape[-1]
    R = torch.zeros(size, size)
    for plane in range(0, size, 2):
        R[plane, plane + 1], R[plane + 1, plane] = 1.0, -1.0
    D = torch.diag(weight.sqrt().repeat_interleave(2))
    return float(one.r[0] - two.r[0] + one.v[0] @ D @ R @ D @ two.v[0])


def pairwise(folder: Path) -> Iterator[Case]:
    model = preference_model(folder / "backbone", "bt").eval()

    @torch.no_grad()
    def work(rows: list[dict[str, Any]]) -> list[float]:
        judged = []
        for row in rows:
            prompt = model.renderer.prompt_ids(row["prompt"])
            answers = [model.renderer.tokenizer(r, add_special_tokens=False)["input_ids"] for r in row["responses"]]
            table = torch.zeros(len(answers), len(answers))
            for i, a in enumerate(answers):
                for j, b in enumerate(answers):
                    if i != j:
                        ids = torch.tensor([[*prompt, *a, *b, model.renderer.eos]])
                        table[i, j] = model(input_ids=ids).r[0]
            table = table - table.T  # both orders make one estimate
            judged.append(float((table != 0).sum()))
        return judged

    for case, shape in COMPARED.items():
        rows = groups(**shape)
        yield Case(case, partial(work, rows), lambda found: found, counted(rows, "pairwise", model), repeats=1)


SIDES = {"arbiter": arbiter, "ranker": ranker, "arbiter-pairs": arbiter_pairs, "pairwise": pairwise}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, RANKING.module)
