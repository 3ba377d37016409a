"""A tool, chats that need it, a template that shows it, and a tiny model that has learned these chats by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.tools import ToolSpec, tool

TEMPLATE = (
    "{{ bos_token }}{% for t in tools or [] %}<|system|>{{ t.function.name }}: {{ t.function.description }}{% endfor %}"
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>{{ m.content or '' }}"
    '{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", '
    '"arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@tool(seconds=60)
def add(a: int, b: int) -> int:
    """Add.

    Args:
        a: One number.
        b: The other.

    Returns:
        The sum.
    """
    return a + b


@tool(seconds=60)
def wait(seconds: float) -> list[float]:
    """Wait.

    Args:
        seconds: How long.

    Returns:
        When it began and ended, in seconds of this machine's clock.
    """
    import time

    began = time.monotonic()
    time.sleep(seconds)
    return [began, time.monotonic()]


TOOLS = {spec.name: spec for spec in (ToolSpec.of(add),)}
WORDS = ["<tool_call>", "</tool_call>", '{"name": "add", "arguments": {"a": ', ', "b": ', "}}", '{"result": ',
         ', "unit": "The sum."}', "add: Add."]  # fmt: skip
"""Tokens of their own, so that the chats are short."""
CHATS: dict[str, tuple[list[tuple[int, int]], str]] = {
    "3+4?": ([(3, 4)], "7"),
    "5+9?": ([(5, 9)], "14"),
    "1+2, 8+8?": ([(1, 2), (8, 8)], "3, 16"),
    "Hi!": ([], "Hello."),
}
"""Questions, the calls that answer them, and the answer."""


def called(a: int, b: int) -> str:
    """A call in words."""
    return f'<tool_call>{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}</tool_call>'


def lessons(tokenizer: Any) -> list[dict[str, str]]:
    """Every turn of the chats as a prompt and its response, rendered as the agent renders them."""
    rows = []
    schemas = [spec.schema for spec in TOOLS.values()]

    def render(chat: list[dict[str, Any]]) -> str:
        return tokenizer.apply_chat_template(chat, tools=schemas, add_generation_prompt=True, tokenize=False)

    for question, (calls, answer) in CHATS.items():
        chat: list[dict[str, Any]] = [{"role": "user", "content": question}]
        if calls:
            rows.append({"prompt": render(chat), "response": "".join(called(a, b) for a, b in calls)})
            functions = [{"function": {"name": "add", "arguments": {"a": a, "b": b}}} for a, b in calls]
            chat.append({"role": "assistant", "content": "", "tool_calls": functions})
            chat += [{"role": "tool", "content": json.dumps({"result": a + b, "unit": "The sum."})} for a, b in calls]
        rows.append({"prompt": render(chat), "response": answer})
    return rows


def taught(folder: Path) -> Path:
    """Train the model, save it as a folder that transformers and vLLM load, and return that."""
    from transformers import LlamaConfig

    from launch.models import tiny_like
    from launch.options import TrainOptions
    from launch.rendering import Renderer
    from launch.runfolder import RunFolder
    from launch.supervised import SupervisedObjective, encode_rows
    from launch.trainer import fit
    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(TEMPLATE)
    tokenizer.add_tokens(WORDS)
    shape = LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=256)
    model = tiny_like(shape, vocab=len(tokenizer))
    rows = encode_rows(lessons(tokenizer), Renderer(tokenizer, 256))
    options = TrainOptions(learning_rate=5e-3, batch_size=len(rows), max_steps=150, save_steps=10**6, log_steps=50,
                           warmup_ratio=0.05)  # fmt: skip
    run = RunFolder(folder / "run").open({}, 0)
    fit(model, SupervisedObjective(), rows, options=options, run=run, name="sums", seed=0)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"
