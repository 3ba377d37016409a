"""Placeholders in prompts, and the renderer that turns them into soft token ids.

A placeholder reaches the tokenizer as one special token, `MARK`, so that chat templates and merges treat it as any
other; its id is then replaced by the ids of the item's vectors. All of that happens on ids: no model sees `MARK`.
"""

from __future__ import annotations

import re
from typing import Any

from transformers.tokenization_utils_base import AddedToken

from launch.contracts import Prompt
from launch.errors import DataError, RenderingError
from launch.rendering import Cut, Encoded, End, Renderer

MARK = "<|soft|>"
_PLACE = re.compile(r"<\|soft:(.+?)\|>", re.DOTALL)


def soft(name: object) -> str:
    """The placeholder of an item, to be put anywhere in a prompt or chat message."""
    text = str(name)
    if not text or "|>" in text:
        raise DataError(f"item name {text!r} cannot stand in a placeholder; use a name without '|>' that is not empty")
    return f"<|soft:{text}|>"


class SoftRenderer(Renderer):
    """A `Renderer` in whose prompts placeholders (`soft`) stand for items; made by `SoftTokens.renderer`.

    Text from outside that spells a placeholder is one: take ``<|soft`` out of what must not name items.
    """

    def __init__(
        self,
        tokenizer: Any,
        spans: dict[str, tuple[int, int]],
        first_id: int,
        tokens: int,
        max_length: int = 2048,
        cut: Cut = "prompt_left",
        end: End = "force",
    ) -> None:
        super().__init__(tokenizer, max_length, cut, end)
        tokenizer.add_tokens([AddedToken(MARK, special=True, normalized=False)])
        self.spans, self.first_id, self.tokens = spans, first_id, tokens
        self.mark = tokenizer.convert_tokens_to_ids(MARK)

    def prompt_text(self, prompt: Prompt) -> str:
        """The prompt as text, with `MARK` where an item stands."""
        return _PLACE.sub(MARK, super().prompt_text(prompt))

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids with soft tokens in the items' places.

        Raises:
            DataError: an item that the table does not have, or `MARK` itself in the prompt.
        """
        names = _PLACE.findall(super().prompt_text(prompt))
        ids = super().prompt_ids(prompt)
        if ids.count(self.mark) != len(names):
            raise DataError(f"the prompt holds {MARK} itself; name an item as {soft('NAME')}")
        items = iter(names)
        return [id for word in ids for id in (self._soft_ids(next(items)) if word == self.mark else (word,))]

    def _soft_ids(self, name: str) -> range:
        if name not in self.spans:
            some = ", ".join(list(self.spans)[:3])
            raise DataError(f"no vectors for item {name!r}; the table has {len(self.spans)} items, such as {some}")
        first, end = self.spans[name]
        return range(self.first_id + first * self.tokens, self.first_id + end * self.tokens)

    def _join(self, prompt: list[int], answer: list[int]) -> Encoded:
        if self.mark in answer:
            raise RenderingError(f"an answer holds {MARK}; soft tokens are read and never written")
        return super()._join(prompt, answer)
