"""Would user 17 trust user 404? A small LM asks a tool, or reads embeddings: docs/results/trust_story.json and .md.

    python -m benchmarks.trust_story                    # every seed and way in turn; continues what is there
    python -m benchmarks.trust_story --seeds 1          # one seed
    python -m benchmarks.trust_story --write            # only write what the finished cells say

Edges of Bitcoin-alpha, four in five to learn from; both directions of a pair lie on one side. One SGCN is fitted to
them. Three small language models from scratch then answer "yes" or "no": from the text alone, trained on balanced draws
of the same edges; by calling `predict_link_sign` (`reasoning.agent.Agent` over the real tool in its own process); by
reading the SGCN's vectors as soft tokens (`tasks.encoder.SoftTokens`), a projector between the frozen encoder and the
text model. The last two learn to believe the SGCN (`believed`). A cell is one in one seed; finished ones are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.over_seeds import commits, finished, interval, publish

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = {"auc": "AUC", "hard_auc": "balanced accuracy", "f1_macro": "macro-F1", "f1_micro": "accuracy"}
ROWS = {
    "always": "always yes",
    "text": "LM, text alone",
    "tool": "LM that calls `predict_link_sign`",
    "soft": "LM that reads soft tokens",
    "predictor": "the sign predictor itself (SGCN)",
    "counts": "logistic regression on six counts",
}
ASKED, WORDS = (17, 404), {1: "yes", -1: "no"}
TOOL, ENCODER = "predict_link_sign", "trust"
"""The tool, and the encoder's folder below the tools' data folder."""
_SPLIT = r"</?\w+>|\d| (?=\d)| ?[A-Za-z]+|\s|_|[^\w\s]"


@dataclass(frozen=True)
class Sizes:
    """Of models and training."""

    hidden: int = 64
    layers: int = 2
    batch: int = 64
    steps: int = 250
    soft_steps: int = 500
    """Of the text model, which goes on with soft tokens; after 250 some seeds had not settled (docs/log.md)."""
    tool_batch: int = 32
    tool_steps: int = 1000
    """The tool's chats are longer, and the numbers of members have to be copied."""
    rate: float = 4e-3
    epochs: int = 300
    """Of the SGCN."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Trust by text, tool and soft tokens, over seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "trust")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    asked = parser.parse_args(arguments)
    for seed in [] if asked.write else asked.seeds:
        from tasks.graph.signed.data import load_signed

        story(asked.folder, load_signed("bitcoin-alpha"), seed, Sizes())
        write(asked.folder)
    if asked.write:
        write(asked.folder)
    return 0


def story(folder: Path, edges: np.ndarray, seed: int, sizes: Sizes) -> None:
    """All cells of a seed that are not there yet."""
    from launch.runfolder import environment, write_json
    from tasks.graph.signed.baselines import always_positive, six_feature_scores
    from tasks.graph.signed.metrics import sign_metrics
    from tasks.graph.signed.splits import split_edges

    train, test = split_edges(edges, seed, by_pair=True)
    home = folder / f"seed-{seed}"
    encoder = fitted(home, edges, train, seed, sizes)
    ways: dict[str, Callable[[], tuple[np.ndarray, dict[str, Any]]]] = {
        "always": lambda: (always_positive(test), {}),
        "counts": lambda: (six_feature_scores(train, test), {}),
        "predictor": lambda: (encoder.score(test[:, :2]), {}),
        "text": partial(by_text, home, train, test, seed, sizes),
        "soft": partial(by_soft_tokens, home, encoder, train, test, seed, sizes),
        "tool": partial(by_tool, home, encoder, train, test, seed, sizes),
    }
    for way, ask in ways.items():
        target = folder / f"seed-{seed}-{way}.json"
        if target.exists():
            continue
        start = time.monotonic()
        scores, more = ask()
        facts = {"seed": seed, "way": way, "test": len(test), "negative": int((test[:, 2] < 0).sum()), **more}
        facts |= {"metrics": sign_metrics(scores, test[:, 2]), "seconds": time.monotonic() - start}
        write_json(target, {**facts, "environment": environment(seed)})
        print(f"seed {seed}, {way}: {facts['metrics']}", flush=True)


def fitted(home: Path, edges: np.ndarray, train: np.ndarray, seed: int, sizes: Sizes) -> Any:
    """The SGCN of a seed, fitted now or found; members without training edges have vectors too."""
    from tasks.graph.signed.encoder import SignedGraphEncoder
    from tasks.graph.signed.options import published

    folder = home / "data" / ENCODER
    if not folder.exists():
        encoder = SignedGraphEncoder(published("sgcn", epochs=sizes.epochs), seed=seed)
        encoder.fit(train, nodes=np.unique(edges[:, :2])).save_pretrained(folder)
    return SignedGraphEncoder.from_pretrained(folder)


# ---------------------------------------------------------------- the three ways


def by_text(home: Path, train: np.ndarray, test: np.ndarray, seed: int, sizes: Sizes) -> tuple[np.ndarray, Any]:
    """Log-odds of "yes" by a model that sees nothing but the numbers of the two members."""
    from launch.models import load_causal_lm

    tokenizer = make_tokenizer()
    rows = [
        {"prompt": render(tokenizer, ask(u, v)), "response": WORDS[sign]}
        for u, v, sign in balanced(train, sizes.steps * sizes.batch, seed)
    ]
    model = load_causal_lm(learned(home, "text", tokenizer, rows, sizes.steps, seed, sizes))
    return log_odds(model, tokenizer, [render(tokenizer, ask(u, v)) for u, v in test[:, :2].tolist()]), {}


def by_soft_tokens(
    home: Path, encoder: Any, train: np.ndarray, test: np.ndarray, seed: int, sizes: Sizes
) -> tuple[np.ndarray, Any]:
    """Log-odds of "yes" by the text model, its members' numbers exchanged for their vectors."""
    from launch.runfolder import RunFolder
    from launch.supervised import SupervisedObjective, encode_rows
    from launch.trainer import fit
    from tasks.encoder import SoftTokens, VectorTable, soft

    tokenizer = make_tokenizer()
    table = VectorTable.of(encoder, encoder.ids.tolist())
    [start] = (home / "cache").glob("text-*/checkpoints/supervised/final")  # which `by_text` has made
    model = SoftTokens.from_decoder(start, table, "mlp", seed=seed)
    renderer = model.renderer(tokenizer, max_length=256)

    def prompt(u: int, v: int) -> str:
        return render(tokenizer, ask(soft(u), soft(v)))

    rows = [
        {"prompt": prompt(u, v), "response": WORDS[sign]}
        for u, v, sign in believed(encoder, train, sizes.soft_steps * sizes.batch, seed)
    ]
    run = RunFolder(home / "soft").open({}, seed)
    fit(
        model,
        SupervisedObjective(tokenizer.pad_token_id),
        encode_rows(rows, renderer),
        options=options(sizes.soft_steps, sizes.batch, sizes),
        run=run,
        name="soft",
        seed=seed,
    )
    return log_odds(model, tokenizer, [prompt(u, v) for u, v in test[:, :2].tolist()], renderer), {}


