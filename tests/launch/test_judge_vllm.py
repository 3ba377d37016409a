"""A real vLLM server as judge: its log-probabilities are the model's, and a second run asks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from launch.judge import JudgeClient, Question
from launch.models import load_tokenizer
from launch.rendering import Renderer
from launch.serve import Server

pytestmark = pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine
QUESTIONS = [Question([{"role": "user", "content": f"m or M? {i}"}], 1, 1.0, 5) for i in range(3)]


def test_log_probabilities_of_a_served_judge_are_the_models(
    vllm_server: Server, served_model: Path, tmp_path: Path
) -> None:
    with JudgeClient(vllm_server.url, tmp_path, budget=1.0) as client:
        judged = client.ask(QUESTIONS, lambda reply: reply.top_logprobs or None)
        assert client.ask(QUESTIONS, lambda reply: reply.top_logprobs or None).metrics["judge/cached"] == 3
    assert judged.metrics["judge/parse_failures"] == judged.metrics["judge/unanswered"] == 0
    assert judged.metrics["judge/completion_tokens"] == 3
    tokenizer = load_tokenizer(served_model)
    model, renderer = AutoModelForCausalLM.from_pretrained(served_model).eval(), Renderer(tokenizer)
    for question, found in zip(QUESTIONS, judged.verdicts, strict=True):
        assert found is not None
        ids = torch.tensor([renderer.prompt_ids(list(question.messages))])
        with torch.no_grad():
            expected = model(ids).logits[0, -1].log_softmax(-1)
        told = [entry["logprob"] for entry in found[:5]]
        assert told == pytest.approx(expected.topk(5).values.tolist(), abs=1e-3)
