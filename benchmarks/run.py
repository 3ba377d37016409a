"""First numbers, side by side: ``make bench`` (or ``python -m benchmarks.run``) writes docs/results/bench.json and .md.

- *training*: one epoch of Bradley-Terry training, this project's trainer against TRL's RewardTrainer, on the same
  weights, ids and batches. The learning rate is 0, so that the mean loss does not depend on the order of batches and
  must agree; all the work of a step is still done.
- *scoring*: K answers to each prompt by `PreferenceModel.score`, against one forward pass per answer in batches of one
  and a loop over pairs, as published pipelines do.
- *self-play*: seconds per stage of one round, from its own timings.

The model is a random-weight Llama of 4 layers and width 256: what is measured is work, not quality. Each side runs
in its own process, in turn, one thread; CPU time is quoted. The goals come with packed, prefix-shared encoding; these
are the numbers before it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.measure import compare, machine, measure, side
from launch.runfolder import write_json, write_text

MODULE = "benchmarks.run"
VOCABULARY = 2000
PROMPT, ANSWER = 256, (48, 128)
"""Words of a prompt, and the range of an answer's."""
PAIRS, BATCH, K = 32, 4, 5
RESULTS = Path("docs/results")


def tokenizer() -> Any:
    """Words w0 … w1999 and three special tokens; every text of these benchmarks is one id a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def text(draw: random.Random, words: int) -> str:
    return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(words))


def groups(count: int, answers: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random groups in the normal form of preference data: the first answer beats the others."""
    draw = random.Random(seed)
    return [
        {
            "prompt": text(draw, PROMPT),
            "responses": [" " + text(draw, draw.randint(*ANSWER)) for _ in range(answers)],
            "winners": [0] * (answers - 1),
            "losers": list(range(1, answers)),
            "weights": [1.0] * (answers - 1),
            "ties": [],
            "source": f"synthetic:{i}",
        }
        for i in range(count)
    ]


def preference_model(folder: Path, kind: str) -> Any:
    from transformers import LlamaConfig

    from align.preference import PreferenceModel
    from launch.models import tiny_like

    tiny_like(LlamaConfig(vocab_size=VOCABULARY), layers=4, hidden=256).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return PreferenceModel.from_backbone(folder, kind=kind, dims=4, tau=1.0, clip=False)


# ---------------------------------------------------------------- training


def train_arbiter(folder: Path) -> Callable[[], Any]:
    from align.preference.objective import PreferenceObjective
    from launch.options import TrainOptions
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    model = preference_model(folder / "backbone", "bt")
    rows = groups(PAIRS, 2)
    run = RunFolder(folder / "run").open({}, seed=0)
    options = TrainOptions(
        learning_rate=0.0, batch_size=BATCH, schedule="constant", log_steps=1, save_steps=10**6, max_grad_norm=1.0
    )

    def work() -> tuple[list[float], dict[str, float]]:
        result = fit(
            model,
            PreferenceObjective(model.renderer, model.config),
            rows,
            options=options,
            run=run,
            name="bench",
            seed=0,
        )
        losses = [row["loss"] for row in run.metrics() if "loss" in row]
        return [sum(losses) / len(losses)], {"steps": result.steps, "pairs": PAIRS}

    return work


def train_trl(folder: Path) -> Callable[[], Any]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    ours = preference_model(folder / "backbone", "bt")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "backbone", num_labels=1)
    model.score.weight.data.copy_(ours.rank_head.weight)
    model.config.pad_token_id = 0
    encode = ours.renderer.encode
    rows = Dataset.from_list(
        [
            {
                "chosen_ids": encode(row["prompt"], row["responses"][0]).ids,
                "rejected_ids": encode(row["prompt"], row["responses"][1]).ids,
            }
            for row in groups(PAIRS, 2)
        ]
    )
    del ours
    options = RewardConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=BATCH,
        learning_rate=0.0,
        num_train_epochs=1,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        max_grad_norm=1.0,
        disable_tqdm=True,
    )
    trainer = RewardTrainer(model=model, args=options, train_dataset=rows, processing_class=tokenizer())

    def work() -> tuple[list[float], dict[str, float]]:
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        return [sum(losses) / len(losses)], {"steps": trainer.state.global_step, "pairs": PAIRS}

    return work


# ---------------------------------------------------------------- scoring


def score_arbiter(folder: Path) -> Callable[[], Any]:
    model = preference_model(folder / "backbone", "hrc")
    rows = groups(8, K)

    def work() -> tuple[list[float], dict[str, float]]:
        tables = [model.score(row["prompt"], row["responses"]).S for row in rows]
        return [float(x) for table in tables for x in table.ravel()], {"prompts": len(rows), "answers": K}

    return work