def by_tool(
    home: Path, encoder: Any, train: np.ndarray, test: np.ndarray, seed: int, sizes: Sizes
) -> tuple[np.ndarray, Any]:
    """Log-odds of "yes" in the last turn of an agent that may call the tool, and what its calls were like."""
    from launch.contracts import Sampling
    from launch.generate import HFGenerator
    from launch.models import load_causal_lm
    from launch.tools_pool import Pool
    from reasoning.agent import Agent, Budget, GeneratorTurns

    tokenizer, specs = make_tokenizer(), tools()
    draws = believed(encoder, train, sizes.tool_steps * sizes.tool_batch // 2, seed)
    rows = [row for draw in draws for row in lessons(tokenizer, specs, encoder, *draw)]
    model = load_causal_lm(learned(home, "tool", tokenizer, rows, sizes.tool_steps, seed, sizes, sizes.tool_batch))
    turns = GeneratorTurns(HFGenerator(model, tokenizer, batch_size=256), tokenizer)
    greedy = Sampling(max_new_tokens=96, temperature=0)
    pairs = [(int(u), int(v)) for u, v in test[:, :2]]
    with Pool(specs, home / "data", workers=1) as pool:
        agent = Agent(turns, pool, Budget(turns=2, calls=4, seconds=1e9), greedy)
        chats = agent.run([ask(u, v) for u, v in [*pairs, ASKED]])
    schemas = [spec.schema for spec in specs.values()]
    last = [turns.render(chat.messages()[:-1], schemas) for chat in chats]
    calls = [[(call.name, call.arguments) for step in chat.steps for call in step.turn.calls] for chat in chats]
    right = [made == [(TOOL, arguments(u, v))] for made, (u, v) in zip(calls, pairs, strict=False)]
    story = [{"role": m["role"], "content": m["content"], "calls": m.get("tool_calls")} for m in chats[-1].messages()]
    more = {"right_call": float(np.mean(right)), "story": story}
    return log_odds(model, tokenizer, last[:-1]), more


# ---------------------------------------------------------------- text


def ask(u: object, v: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Would user {u} trust user {v}?"}]


def arguments(u: int, v: int) -> dict[str, Any]:
    return {"pairs": [[u, v]], "encoder": ENCODER}


def tools() -> dict[str, Any]:
    from launch.tools import available

    return available([TOOL])


def lessons(tokenizer: Any, specs: Any, encoder: Any, u: int, v: int, sign: int) -> list[dict[str, str]]:
    """The two turns of a chat that calls the tool and answers what is true."""
    schemas = [spec.schema for spec in specs.values()]
    call = {"name": TOOL, "arguments": arguments(u, v)}
    chat: list[dict[str, Any]] = list(ask(u, v))
    asked = render(tokenizer, chat, schemas)
    chat.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]})
    chat.append({"role": "tool", "content": tool_says(encoder, u, v, specs[TOOL].unit)})
    return [
        {"prompt": asked, "response": f"<tool_call>{json.dumps(call)}</tool_call>"},
        {"prompt": render(tokenizer, chat, schemas), "response": WORDS[sign]},
    ]


