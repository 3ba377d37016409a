"""The arithmetic world: questions that one of two tools answers, or none, and whose answer is known.

    What is 37 times 46?                  multiply, 1702
    I need the sum of 8 and 51.           add, 59
    Tell me the first of 12 and 7.        no tool, 12

A question is a wording (nine, three for each of `ACTIONS`) in a frame (four). Of each wording one frame is held out,
and so are pairs of numbers: no test question shares either with a training question. Demonstrations take the right
action with probability ``start_right`` and the two others evenly; at 1/3 the wording says nothing about the tool, and
a policy that starts there settles on one action before it has learnt what the wording means (docs/log.md).

The tokenizer carries a chat template of its own with the `response_template` by which transformers, and so TRL, reads
calls; the calls are in Hermes' form, which vLLM's parser ``hermes`` reads too.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from launch.errors import ConfigError, DataError
from launch.tools import ToolSpec, tool
from tasks.worlds.typed import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ACTIONS = ("add", "multiply", "")
"""Tools, "" for none."""
_WORDINGS = {
    "add": ("{a} plus {b}", "the sum of {a} and {b}", "{a} and {b} together"),
    "multiply": ("{a} times {b}", "the product of {a} and {b}", "{a} taken {b} times"),
    "": ("the first of {a} and {b}", "{a} rather than {b}", "{a} without {b}"),
}
_FRAMES = ("What is {}?", "Tell me {}.", "I need {}.", "How much is {}?")

TEMPLATE = (
    "{{ bos_token }}{% for t in tools or [] %}<tool>{{ t.function.name }}: {{ t.function.description }}\n{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    '{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", '
    '"arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<assistant>",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": "<eos>", "content": "text"},
    },
}

_TAGS = ("<tool>", "<user>", "<system>", "<assistant>", "<tool_call>", "</tool_call>")
_JSON = ('{"name": "', '", "arguments": ', '{"a": ', ', "b": ', "}}", '{"result": ', ', "unit": "', '"}', '{"error": "')
_WORDS = """
What is Tell me I need How much plus the sum of and together times product taken first rather than without
add multiply Add Multiply two numbers The
"""
_SPLIT = r"</?\w+>|\{\"name\": \"|\", \"arguments\": |\{\"a\": |, \"b\": |\}\}|\{\"result\": |, \"unit\": \"|\"\}|\{\"error\": \"|\d| (?=\d)| ?[A-Za-z]+|\n|[ .,?:]"  # noqa: E501


@tool(seconds=10)
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.

    Returns:
        The sum.
    """
    return a + b


@tool(seconds=10)
def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a: The first number.
        b: The second number.

    Returns:
        The product.
    """
    return a * b


class _Asked(NamedTuple):
    """A question, and the tool that answers it, "" for none."""

    chat: list[dict[str, Any]]
    tool: str
    a: int
    b: int

    def result(self, action: str) -> int:
        """The answer that an action leads to."""
        return {"add": self.a + self.b, "multiply": self.a * self.b, "": self.a}[action]


@dataclass(frozen=True)
class ArithmeticWorld:
    """The world and its constants. Frozen and made of plain numbers, so it can key a cache."""

    largest: int = 99
    """Numbers are 2 to this."""
    start_right: float = 0.6
    """Share of demonstrations that take the right action; 1/3: the wording says nothing."""
    train: int = 4000
    test: int = 400
    """Questions per split."""
    test_share: float = 0.2
    """Share of the pairs of numbers that are held out."""
    name: str = "arithmetic"

    def __post_init__(self) -> None:
        if self.largest < 9:
            raise ConfigError(f"largest {self.largest} leaves too few pairs of numbers; use 9 or more", "largest")
        if not 0 <= self.start_right <= 1:
            raise ConfigError(f"start_right {self.start_right}: give 0 to 1", "start_right")
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share {self.test_share}: give more than 0 and less than 1", "test_share")

    # ------------------------------------------------------------ text

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer, numbers by digits; ``decode(encode(x)) == x`` for every text of this world."""
        words = _WORDS.split()
        pieces = ["<pad>", "<bos>", "<eos>", "<unk>", *_TAGS, *_JSON, *"0123456789", " ", "\n", ".", ",", "?", ":"]
        made = word_tokenizer([*pieces, *words, *(f" {word}" for word in words)], _SPLIT, 256)
        made.chat_template, made.response_template = TEMPLATE, RESPONSE_TEMPLATE
        return made

    @staticmethod
    def tools() -> dict[str, ToolSpec]:
        """The two tools by name."""
        return {spec.name: spec for spec in (ToolSpec.of(add), ToolSpec.of(multiply))}

    def rows(self, split: Literal["train", "test"]) -> list[dict[str, Any]]:
        """Rows {"prompt": chat, "answer": text, "tool": its name or ""} of a split, in a fixed order."""
        if split not in ("train", "test"):
            raise DataError(f"the arithmetic world has no split {split!r}: ask for 'train' or 'test'")
        rng = random.Random(f"arithmetic-{split}")
        count = self.train if split == "train" else self.test
        drawn = (self._draw(rng, split) for _ in range(count))
        return [{"prompt": asked.chat, "answer": str(asked.result(asked.tool)), "tool": asked.tool} for asked in drawn]

    def demonstrations(self, count: int, seed: int) -> list[dict[str, str]]:
        """`count` rows {"prompt", "response"}: each a turn, rendered as TRL and the agent render it.

        A chat whose action is a tool gives two rows, its call and its answer, which is what the tool said.
        """
        rng = random.Random(f"demonstrations-{seed}")
        specs = self.tools()
        tokenizer: Any = self.tokenizer()
        schemas = [spec.schema for spec in specs.values()]

        def render(chat: list[dict[str, Any]]) -> str:
            return tokenizer.apply_chat_template(chat, tools=schemas, add_generation_prompt=True, tokenize=False)

        found: list[dict[str, str]] = []
        while len(found) < count:
            asked = self._draw(rng, "train")
            right = rng.random() < self.start_right
            action = asked.tool if right else rng.choice([other for other in ACTIONS if other != asked.tool])
            answer, chat = str(asked.result(action)), list(asked.chat)
            if action:
                call = {"name": action, "arguments": {"a": asked.a, "b": asked.b}}
                found.append({"prompt": render(chat), "response": f"<tool_call>{json.dumps(call)}</tool_call>"})
                chat += [
                    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
                    {"role": "tool", "content": f'{{"result": {answer}, "unit": "{specs[action].unit}"}}'},
                ]
            found.append({"prompt": render(chat), "response": answer})
        return found[:count]

    def _draw(self, rng: random.Random, split: str) -> _Asked:
        tool = rng.choice(ACTIONS)
        wording = rng.randrange(3)
        held = (ACTIONS.index(tool) + wording) % len(_FRAMES)
        frame = held if split == "test" else rng.choice([f for f in range(len(_FRAMES)) if f != held])
        a, b = self._numbers(rng, split)
        question = _FRAMES[frame].format(_WORDINGS[tool][wording].format(a=a, b=b))
        return _Asked([{"role": "user", "content": question}], tool, a, b)

    def _numbers(self, rng: random.Random, split: str) -> tuple[int, int]:
        while True:
            a, b = rng.randint(2, self.largest), rng.randint(2, self.largest)
            if (random.Random(f"{a} {b}").random() < self.test_share) == (split == "test"):
                return a, b
