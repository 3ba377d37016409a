"""B9: a whole self-play round, one resumable process against a shell pipeline of eight.

The other side is a twin of the SPPO and GPM pipelines, written anew from their description, its stages run by this
project's own functions: K generation processes (each loads the policy and sweeps over the prompts with its own
stream), one that loads the preference model and scores, one that makes the pairs, one that loads the policy twice and
trains. The chosen and rejected answers and their win rates agree. CPU time is that of all child processes, start-up
included: at this size start-up is most of it, which is the point of one process; in a long round it is little.

    python -m benchmarks.run b9
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Expect
from benchmarks.material import preference_model, save_llama, text, tokenizer
from benchmarks.measure import Case, main
from benchmarks.sampling import pass_k

K, PROMPTS, WORDS, NEW = 5, 12, 48, 24
BENCH = Bench(
    key="b9",
    title="A self-play round",
    module="benchmarks.one_round",
    ours="one-process",
    other="pipeline",
    what=f"Generate {K} answers to {PROMPTS} prompts, score, select, train: `align.selfplay.rounds` in one process, "
    "against a twin of the predecessors' shell pipeline in eight. Pairs and win rates agree.",
    cases={"one round": Expect(goal=3.0, counter=("processes", 8.0))},
    rounds=1,
    bound_by="",
)


def material(folder: Path) -> None:
    """Policy, preference model and prompts on disk."""
    save_llama(folder / "policy", seed=1)
    preference_model(folder / "backbone").save_pretrained(folder / "judge")
    draw = random.Random(1)
    rows = [json.dumps({"prompt": text(draw, WORDS)}) for _ in range(PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")


def overrides(folder: Path, run: Path) -> list[str]:
    return [
        f"policy={folder / 'policy'}", f"preference={folder / 'judge'}", f"prompts={folder / 'prompts.jsonl'}",
        "eval_prompts=''", f"run.folder={run}", "rounds=1", f"samples={K}", f"sampling.max_new_tokens={NEW}",
        "max_length=128", "train.epochs=1",
    ]  # fmt: skip


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def oracle(rows: list[dict[str, Any]]) -> list[float]:
    """Chosen and rejected, and all win rates, of every row."""
    return [float(x) for row in rows for x in (*row["index"], *row["win_rates"], *map(len, row["response_ids"]))]


def one_process(folder: Path) -> Iterator[Case]:
    material(folder)
    number = iter(range(100))

    def work() -> list[dict[str, Any]]:
        target = folder / f"run-{next(number)}"
        run("-m", "launch", "run", "configs/align/selfplay_styles.yaml", *overrides(folder, target))
        [rows] = target.glob("stages/round-1-select-*/rows.jsonl")
        return [json.loads(line) for line in rows.read_text().splitlines()]

    yield Case("one round", work, oracle, {"processes": 1.0, "model_loads": 2.0}, repeats=1, children=True)


def pipeline(folder: Path) -> Iterator[Case]:
    material(folder)

    def work() -> list[dict[str, Any]]:
        for stage in (*(f"generate-{k}" for k in range(K)), "score", "pairs", "train"):
            run("-m", BENCH.module, "--stage", stage, str(folder))
        return [json.loads(line) for line in (folder / "pairs" / "rows.jsonl").read_text().splitlines()]

    yield Case("one round", work, oracle, {"processes": K + 3.0, "model_loads": K + 3.0}, repeats=1, children=True)


# ---------------------------------------------------------------- the pipeline's stages, each in a process of its own


def prompts(folder: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]


def generate(folder: Path, k: int) -> None:
    from launch.contracts import Sampling
    from launch.generate import HFGenerator
    from launch.generate.chunks import completion_to_json
    from launch.generate.sampling import stable_hash
    from launch.models import load_causal_lm

    generator = HFGenerator(load_causal_lm(folder / "policy"), tokenizer())
    sampling = Sampling(max_new_tokens=NEW, seed=stable_hash(0, "round-1", 0))  # the seed of the run's first chunk
    found = pass_k(generator, prompts(folder), k, sampling)
    (folder / f"answers-{k}.json").write_text(json.dumps([completion_to_json(c) for c in found]))


def samples(folder: Path) -> list[Any]:
    from launch.generate.chunks import completion_from_json

    columns = [json.loads((folder / f"answers-{k}.json").read_text()) for k in range(K)]
    return [[completion_from_json(c) for c in row] for row in zip(*columns, strict=True)]


def score(folder: Path) -> None:
    from align.preference import PreferenceModel

    model = PreferenceModel.from_pretrained(folder / "judge").eval()
    tables = [
        model.score(prompt, [c.text for c in row]) for prompt, row in zip(prompts(folder), samples(folder), strict=True)
    ]
    (folder / "scores.json").write_text(json.dumps([[s.S_T.tolist(), s.S_C.tolist()] for s in tables]))


def pairs(folder: Path) -> None:
    import numpy as np

    from align.selfplay.pairs import build_pairs
    from align.selfplay.schedule import mixed_scores

    settings = configured(folder)
    parts = np.array(json.loads((folder / "scores.json").read_text()))
    mixed = mixed_scores(parts[:, 0], parts[:, 1], 1, settings.lam, settings.schedule)
    build_pairs(prompts(folder), samples(folder), list(mixed), settings.mode, t=1).save(folder / "pairs")


def train(folder: Path) -> None:
    """The policy, and a frozen copy that gives the reference values, each loaded from disk."""
    from align.selfplay.objective import SelfPlayObjective, examples, objective_scale, reference_logprobs
    from align.selfplay.pairs import PairDataset
    from launch.models import load_causal_lm
    from launch.rendering import Renderer
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    c = configured(folder)
    renderer = Renderer(tokenizer(), c.max_length, cut="prompt_left", end="keep")
    dataset = PairDataset.load(folder / "pairs")
    frozen, policy = load_causal_lm(folder / "policy"), load_causal_lm(folder / "policy")
    reference = reference_logprobs(frozen, dataset.rows, renderer, layout="padded")
    rows = examples(dataset.rows, reference, renderer, loss=c.loss, mode=c.mode, beta=c.beta)
    objective = SelfPlayObjective(objective_scale(c.loss, c.mode, K), layout="padded")
    number = len(list(folder.glob("trained-*")))
    target = RunFolder(folder / f"trained-{number}").open({}, seed=0)
    fit(policy, objective, rows, options=c.train, run=target, name="train", seed=0, tokenizer=tokenizer())


def configured(folder: Path) -> Any:
    from launch.config import load

    return load("configs/align/selfplay_styles.yaml", overrides(folder, folder / "none")).config


SIDES = {"one-process": one_process, "pipeline": pipeline}

if __name__ == "__main__":
    if sys.argv[1] == "--stage":
        name, _, number = sys.argv[2].partition("-")
        place = Path(sys.argv[3])
        if name == "generate":
            generate(place, int(number))
        else:
            {"score": score, "pairs": pairs, "train": train}[name](place)
    else:
        main(SIDES, BENCH.module)
