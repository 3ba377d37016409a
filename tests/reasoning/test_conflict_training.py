"""What GRPO makes of the rewards: advantages and gradients by hand, and a policy small enough to be a table."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launch import grpo_fit
from reasoning.conflict import Rules, kcr_reward
from tasks.worlds.conflicts import CUE, ConflictsWorld, read
from tests.launch.killed_grpo import fit
from tests.launch.test_grpo import inputs, trainer

# ---------------------------------------------------------------- acceptance 5


def test_kcr_acceptance_5_advantages(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards 1 2 3 4 have mean 2.5 and deviation 1.2910 (n - 1); 5 5 5 5 teach nothing. TRL adds 1e-4 to it."""
    monkeypatch.setenv("TINY_LLAMA", str(tiny_llama))
    seen: list[torch.Tensor] = []
    loss = grpo_fit._OverRuntime.compute_loss

    def note(self: Any, model: Any, batch: dict[str, Any], *rest: Any, **options: Any) -> Any:
        seen.append(batch["advantages"])
        return loss(self, model, batch, *rest, **options)

    monkeypatch.setattr(grpo_fit._OverRuntime, "compute_loss", note)
    fit(tmp_path, max_steps=1, reward=lambda completions, **_: [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0])
    found = torch.cat(seen)
    taught = found[found != 0]
    assert len(found) == 8 and len(taught) == 4
    assert float(taught.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(taught.std()) == pytest.approx(1.0, abs=1e-3)
    assert sorted(taught.tolist()) == pytest.approx([-1.1619, -0.3873, 0.3873, 1.1619], abs=1e-3)


def test_kcr_acceptance_5_gradient_by_finite_differences(tmp_path: Path) -> None:
    """A softmax over the token before (a Llama without layers): clipped ratios, KL and token mean, at 12 weights."""
    from transformers import LlamaConfig

    from launch.grpo import grpo_trainer

    config = LlamaConfig(vocab_size=262, num_key_value_heads=1, tie_word_embeddings=False, eos_token_id=2)
    made = trainer(grpo_trainer(), tmp_path, config, beta=0.1, epsilon=0.2)
    made.model.model.layers = torch.nn.ModuleList()
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    head = made.model.lm_head.weight
    batch = inputs()
    made.compute_loss(made.model, batch).backward()
    gradient = head.grad.clone()
    largest = torch.topk(gradient.abs().flatten(), 12).indices
    rows, columns = largest // head.shape[1], largest % head.shape[1]
    h = 1e-2
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        values = []
        for side in (h, -h):
            with torch.no_grad():
                head[row, column] += side
                values.append(float(made.compute_loss(made.model, batch)))
                head[row, column] -= side
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(gradient[row, column]), rel=0.03)


# ---------------------------------------------------------------- acceptance 7

PEOPLE = {"clash": 0.0, "spare": 0, "people": 12}
PROMPT = """\
Question: Where does the mentor of Ann live?
[Context 1] (archive) The mentor of Ann is Cleo. Ivan lives in Rome.
[Context 2] (letter) Bob lives in Oslo. The mentor of Ann is Bob.
"""
BOTH, HOME = 0, 1
LAZY = -2.0
"""Logit with which a policy begins to look at both links: it does so in 12 %, as one that has learnt to be brief."""


class Table:
    """A policy with a table of logits: how many links to look at and to cite, then which context to follow.

    It sees the mark in any case, and which chain joins only if it has looked at both links.
    """

    def __init__(self) -> None:
        self.steps = np.array([LAZY, 0.0])
        self.follow = {BOTH: np.zeros((2, 2, 2)), HOME: np.zeros((2, 2))}

    def logits(self, action: int, mark: int, join: int) -> np.ndarray:
        return self.follow[BOTH][mark, join] if action == BOTH else self.follow[HOME][mark]

    def act(self, prompt: str, rng: np.random.Generator | None) -> tuple[int, int]:
        """Links and context; the likeliest without a generator."""
        mark, join = state(prompt)
        choices = []
        for logits in (self.steps, None):
            p = softmax(self.logits(choices[0], mark, join) if logits is None else logits)
            choices.append(int(p.argmax()) if rng is None else int(rng.random() >= p[0]))
        return choices[0], choices[1]

    def learn(self, prompt: str, action: tuple[int, int], amount: float) -> None:
        """One step up the gradient of amount x log pi(action)."""
        for table, chosen in ((self.steps, action[0]), (self.logits(action[0], *state(prompt)), action[1])):
            table += amount * (np.eye(2)[chosen] - softmax(table))


