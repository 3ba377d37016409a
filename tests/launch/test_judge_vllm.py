"""A real vLLM server as judge: its log-probabilities are the model's, a second run asks nothing, and a whole evaluation
in which nothing is faked: it answers, it judges, the run is killed and goes on."""

from __future__ import annotations

import json
import math
import re
import signal
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from launch.cli import main
from launch.contracts import Sampling
from launch.generate import HFGenerator
from launch.judge import Cache, JudgeClient, Question
from launch.models import load_tokenizer
from launch.rendering import Renderer
from launch.serve import Server
from tasks.benchmarks import alpaca_eval
from tasks.benchmarks.files import read_rows, write_rows

pytestmark = pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine
ROOT = Path(__file__).parents[2]
QUESTIONS = [Question([{"role": "user", "content": f"m or M? {i}"}], 1, 1.0, 5) for i in range(3)]
TEMPLATE = "<|im_start|>user\n{instruction}\nm: {output_1}\nM: {output_2}\n" + "0F" * 16 + "<|im_end|>"
"""What stands at the end makes this random model name one of the two nearly always."""
TOKENS = 6
READABLE, SILENT = 17, 3
"""Of twenty questions, those to which the judge's reply names an answer, and those to which it does not."""


def test_log_probabilities_of_a_served_judge_are_the_models(
    vllm_server: Server, served_model: Path, tmp_path: Path
) -> None:
    with JudgeClient(vllm_server.url, tmp_path, budget=1.0) as client:
        judged = client.ask(QUESTIONS, lambda reply: reply.top_logprobs or None)
        assert client.ask(QUESTIONS, lambda reply: reply.top_logprobs or None).metrics["judge/cached"] == 3
    assert judged.metrics["judge/parse_failures"] == judged.metrics["judge/unanswered"] == 0
    assert judged.metrics["judge/completion_tokens"] == 3
    judge = InProcess(served_model)
    for question, found in zip(QUESTIONS, judged.verdicts, strict=True):
        assert found is not None
        told = [entry["logprob"] for entry in found[:5]]
        expected = [entry["logprob"] for entry in judge.top(question.messages)]
        assert told == pytest.approx(expected, abs=1e-3)


