"""Text to token ids, once and the same way for training, scoring and sampling.

A prompt is rendered alone, with its generation header, and tokenised alone; the answer is tokenised alone and
appended. So the prompt's ids are the same for all its answers, and sampled ids can be put behind them as they are:
tokens in are tokens out. (Tokenising the joined text instead may merge across the seam.)

Published reward-model code disagrees with itself on BOS, EOS and the side that is cut; here these are one policy,
whose fingerprint travels in the checkpoint and is compared before anything is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from launch.contracts import Completion, Message, Prompt
from launch.errors import DataError, RenderingError

if TYPE_CHECKING:
    import torch

Cut = Literal["right", "prompt_left"]
End = Literal["force", "keep"]


@dataclass(frozen=True)
class Encoded:
    """One (prompt, answer) sequence."""

    ids: list[int]
    prompt_length: int
    """How many of `ids` belong to the prompt."""
    cut: int
    """How many tokens the length limit took away."""


class Renderer:
    """Renders with one tokenizer under one policy.

    Args:
        tokenizer: a fast `transformers` tokenizer with an EOS token.
        max_length: tokens of prompt and answer together.
        cut: "right" cuts the joined sequence on its right (preference models). "prompt_left" drops the prompt's
            left first, keeping at least one token of it, and only then the answer's right (policies).
        end: "force" makes the last token EOS, overwriting it where the sequence is full (preference models read
            their state there). "keep" leaves the end as it came, so that an answer cut while sampling is never
            given an end it did not have.
    """

    def __init__(self, tokenizer: Any, max_length: int = 2048, cut: Cut = "right", end: End = "force") -> None:
        if tokenizer.eos_token_id is None:
            raise RenderingError(
                f"tokenizer {tokenizer.name_or_path!r} has no EOS token; set tokenizer.eos_token before rendering"
            )
        if max_length < 2:
            raise RenderingError(f"max_length {max_length} leaves no room for a prompt and an answer; use 2 or more")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.cut: Cut = cut
        self.end: End = end

    @property
    def eos(self) -> int:
        return self.tokenizer.eos_token_id

    def prompt_text(self, prompt: Prompt) -> str:
        """The prompt as text; chat messages through the template, generation header included."""
        if isinstance(prompt, str):
            return prompt
        check_messages(prompt)
        if self.tokenizer.chat_template is None:
            raise RenderingError(
                f"tokenizer {self.tokenizer.name_or_path!r} has no chat template but the prompt is chat messages; "
                "set tokenizer.chat_template, or give prompts as plain text"
            )
        return self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt with exactly one BOS (none if the tokenizer has none). Not cut."""
        text = self.prompt_text(prompt)
        # Templates such as Llama's write BOS themselves, and the tokenizer would write it a second time.
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        bos = self.tokenizer.bos_token_id
        if bos is not None and self._adds_bos() and ids[:1] != [bos]:
            ids = [bos, *ids]
        if bos is not None and bos != self.eos and ids[:2] == [bos, bos]:
            raise RenderingError(
                f"the prompt starts with two BOS tokens ({self.tokenizer.bos_token!r}); "
                "remove the one in the text or in the chat template"
            )
        if not ids:
            raise DataError("the prompt is empty after rendering; give it at least one token or a BOS token")
        return ids

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Render a prompt and a text answer."""
        answer = list(self.tokenizer(response, add_special_tokens=False)["input_ids"])
        return self._join(self.prompt_ids(prompt), answer)

    def encode_answers(self, prompt: Prompt, responses: Sequence[str]) -> list[Encoded]:
        """`encode` of one prompt with each of its answers; the prompt is rendered once, the answers go in one call."""
        if not responses:
            return []
        first = self.prompt_ids(prompt)
        answers = self.tokenizer(list(responses), add_special_tokens=False)["input_ids"]
        return [self._join(first, list(answer)) for answer in answers]

    def encode_sampled(self, completion: Completion) -> Encoded:
        """Join the ids that were sampled behind the ids they were sampled after, without tokenising anything."""
        return self._join(list(completion.prompt_ids), list(completion.token_ids))

    def _join(self, prompt: list[int], answer: list[int]) -> Encoded:
        if self.end == "force" and answer[-1:] != [self.eos]:
            answer = [*answer, self.eos]
        over = max(0, len(prompt) + len(answer) - self.max_length)
        if over and self.cut == "prompt_left":
            from_prompt = min(over, len(prompt) - 1)
            prompt = prompt[from_prompt:]
            answer = answer[: self.max_length - len(prompt)]
        ids = (prompt + answer)[: self.max_length]
        if over and self.end == "force":
            ids[-1] = self.eos
        return Encoded(ids=ids, prompt_length=min(len(prompt), len(ids)), cut=over)

    def _adds_bos(self) -> bool:
        """Whether the tokenizer itself puts BOS in front of plain text."""
        with_special = self.tokenizer("a")["input_ids"]
        return bool(with_special) and with_special[0] == self.tokenizer.bos_token_id

    def fingerprint(self) -> dict[str, str | int | None]:
        """What must agree between training and use of a model; JSON-ready."""
        template = self.tokenizer.chat_template
        return {
            "tokenizer": _sha(self.tokenizer.backend_tokenizer.to_str()),
            "chat_template": None if template is None else _sha(json.dumps(template)),
            "pad": self.tokenizer.pad_token_id,
            "bos": self.tokenizer.bos_token_id,
            "eos": self.tokenizer.eos_token_id,
            "max_length": self.max_length,
            "cut": self.cut,
            "end": self.end,
        }

    def check(self, saved: dict[str, Any]) -> None:
        """Raise RenderingError if a model saved with `saved` would read other tokens from this renderer."""
        mine = self.fingerprint()
        # The pad id never reaches a score (it is masked), so it may differ.
        wrong = [k for k in mine if k != "pad" and k in saved and saved[k] != mine[k]]
        if wrong:
            told = ", ".join(f"{k}: saved {_short(saved[k])}, now {_short(mine[k])}" for k in wrong)
            raise RenderingError(
                f"this model was trained under another rendering ({told}); "
                "use the tokenizer and settings saved beside the model"
            )


def check_messages(prompt: Sequence[Message]) -> None:
    """Raise DataError unless the prompt has role and content in every turn and ends with a user turn."""
    for turn in prompt:
        if not (isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))):
            got = sorted(map(str, turn)) if isinstance(turn, dict) else f"a {type(turn).__name__}"
            raise DataError(f"a chat turn needs text under 'role' and 'content', got {got}")
    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        last = prompt[-1]["role"] if prompt else "no turn at all"
        raise DataError(f"a prompt must end with a user turn, this one ends with {last!r}; move the answer out of it")


def pad(
    rows: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"] = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad id lists to one tensor: ids int64 [B, T] and mask bool [B, T] (True at real tokens)."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for b, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[b, where] = torch.tensor(row, dtype=torch.long)
        mask[b, where] = True
    return ids, mask


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) and len(value) == 64 else repr(value)