def tool_says(encoder: Any, u: int, v: int, unit: str) -> str:
    """The line that `Pool.call` gives for a pair; a test holds them together."""
    chance = round(float(encoder.predict([[u, v]])[0]), 6)
    result = {"positive": [chance], "sign": [1 if chance > 0.5 else -1]}
    return f'{{"result": {json.dumps(result)}, "unit": {json.dumps(unit)}}}'


def render(tokenizer: Any, chat: Sequence[Any], schemas: Sequence[Any] = ()) -> str:
    text: str = tokenizer.apply_chat_template(
        list(chat), tools=list(schemas) or None, add_generation_prompt=True, tokenize=False
    )
    return text


def make_tokenizer() -> Any:
    """Words and digits of all that is said here, with the arithmetic world's chat template."""
    from tasks.worlds.arithmetic import RESPONSE_TEMPLATE, TEMPLATE
    from tasks.worlds.typed import word_tokenizer

    spec = tools()[TOOL]
    calls = [json.dumps({"name": TOOL, "arguments": arguments(17, 404)}), '"result": "positive": "sign": "unit": e-5']
    chat = ["Would user 1 trust user 2?", "yes", "no", " yes no: .,-\n", "0123456789"]
    tags = ["<tool><user><system><assistant><tool_call></tool_call>"]
    told = [f"{TOOL}: {spec.description}", spec.unit, *calls, *chat, *tags]
    found = {piece for text in told for piece in re.findall(_SPLIT, text)}
    pieces = ["<pad>", "<bos>", "<eos>", "<unk>", *sorted(found - {"<pad>", "<bos>", "<eos>", "<unk>"})]
    made: Any = word_tokenizer(pieces, _SPLIT, 512)
    made.chat_template, made.response_template = TEMPLATE, RESPONSE_TEMPLATE
    return made


def balanced(train: np.ndarray, count: int, seed: int) -> list[tuple[int, int, int]]:
    """`count` draws of training edges, every other one negative."""
    rng = random.Random(f"trust-{seed}")
    sides = [train[train[:, 2] * sign > 0].tolist() for sign in (1, -1)]
    return [tuple(rng.choice(sides[k % 2])) for k in range(count)]


def believed(encoder: Any, train: np.ndarray, count: int, seed: int) -> list[tuple[int, int, int]]:
    """`count` pairs, the source of one training edge and the target of another, with signs drawn by the SGCN's chance.

    The SGCN knows its own training edges far better (AUC .98) than others (.90): who learns on those what its word is
    worth trusts it too much, and who reads its vectors there learns edges by heart. Of strangers it knows no more than
    of held-out edges, and answers drawn by its chance teach to read the chance, not only its side of one half.
    """
    rng = np.random.default_rng([seed, 20])
    pairs = np.stack([rng.choice(train[:, end], count) for end in (0, 1)], axis=1)
    signs = np.where(rng.random(count) < encoder.predict(pairs), 1, -1)
    return [(int(u), int(v), int(sign)) for (u, v), sign in zip(pairs, signs, strict=True)]


# ---------------------------------------------------------------- models