class InProcess:
    """The served model without a server: the slow twin of both of its parts in an evaluation."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def answers(self, prompts: list[str]) -> list[str]:
        greedy = Sampling(max_new_tokens=TOKENS, temperature=0.0)
        generator = HFGenerator(self.model, self.tokenizer, batch_size=64)
        return [row[0].text for row in generator.generate(prompts, 1, greedy)]

    @torch.no_grad()
    def top(self, messages: Any) -> list[dict[str, Any]]:
        """The five likeliest first tokens of a reply."""
        ids = torch.tensor([Renderer(self.tokenizer).prompt_ids(list(messages))])
        best = self.model(ids).logits[0, -1].log_softmax(-1).topk(5)
        tokens = self.tokenizer.convert_ids_to_tokens(best.indices)
        return [{"token": t, "logprob": p} for t, p in zip(tokens, best.values.tolist(), strict=True)]

    def verdict(self, pair: dict[str, Any]) -> float:
        top = self.top(alpaca_eval.judge_messages(TEMPLATE, pair))
        return alpaca_eval.preference(top, alpaca_eval.is_swapped(pair["instruction"]))


def twenty_pairs(judge: InProcess) -> list[dict[str, Any]]:
    """Questions, the model's answers, a reference's, and what the judge will say: seventeen times that one of the two
    is better, three times nothing that could be read."""
    asked = [f"Why {mark}?" for mark in string.ascii_letters + string.digits]
    pairs = [
        {"instruction": instruction, "output_1": "x", "output_2": answer}
        for instruction, answer in zip(asked, judge.answers(asked), strict=True)
    ]
    told = [{**pair, "preference": judge.verdict(pair)} for pair in pairs]
    readable = [pair for pair in told if not math.isnan(pair["preference"])]
    silent = [pair for pair in told if math.isnan(pair["preference"])]
    assert len(readable) >= READABLE and len(silent) >= SILENT
    return readable[:READABLE] + silent[:SILENT]


def requests(server: Server) -> int:
    """What the server has answered since it started, by its own count."""
    told = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return int(sum(map(float, re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)$", told, re.MULTILINE))))


def test_a_killed_evaluation_with_nothing_faked_judges_every_item_once(
    vllm_server: Server, served_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty prompts through answer, judge, score and page, killed by SIGKILL with ten replies stored and called again.
    Answers and verdicts are those of the model in process. (`benchmarks/round_trip.py` does it with the demo's models
    and the official prompt.)"""
    pairs = twenty_pairs(InProcess(served_model))
    reference = [{"instruction": p["instruction"], "output": p["output_1"], "generator": "ref"} for p in pairs]
    (tmp_path / "prompt.txt").write_text(TEMPLATE)
    out = tmp_path / "out"
    words = ["eval", "alpaca_eval", "--model", vllm_server.url, "--plain", "--name", "policy", "--out", str(out)]
    words += ["--baseline", str(write_rows(tmp_path / "ref.json", reference)), "--judge", vllm_server.url]
    words += ["--prompts", str(tmp_path / "prompt.txt"), "--other-prompts", "--concurrency", "4"]
    words += ["--max-tokens", str(TOKENS), "--budget", "0.2", "--json"]
    before = requests(vllm_server)

    killed = subprocess.run([sys.executable, "-m", "tests.launch.killed_eval", "10", *words], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and not (out / "scores.json").exists()
    kept = set(Cache(out / "judge_cache").keys())
    assert 10 <= len(kept) < 14
    answered = (out / "results/policy/model_outputs.json").read_bytes()

    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["judge/questions"], told["judge/cached"]) == (20, len(kept))
    assert told["judge/calls"] == 20 - len(kept) and told["judge/unanswered"] == 0
    assert 40 <= requests(vllm_server) - before <= 40 + 4  # twenty answers, twenty verdicts, four cut off by the kill
    assert kept < set(Cache(out / "judge_cache").keys()) and len(set(Cache(out / "judge_cache").keys())) == 20
    assert (out / "results/policy/model_outputs.json").read_bytes() == answered

    rows = read_rows(out / "results/policy/llama/annotations.json")
    assert [row["instruction"] for row in rows] == [pair["instruction"] for pair in pairs]
    assert [row["output_2"] for row in rows] == [pair["output_2"] for pair in pairs]
    verdicts = [math.nan if row["preference"] is None else row["preference"] for row in rows]
    assert verdicts == pytest.approx([pair["preference"] for pair in pairs], abs=1e-3, nan_ok=True)
    expected = [pair["preference"] - 1 for pair in pairs[:READABLE]]
    assert told["win_rate"] == pytest.approx(100 * sum(expected) / READABLE, abs=0.1)
    assert (told["n_total"], told["n_failed"], told["judge/parse_failures"]) == (READABLE, SILENT, SILENT)
    assert "AlpacaEval 2, judged by llama, against ref" in (out / "report.html").read_text()


def test_an_engine_in_process_answers_as_the_server_does(
    vllm_server: Server, served_model: Path, tmp_path: Path
) -> None:
    """`--engine vllm`: MT-Bench's two turns, at two temperatures, by one engine. The greedy dialogue is the server's;
    the others are sampled from other seeds there, since the server renders."""
    questions = [
        {"question_id": i, "category": category, "turns": [f"Why {i}?", "And?"]}
        for i, category in ((81, "writing"), (111, "poetry"), (121, "extraction"))
    ]
    prompts = [
        {"name": f"single-v1{more}", "system_prompt": "Judge.", "prompt_template": "{answer_1}" + "0F" * 16}
        for more in ("", "-multi-turn")
    ]
    words = ["eval", "mt_bench", "--questions", write_rows(tmp_path / "q.jsonl", questions), "--name", "mine"]
    words += ["--prompts", write_rows(tmp_path / "p.jsonl", prompts), "--other-prompts", "--max-tokens", TOKENS]
    words += ["--references", write_rows(tmp_path / "r.jsonl", []), "--judge", vllm_server.url, "--budget", 1]
    written = {}
    for name, model in (("engine", [served_model, "--engine", "vllm"]), ("server", [vllm_server.url])):
        out = tmp_path / name
        told = [sys.executable, "-m", "launch", *words, "--model", *model, "--out", out]
        done = subprocess.run([*map(str, told)], cwd=ROOT, check=False, capture_output=True, text=True)
        rows = read_rows(out / "data/mt_bench/model_answer/mine.jsonl") if done.returncode == 0 else []
        assert len(rows) == 3, done.stderr
        written[name] = [row["choices"][0]["turns"] for row in rows]
    assert written["engine"][2] == written["server"][2] and all(len(turns) == 2 for turns in written["engine"])
    stores = sorted(folder.name[:10] for folder in (tmp_path / "engine/generation/mine").iterdir())
    assert stores == ["turn1-t0.0", "turn1-t0.7", "turn2-t0.0", "turn2-t0.7"]  # poetry: as any other category
    assert not list((tmp_path / "engine/engines").glob("engine-*.json"))
