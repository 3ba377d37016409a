"""One prompt, read once, and answers that come one after the other: each costs a pass over its own tokens.

    session = model.session("Name a prime.")
    for answer in ("7", "8", "nine"):
        session.add(answer)
    session.scores()                                   # as model.score("Name a prime.", ["7", "8", "nine"])

The prompt's ids, keys and values are kept in the session, so that an answer of R tokens costs R, whatever the prompt's
length. The weights must not change in between. Backbones that cannot be packed (bidirectional ones) read the prompt
again for each answer; scores are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from align.preference.batch import layout_for
from align.preference.encode import evaluating, finite, padded_heads
from align.preference.score import Scores
from launch.contracts import Completion, Prompt
from launch.errors import DataError

if TYPE_CHECKING:
    from align.preference.model import PreferenceModel


class Session:
    """Made by ``PreferenceModel.session``.

    Raises:
        RenderingError: the tokenizer, template, length policy or tau is not the one trained with.
    """

    def __init__(self, model: PreferenceModel, prompt: Prompt) -> None:
        self.model, self.prompt = model, prompt
        self.answers: list[str] = []
        self.tokens_encoded = 0
        """Tokens that went through the backbone so far, the prompt's included."""
        self._known: dict[str, dict[str, Any]] = {}
        self._prompt_ids = tuple(model.renderer.prompt_ids(prompt))
        self._ids = list(self._prompt_ids[: model.renderer.max_length - 1])  # as `batch.prompt_only` cuts it
        self._cache: Any = None
        if layout_for(model.config) == "padded":
            with torch.no_grad():
                self._lambda_sq = padded_heads(model, [self._ids], {0: 0}, [len(self._ids) - 1], 1)[2][0]
            self.tokens_encoded += len(self._ids)
            return
        from transformers import DynamicCache

        # Without a config every layer keeps all its keys, so that a sliding one can be cut back to the prompt, too; its
        # window is in the mask.
        self._cache = DynamicCache()
        with torch.no_grad(), evaluating(model):
            h_x = self._run(self._ids)
            empty = h_x.new_zeros(1, 0)
            self._lambda_sq = (model.gate_head(h_x) if model.config.kind != "bt" else empty)[0].cpu().numpy()

    def add(self, response: str) -> int:
        """Judge one more answer; returns its number, from 0. An answer that was there before costs nothing.

        Raises:
            DataError: not text, or states that are not finite.
        """
        if not isinstance(response, str):
            raise DataError(f"answer {len(self.answers)} is {type(response).__name__} {response!r}; it must be text")
        if response not in self._known:
            self._known[response] = self._embed(response)
        self.answers.append(response)
        return len(self.answers) - 1

    def scores(self) -> Scores:
        """The game among the answers so far, in the order they came.

        Raises:
            DataError: there are none.
        """
        if not self.answers:
            raise DataError("a session without answers has no scores; add at least one")
        return self.model.compare([self._known[answer] for answer in self.answers], self._lambda_sq)

    def _embed(self, response: str) -> dict[str, Any]:
        """r and v of an answer, as ``PreferenceModel.embed`` gives them."""
        model, ids = self.model, self._encode(response)
        with torch.no_grad():
            if self._cache is None:
                self.tokens_encoded += len(ids)
                r, v, _ = padded_heads(model, [ids], {}, [], 1)
                return {"r": float(r[0]), "v": v[0]}
            with evaluating(model):
                h_y = self._behind_the_prompt(ids)
                r_y = model.rank_head(h_y) if model.config.kind != "gpm" else h_y.new_zeros(1)
                v_y = model.cyclic_head(h_y) if model.config.kind != "bt" else h_y.new_zeros(1, 0)
        r, v, _ = finite(r_y.cpu().numpy(), v_y.cpu().numpy(), np.zeros((1, 0), np.float32))
        return {"r": float(r[0]), "v": v[0]}

    def _encode(self, response: str) -> list[int]:
        """Ids of prompt and answer, as ``Renderer.encode`` gives them; only the answer is made into tokens."""
        answer = tuple(self.model.renderer.tokenizer(response, add_special_tokens=False)["input_ids"])
        return self.model.renderer.encode_sampled(Completion("", answer, (), "stop", self._prompt_ids)).ids

    def _behind_the_prompt(self, ids: list[int]) -> torch.Tensor:
        """Last state of a sequence that begins as the prompt; the cache is the prompt's again afterwards."""
        prompt = len(self._ids)  # always a proper beginning of `ids`: at the length limit EOS replaces a later token
        try:
            return self._run(ids[prompt:], prompt)
        finally:
            more = self._cache.get_seq_length() - prompt
            if more:
                self._cache.crop(-more)

    def _run(self, ids: list[int], before: int = 0) -> torch.Tensor:
        """Last state float32 [1, H] of tokens behind `before` cached ones, which stay in the cache with them."""
        self.tokens_encoded += len(ids)
        device = self.model.device
        found = self.model.backbone(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.arange(before, before + len(ids), device=device)[None],
            past_key_values=self._cache,
            use_cache=True,
        )
        return found.last_hidden_state[:, -1].float()