def test_rewards_of_the_traces_a_policy_chooses_between() -> None:
    """Joined links 2.1, also behind a rejection, or 0.1 for the broken context; a home alone 1.1 or 0.1 (too short).

    So the full reward pays 1.0 for looking at the first link, the answer alone nothing.
    """
    _, told = read(PROMPT)
    broken, true = (told[0], 1), (told[1], 2)
    traces = [
        ConflictsWorld.render(*true),
        ConflictsWorld.render(*true, [broken]),
        ConflictsWorld.render_brief(*true),
        ConflictsWorld.render(*broken),
        ConflictsWorld.render_brief(*broken),
    ]
    instance = ConflictsWorld().instance(PROMPT)
    answer_only = Rules(logic=0.0, consistency=0.0)
    assert [kcr_reward(t, instance)["total"] for t in traces] == pytest.approx([2.1, 2.1, 1.1, 0.1, 0.1])
    assert [kcr_reward(t, instance, answer_only)["total"] for t in traces] == pytest.approx([1.1, 1.1, 1.1, 0.1, 0.1])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


@cache
def state(prompt: str) -> tuple[int, int]:
    """Which context is marked, and in which the links join: its mentor is who lives there."""
    _, told = read(prompt)
    return next(k for k, c in enumerate(told) if c.cue == CUE), next(
        k for k, c in enumerate(told) if c.chain[0][2] == c.chain[1][0]
    )


@cache
def completion(prompt: str, links: int, k: int) -> str:
    told = read(prompt)[1][k]
    return ConflictsWorld.render(told, k + 1) if links == BOTH else ConflictsWorld.render_brief(told, k + 1)


def reinforced(cue: float, rules: Rules, steps: int = 60) -> float:
    """GRPO (groups of 8, normalised) in a world with this mark; accuracy where the mark is reversed."""
    world, rng, policy = ConflictsWorld(cue=cue, train=16 * steps, **PEOPLE), np.random.default_rng(0), Table()  # type: ignore[arg-type]
    instances = {prompt: world.instance(prompt) for prompt in world.prompts("train")}
    rewards: dict[tuple[str, int, int], float] = {}
    for prompt, instance in instances.items():
        actions = [policy.act(prompt, rng) for _ in range(8)]
        for action in set(actions):
            rewards[prompt, *action] = kcr_reward(completion(prompt, *action), instance, rules)["total"]
        got = np.array([rewards[prompt, *action] for action in actions])
        for action, advantage in zip(actions, (got - got.mean()) / (got.std() + 1e-6), strict=True):
            policy.learn(prompt, action, 0.02 * advantage)
    reversed_world = ConflictsWorld(cue=0.95, test=200, **PEOPLE)  # type: ignore[arg-type]
    right = 0
    for prompt in reversed_world.prompts("test"):
        right += reversed_world.describe(prompt, completion(prompt, *policy.act(prompt, None)))["right"]
    return right / 200


def test_kcr_acceptance_7_the_full_reward_learns_the_logic_and_the_answer_alone_a_mark() -> None:
    """The answer alone is earned by the mark, so nothing pays for looking; logic and consistency pay for both links.

    The full reward is right without a mark to learn from, and even from the data whose mark then lies.
    """
    full, full_marked = reinforced(0.5, Rules()), reinforced(0.95, Rules())
    answer_only = reinforced(0.95, Rules(logic=0.0, consistency=0.0))
    assert full >= 0.9
    assert answer_only <= full - 0.2
    assert answer_only <= full_marked - 0.2