def score_loop(folder: Path) -> Callable[[], Any]:
    """One forward per answer, then every pair by hand with D and R spelled out."""
    import torch

    from align.preference.heads import score_matrix_naive

    model = preference_model(folder / "backbone", "hrc").eval()
    rows = groups(8, K)

    @torch.no_grad()
    def work() -> tuple[list[float], dict[str, float]]:
        oracle: list[float] = []
        for row in rows:
            outputs = []
            for response in row["responses"]:
                encoded = model.renderer.encode(row["prompt"], response)
                outputs.append(
                    model(
                        input_ids=torch.tensor([encoded.ids]),
                        gate_rows=torch.tensor([0]),
                        gate_positions=torch.tensor([encoded.prompt_length - 1]),
                    )
                )
            S_T, S_C = score_matrix_naive(
                torch.cat([o.r for o in outputs]), torch.cat([o.v for o in outputs]), outputs[0].lambda_sq[0]
            )
            oracle += ((S_T + S_C) / model.config.tau).flatten().tolist()
        return oracle, {"prompts": len(rows), "answers": K}

    return work


# ---------------------------------------------------------------- self-play


def selfplay_stages(folder: Path) -> Callable[[], Any]:
    """One round of the real recipe on tiny random models; its timings per stage are the counters."""
    from transformers import LlamaConfig

    from launch.config import load
    from launch.models import tiny_like
    from launch.runfolder import RunFolder, write_rows

    model = preference_model(folder / "backbone", "hrc")
    model.save_pretrained(folder / "judge")
    policy = tiny_like(LlamaConfig(vocab_size=VOCABULARY), layers=4, hidden=256, seed=1)
    policy.save_pretrained(folder / "policy")
    tokenizer().save_pretrained(folder / "policy")
    draw = random.Random(1)
    write_rows(folder / "prompts.jsonl", [{"prompt": text(draw, 64)} for _ in range(16)])
    loaded = load(
        "configs/align/selfplay_styles.yaml",
        [
            f"policy={folder / 'policy'}",
            f"preference={folder / 'judge'}",
            f"prompts={folder / 'prompts.jsonl'}",
            "eval_prompts=''",
            f"run.folder={folder / 'run'}",
            "rounds=1",
            f"samples={K}",
            "sampling.max_new_tokens=32",
            "max_length=128",
        ],
    )

    def work() -> tuple[list[float], dict[str, float]]:
        loaded.recipe.main(loaded.config)
        return [], {row["stage"]: row["seconds"] for row in RunFolder(folder / "run").timings()}

    return work


SIDES: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "train-arbiter": train_arbiter,
    "train-trl": train_trl,
    "score-arbiter": score_arbiter,
    "score-loop": score_loop,
    "selfplay": selfplay_stages,
}


def page(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    m = found["machine"]
    lines = [
        "# First measurements",
        "",
        f"`make bench` on {m['cpu']}, {m['cores']} cores, one thread; torch {m['torch']}, transformers "
        f"{m['transformers']}, TRL {m['trl']}; commit `{m['commit']}`, {m['date']}, load {m['load']}. Random-weight "
        f"Llama, 4 layers, width 256; prompts of {PROMPT} tokens, answers of {ANSWER[0]} to {ANSWER[1]}. CPU seconds, "
        "smallest of the runs; peak is the growth of resident memory during the work. A ratio above 1 is in our favour "
        "and is printed only where both sides' outputs agree.",
        "",
        "| work | side | CPU s (all runs) | per second | peak MB | ratio | outputs differ by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["pairs"].items():
        for which in ("ours", "other"):
            one = row[which]
            unit = "steps" if "steps" in one["counters"] else "prompts"
            rate = one["counters"][unit] / one["cpu_seconds"]
            ratio = "" if which == "other" else (f"{row['cpu_ratio']:.2f}" if "cpu_ratio" in row else row["refused"])
            lines.append(
                f"| {name} | {one['name']} | {', '.join(map(str, row['all_cpu_seconds'][one['name']]))} "
                f"| {rate:.2f} {unit} | {one['peak_bytes'] / 2**20:.0f} | {ratio} | {row['oracle_difference']:.1g} |"
            )
    lines += ["", "One self-play round, 16 prompts, K = 5, 32 new tokens, wall seconds by stage:", "", "| stage | s |"]
    lines += ["|---|---|", *(f"| {stage} | {s:.2f} |" for stage, s in found["selfplay"]["counters"].items()), ""]
    lines += [
        "How to read it: both sides encode the prompt once per answer and pad, so parity is what one should expect "
        "here; removing the repeated prompt and the padding is the next step, and these rows are its baseline.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="measure this project beside its peers")
    parser.add_argument("--side", choices=sorted(SIDES), help="run one side in this process and print it as JSON")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.side:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure(SIDES[arguments.side](Path(folder))))))
        return
    found = {
        "machine": machine(),
        "pairs": {
            "preference training": compare(MODULE, "train-arbiter", "train-trl", arguments.repeats),
            f"scoring K={K}": compare(MODULE, "score-arbiter", "score-loop", arguments.repeats),
        },
        "selfplay": asdict(side(MODULE, "selfplay")),
    }
    write_json(RESULTS / "bench.json", found)
    write_text(RESULTS / "bench.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()
