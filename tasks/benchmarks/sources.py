"""Where answers and verdicts come from: files, servers, folders of weights.

    --model   a file of answers in the benchmark's own format; http://… (any OpenAI-compatible server);
              a folder of a causal language model (sampled in process)
    --judge   http://…; or, where a benchmark takes preferences instead of words, a folder of a preference model

Generated answers are kept in chunks and replies in a cache, so that a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.contracts import Generator, Message, Prompt, Sampling, Scorer
from launch.errors import ConfigError
from launch.judge import Cache, JudgeClient

CHUNK = 16
"""Prompts per chunk: what a kill can cost."""


@dataclass(frozen=True)
class Options:
    """What `arbiter eval` was asked for."""

    bench: str
    model: str
    out: Path
    name: str
    judge: str | None = None
    judge_model: str | None = None
    model_name: str | None = None
    baseline: Path | None = None
    questions: Path | None = None
    prompts: Path | None = None
    references: Path | None = None
    difficulty: Path | None = None
    gamed: Path | None = None
    other_prompts: bool = False
    limit: int | None = None
    max_tokens: int = 2048
    temperature: float = 0.0
    concurrency: int = 16
    budget: float = 0.05
    api_key_env: str | None = None
    prices: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    dry_run: bool = False

    def need(self, field: str) -> Path:
        """A path that this benchmark can't do without."""
        found = getattr(self, field)
        if found is None:
            raise ConfigError(f"arbiter eval {self.bench} needs --{field}", field=field)
        return Path(found)

    @property
    def is_answers(self) -> bool:
        """Whether --model is a file of answers."""
        return Path(self.model).is_file()

    @property
    def asks(self) -> bool:
        """Whether --judge is a server."""
        return bool(self.judge and self.judge.startswith(("http://", "https://")))


def generate(options: Options, dialogues: Sequence[list[Message]], temperature: float, store: str) -> list[str]:
    """One answer to each dialogue, at most `max_tokens` long, kept under ``out/generation/store``."""
    from launch.generate import generate_chunks

    sampling = Sampling(max_new_tokens=options.max_tokens, temperature=temperature, seed=options.seed)
    with open_generator(options) as (generator, chat):
        prompts: list[Prompt] = [dialogue if chat else _plain(dialogue) for dialogue in dialogues]
        answers = generate_chunks(
            generator,
            prompts,
            1,
            sampling,
            max(CHUNK, options.concurrency),
            lambda chunk: options.seed * 1_000_003 + chunk,
            options.out / "generation" / options.name.replace("/", "_") / store,
        )
    return [answer.text for [answer] in answers]


@contextmanager
def open_generator(options: Options) -> Iterator[tuple[Generator, bool]]:
    """(generator, whether it takes chat messages) of --model."""
    if options.model.startswith(("http://", "https://")):
        from launch.generate import ServerGenerator

        with ServerGenerator(
            options.model, options.model_name, api_key_env=options.api_key_env, concurrency=options.concurrency
        ) as server:
            yield server, True
    elif Path(options.model).is_dir():
        from launch.generate import HFGenerator
        from launch.models import load_causal_lm, load_tokenizer

        tokenizer = load_tokenizer(options.model)
        yield HFGenerator(load_causal_lm(options.model), tokenizer), bool(tokenizer.chat_template)
    else:
        raise ConfigError(f"--model {options.model}: no file, no folder and no http:// address; check the path")


def open_judge(options: Options) -> JudgeClient:
    """The judge's server, with the cache of this run's folder."""
    if not options.asks:
        raise ConfigError(
            f"arbiter eval {options.bench} needs a judge that writes: --judge http://…, not {options.judge}",
            field="judge",
        )
    return JudgeClient(
        str(options.judge),
        options.out / "judge_cache",
        options.judge_model,
        api_key_env=options.api_key_env,
        concurrency=options.concurrency,
        budget=options.budget,
    )


def judge_cache(options: Options) -> Cache:
    """The same cache, without a server."""
    return Cache(options.out / "judge_cache")


def open_scorer(folder: str) -> Scorer:
    """A preference model of any registered type (entry points ``arbiter.models``) from its folder."""
    from launch.models import load_extensions

    load_extensions()
    from transformers import AutoModel

    if not Path(folder).is_dir():
        raise ConfigError(f"{folder}: no folder of a preference model; check the path")
    model: Any = AutoModel.from_pretrained(folder)
    if not isinstance(model, Scorer):
        raise ConfigError(f"{folder} holds a {type(model).__name__}, which scores no answers; give a preference model")
    return model


def _plain(dialogue: list[Message]) -> str:
    """A model without a chat template continues text."""
    return "\n\n".join(turn["content"] for turn in dialogue)