def options(steps: int, batch: int, sizes: Sizes) -> Any:
    from launch.options import TrainOptions

    seldom = TrainOptions(weight_decay=0.01, warmup_ratio=0.05, save_steps=10**6, log_steps=50)
    return replace(seldom, learning_rate=sizes.rate, batch_size=batch, max_steps=steps)


def learned(
    home: Path, name: str, tokenizer: Any, rows: list[Any], steps: int, seed: int, sizes: Sizes, batch: int = 0
) -> Path:
    from launch.scratch import small_model

    return small_model(
        name,
        tokenizer,
        rows,
        hidden_size=sizes.hidden,
        layers=sizes.layers,
        length=256,
        train=options(steps, batch or sizes.batch, sizes),
        cache=home / "cache",
        seed=seed,
        initializer_range=0.1,
    )


def log_odds(model: Any, tokenizer: Any, prompts: Sequence[str], renderer: Any = None, batch: int = 256) -> np.ndarray:
    """log p("yes") - log p("no") as the next token: float64 [prompts]."""
    import torch

    from launch.rendering import Renderer, pad

    render_ids = (renderer or Renderer(tokenizer, 256)).prompt_ids
    yes, no = (tokenizer.convert_tokens_to_ids(text) for text in ("yes", "no"))
    ids = [render_ids(prompt) for prompt in prompts]
    found = np.zeros(len(ids))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    model.eval()
    with torch.no_grad():
        for start in range(0, len(ids), batch):
            part = order[start : start + batch]
            tokens, mask = pad([ids[i] for i in part], tokenizer.pad_token_id, side="left")
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
            asked = {"input_ids": tokens, "attention_mask": mask.long(), "position_ids": positions}
            logits = model(**asked, logits_to_keep=1).logits[:, -1].double()
            found[part] = (logits[:, yes] - logits[:, no]).numpy()
    return found


# ---------------------------------------------------------------- results


def write(folder: Path) -> None:
    """Write both result files from the cells that are finished in `folder`."""
    if not (found := finished(folder, "cell")):
        return
    ran_at, environments = commits(found), [one.pop("environment") for one in found]
    data = {
        "command": "python -m benchmarks.trust_story",
        "commits": ran_at,
        "threads": environments[0]["threads"],
        "versions": environments[0]["versions"],
        "seeds": sorted({one["seed"] for one in found}),
        "cells": found,
    }
    publish("trust_story", data, page, f"{len(found)} cells")


def page(data: dict[str, Any]) -> str:
    """docs/results/trust_story.md."""
    cells = data["cells"]
    sizes = {(cell["seed"], cell["test"], cell["negative"]) for cell in cells}
    tests = ", ".join(f"{n:,} ({negative} negative)" for _, n, negative in sorted(sizes))
    minutes = [cell["seconds"] / 60 for cell in cells if ROWS[cell["way"]].startswith("LM")]
    out = [
        "# Would user 17 trust user 404?",
        "",
        f"Seeds {', '.join(map(str, data['seeds']))}; `{data['command']}`; commits `{', '.join(data['commits'])}`; "
        f"two CPU cores, {data['threads']} thread, shared with other work; {min(minutes):.0f} to {max(minutes):.0f} "
        f"minutes a language model. Held-out edges of Bitcoin-alpha: {tests}; no pair has its other direction in "
        "training. Mean ± half of a 95 % interval over seeds (Student's t). Text alone learns the signs of training "
        "edges; tool and soft tokens learn, on pairs of strangers, signs drawn by the chance that the predictor gives.",
        "",
        f"| who answers | {' | '.join(COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for way, label in ROWS.items():
        mine = [cell["metrics"] for cell in cells if cell["way"] == way]
        if mine:
            out.append(f"| {label} | {' | '.join(interval([m[key] for m in mine], 3) for key in COLUMNS)} |")
    called = [cell for cell in cells if cell["way"] == "tool"]
    if called:
        rate = interval([cell["right_call"] for cell in called], 3)
        out += ["", f"Calls with the two members' numbers copied right: {rate} of the chats. One of them, seed 0:", ""]
        out += ["```", *(_line(message) for message in called[0]["story"]), "```"]
    return "\n".join([*out, ""])


def _line(message: dict[str, Any]) -> str:
    calls = "".join(
        f" {c['function']['name']}({json.dumps(c['function']['arguments'])})" for c in message["calls"] or ()
    )
    return f"{message['role']}: {message['content']}{calls}"


if __name__ == "__main__":
    sys.exit(main())
