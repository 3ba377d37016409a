"""The average policy of self-play, made deployable: a generator that draws which round answers.

Theorem 5.3 (arXiv 2605.17342) and every multiplicative-weights bound are about pi_bar = (1/T) sum_t pi_t, while
practice deploys pi_T, which goes round the cycle. The average of sequence distributions is no network, but one samples
from it easily: draw a round, then sample from that round's policy.

``per="prompt"`` draws once for a prompt, so its n samples come from one policy; each sample alone has the mixture's
distribution, n of them together do not. ``per="sample"`` draws for each sample: n independent samples of the mixture,
which is what self-play against the average needs; it costs a prefill per policy drawn.

Not a model: it has no log-probabilities of its own (those carried are of the policy that answered), and it cannot be
trained or merged. All policies must share a tokenizer for their ids to be comparable.

    PolicyMixture.load("runs/styles/mixture").generate(["2+3="], n=4, sampling=Sampling())
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from launch.contracts import Completion, Generator, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError
from launch.generate.sampling import prompt_seeds, stable_hash
from launch.runfolder import write_json

FILE = "mixture.json"


class PolicyMixture:
    """Samples from a weighted set of policies. A Generator.

    Args:
        policies: folders of Hugging Face models, loaded when first drawn, or ready generators.
        weights: how often each is drawn; normalised. Equal when left out (the average of Theorem 5.3).
        per: "prompt" or "sample"; see above.
        open_policy: makes a generator of a folder; `launch.generate.HFGenerator` in fp32 by default.

    Raises:
        ConfigError: no policy, or weights that are negative, not finite, all zero, or of another number.
    """

    def __init__(
        self,
        policies: Sequence[str | Path | Generator],
        weights: Sequence[float] | None = None,
        per: Literal["prompt", "sample"] = "prompt",
        open_policy: Callable[[Path], Generator] | None = None,
    ) -> None:
        raw = np.ones(len(policies)) if weights is None else np.asarray(weights, dtype=np.float64)
        if len(policies) == 0 or raw.shape != (len(policies),):
            raise ConfigError(f"{len(policies)} policies with {raw.size} weights; give one weight for each policy")
        if not np.isfinite(raw).all() or raw.min() < 0 or raw.sum() == 0:
            raise ConfigError(f"weights {raw.tolist()} must be non-negative, finite and not all zero")
        if per not in ("prompt", "sample"):
            raise ConfigError(f"per {per!r} is not known; choose prompt or sample")
        self.policies = list(policies)
        self.weights: list[float] = (raw / raw.sum()).tolist()
        self.per: Literal["prompt", "sample"] = per
        self.open_policy = open_policy or open_hf
        self._open: dict[int, Generator] = {}

    def draw(self, prompts: Sequence[Prompt], n: int, seed: int) -> np.ndarray:
        """Which policy makes each sample: int [len(prompts), n].

        A draw depends on the seed, the prompt and how often the prompt came before in the call, not on its company.
        """
        cumulative = np.cumsum(self.weights)
        drawn = np.empty((len(prompts), n), dtype=np.int64)
        for i, prompt_seed in enumerate(prompt_seeds([json.dumps(prompt) for prompt in prompts], seed)):
            u = np.random.default_rng([prompt_seed, 0x6D6978]).random(n if self.per == "sample" else 1)
            drawn[i] = np.minimum(np.searchsorted(cumulative, u, side="right"), len(cumulative) - 1)
        return drawn

    def policy_sampling(self, sampling: Sampling, policy: int) -> Sampling:
        """What policy number `policy` is called with: its own seed, so that no two policies share their noise."""
        return Sampling(**{**vars(sampling), "seed": stable_hash(sampling.seed, "policy", policy)})

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """`n` completions for each prompt, in order. Prompts are grouped by policy, and policies called one by one."""
        drawn = self.draw(prompts, n, sampling.seed)
        out: list[list[Completion | None]] = [[None] * n for _ in prompts]
        for policy in np.unique(drawn).tolist():
            wanted = (drawn == policy).sum(1)
            for count in sorted(set(wanted[wanted > 0].tolist())):  # prompts that need equally many samples go together
                which = np.flatnonzero(wanted == count).tolist()
                answers = self._generator(policy).generate(
                    [prompts[i] for i in which], count, self.policy_sampling(sampling, policy)
                )
                for i, mine in zip(which, answers, strict=True):
                    for slot, completion in zip(np.flatnonzero(drawn[i] == policy).tolist(), mine, strict=True):
                        out[i][slot] = completion
        return [[completion for completion in row if completion is not None] for row in out]

    def save(self, folder: str | Path) -> Path:
        """Write a self-contained folder: ``mixture.json`` and a copy of each policy.

        Raises:
            ConfigError: a policy is a generator, not a folder.
        """
        folder = Path(folder)
        names = []
        for i, policy in enumerate(self.policies):
            if not isinstance(policy, str | Path):
                raise ConfigError(
                    f"policy {i} is a {type(policy).__name__}, not a folder; a mixture saves folders only"
                )
            names.append(f"policy-{i}")
            shutil.copytree(policy, folder / names[-1], dirs_exist_ok=True)
        return write_mixture(folder, names, self.weights, self.per)

    @classmethod
    def load(cls, folder: str | Path, open_policy: Callable[[Path], Generator] | None = None) -> PolicyMixture:
        """Read a folder that has a ``mixture.json``; no weights are read yet.

        Raises:
            CheckpointError: there is none, it is broken, or a policy folder is missing.
        """
        folder = Path(folder)
        try:
            saved = json.loads((folder / FILE).read_text(encoding="utf-8"))
            policies, weights, per = saved["policies"], saved["weights"], saved["per"]
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise CheckpointError(f"{folder / FILE} is no mixture ({error}); give the folder a run wrote") from error
        paths: list[str | Path | Generator] = [(folder / policy).resolve() for policy in policies]
        for path in paths:
            if not (Path(str(path)) / "config.json").is_file():
                raise CheckpointError(f"{folder / FILE} names {path}, which holds no model; restore it or train again")
        return cls(paths, weights, per, open_policy)

    def close(self) -> None:
        """Let go of every opened policy; they open again when drawn."""
        for generator in self._open.values():
            getattr(generator, "close", lambda: None)()
        self._open.clear()

    def _generator(self, index: int) -> Generator:
        if index not in self._open:
            policy = self.policies[index]
            self._open[index] = self.open_policy(Path(policy)) if isinstance(policy, str | Path) else policy
        return self._open[index]


def write_mixture(
    folder: Path, policies: Sequence[str], weights: Sequence[float] | None = None, per: str = "prompt"
) -> Path:
    """Write ``mixture.json`` that names policy folders relative to `folder`; nothing is copied. Returns `folder`."""
    weights = [1.0 / len(policies)] * len(policies) if weights is None else list(weights)
    write_json(folder / FILE, {"policies": list(policies), "weights": weights, "per": per})
    return folder


def open_hf(folder: Path) -> Generator:
    """A Hugging Face generator of a model folder, fp32 weights on the CPU or the first GPU."""
    import torch

    from launch.generate import HFGenerator
    from launch.models import load_causal_lm, load_tokenizer

    model: Any = load_causal_lm(folder)
    return HFGenerator(model.to("cuda" if torch.cuda.is_available() else "cpu"), load_tokenizer(folder))
