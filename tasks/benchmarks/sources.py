"""Where answers and verdicts come from: files, servers, folders of weights.

    --model   a file of answers in the benchmark's own format; http://… (any OpenAI-compatible server);
              a folder of a causal language model, sampled in process by transformers or (--engine vllm) by vLLM
    --judge   http://…; or, where a benchmark takes preferences instead of words, a folder of a preference model,
              or of its export for serving with the server's address in --judge-url

Generated answers are kept in chunks, replies and scores in a cache, so that a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from launch.contracts import Generator, Message, Prompt, Sampling, Scorer
from launch.errors import ConfigError, DataError
from launch.judge import Cache, JudgeClient, Question, plan
from launch.serve import read_serving
from tasks.benchmarks.files import Row, index_by, read_rows

if TYPE_CHECKING:
    from launch.generate import VLLMGenerator

CHUNK = 16
"""Prompts per chunk: what a kill can cost."""
UNKNOWN = "x" * 1200
"""Stands for an answer not yet generated where a dry run counts tokens (about 300)."""
CLIENTS = "arbiter.scorers"
"""Entry points of clients for served scorers: called with (address, folder of the export)."""


@dataclass(frozen=True)
class Options:
    """What `arbiter eval` was asked for."""

    bench: str
    model: str
    out: Path
    name: str
    judge: str | None = None
    judge_model: str | None = None
    judge_url: str | None = None
    model_name: str | None = None
    baseline: Path | None = None
    questions: Path | None = None
    prompts: Path | None = None
    references: Path | None = None
    difficulty: Path | None = None
    gamed: Path | None = None
    other_prompts: bool = False
    rules: str = "v2.0"
    style: tuple[str, ...] = ()
    tokenizer: Path | None = None
    ratings: bool = False
    plain: bool = False
    engine: str = "hf"
    against: str | None = None
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
    def is_server(self) -> bool:
        """Whether --model is a server."""
        return self.model.startswith(("http://", "https://"))

    @property
    def asks(self) -> bool:
        """Whether --judge is a server."""
        return bool(self.judge and self.judge.startswith(("http://", "https://")))

    def file_name(self, name: str) -> str:
        """A model's or judge's name as part of a path."""
        return name.replace("/", "_")


def answers_of(rows: Sequence[Row], key: str, model_key: str, what: str) -> tuple[dict[Any, Row], str]:
    """(answers by question, the one model they are of). Raises DataError for none or several models."""
    found = index_by(rows, key, what)
    models = sorted({str(row.get(model_key)) for row in rows})
    if len(models) != 1:
        raise DataError(f"{what} are of {len(models)} models ({', '.join(models[:3])}); give one model's answers")
    return found, models[0]


def baseline_answers(options: Options, key: str, model_key: str) -> tuple[dict[Any, Row], str]:
    """`answers_of` the file --baseline. Raises DataError if they are the tested model's own."""
    found, baseline = answers_of(read_rows(options.need("baseline")), key, model_key, "baseline answers")
    if baseline == options.name:
        raise DataError(f"--baseline holds answers of {baseline}, the model itself; give another model's or --name")
    return found, baseline


Answerer = Callable[[Sequence[list[Message]], float, str], list[str]]
"""(dialogues, temperature, name of the store) -> one answer to each dialogue."""


@contextmanager
def answering(options: Options) -> Iterator[Answerer]:
    """Opens --model once for all that a benchmark asks of it. Answers are at most `max_tokens` long and kept under
    ``out/generation``.

    The chunks' folder is named by what the answers depend on beside prompts and sampling: the weights (of a folder) and
    the size of a chunk. A server's weights are known by its model's name alone.
    """
    from launch.generate import generate_chunks

    chunk = max(CHUNK, options.concurrency)
    with open_generator(options) as (generator, chat, identity):
        made_by = hashlib.sha256(json.dumps([identity, chunk, chat]).encode()).hexdigest()[:12]

        def answer(dialogues: Sequence[list[Message]], temperature: float, store: str) -> list[str]:
            prompts: list[Prompt] = [dialogue if chat else _plain(dialogue) for dialogue in dialogues]
            answers = generate_chunks(
                generator,
                prompts,
                1,
                Sampling(max_new_tokens=options.max_tokens, temperature=temperature, seed=options.seed),
                chunk,
                lambda number: options.seed * 1_000_003 + number,
                options.out / "generation" / options.file_name(options.name) / f"{store}-{made_by}",
            )
            return [one.text for [one] in answers]

        yield answer


@contextmanager
def open_generator(options: Options) -> Iterator[tuple[Generator, bool, Any]]:
    """(generator, whether it takes chat messages, what names its weights) of --model."""
    if options.is_server:
        from launch.generate import ServerGenerator

        with ServerGenerator(
            options.model, options.model_name, api_key_env=options.api_key_env, concurrency=options.concurrency
        ) as server:
            if options.plain and not server.is_vllm:
                raise ConfigError(
                    f"--plain: {options.model} is no vLLM server and is asked in chat; leave --plain out", field="plain"
                )
            yield server, not options.plain, server.model
    elif Path(options.model).is_dir():
        from launch.models import load_tokenizer

        tokenizer, stamp = load_tokenizer(options.model), weights_stamp(options.model)
        chat = bool(tokenizer.chat_template) and not options.plain
        if options.engine == "vllm":
            with _vllm(options) as engine:
                yield engine, chat, {"vllm": stamp}
        else:
            from launch.generate import HFGenerator
            from launch.models import load_causal_lm

            yield HFGenerator(load_causal_lm(options.model), tokenizer), chat, stamp
    else:
        raise ConfigError(f"--model {options.model}: no file, no folder and no http:// address; check the path")


def _vllm(options: Options) -> VLLMGenerator:
    """An engine in this process; one that a killed run left behind is ended first."""
    from launch.generate import VLLMGenerator
    from launch.generate.orphans import end_orphans

    home = options.out / "engines"
    end_orphans(home)
    return VLLMGenerator(options.model, folder=home)


def weights_stamp(folder: str | Path) -> dict[str, list[int]]:
    """Sizes and times of a folder's settings and weights: another model under the same name has another stamp."""
    files = [file for kind in ("*.json", "*.safetensors") for file in sorted(Path(folder).glob(kind))]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def open_judge(options: Options, url: str | None = None, model: str | None = None) -> JudgeClient:
    """The judge's server, with the cache of this run's folder; `url` and `model` where the judge is what is tested."""
    if url is None and not options.asks:
        raise ConfigError(
            f"arbiter eval {options.bench} needs a judge that writes: --judge http://…, not {options.judge}",
            field="judge",
        )
    return JudgeClient(
        url or str(options.judge),
        options.out / "judge_cache",
        model or options.judge_model,
        api_key_env=options.api_key_env,
        concurrency=options.concurrency,
        budget=options.budget,
    )


def judge_cache(options: Options) -> Cache:
    """The same cache, without a server."""
    return Cache(options.out / "judge_cache")


@dataclass(frozen=True)
class Game:
    """What a stored score holds."""

    S: np.ndarray
    """float64 [K, K], logit that row beats column."""

    @property
    def P(self) -> np.ndarray:  # noqa: N802
        """float64 [K, K], probability that row beats column."""
        return np.exp(-np.logaddexp(0, -self.S))


class StoredScorer:
    """A Scorer whose scores are kept in the run's cache, so that a killed run scores nothing twice."""

    def __init__(self, scorer: Scorer, cache: Cache, identity: Any) -> None:
        self.scorer, self.cache, self.identity = scorer, cache, identity

    def score(self, prompt: Prompt, responses: Sequence[str]) -> Game:
        """As the scorer's own `score`; S and P alone."""
        asked = json.dumps([self.identity, prompt, list(responses)], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(asked.encode()).hexdigest()
        stored = self.cache.get(key)
        if stored is None:
            S = np.asarray(self.scorer.score(prompt, responses).S, dtype=np.float64)
            if not np.isfinite(S).all():
                raise DataError(f"the preference model gives no finite score to answers to {str(prompt)[:60]!r}")
            stored = {"choice": S.tolist()}
            self.cache.put(key, stored)
        return Game(np.asarray(stored["choice"], dtype=np.float64))


@contextmanager
def open_scorer(options: Options, folder: str) -> Iterator[StoredScorer]:
    """A preference model of any registered type (entry points ``arbiter.models``) from its folder, or, from the folder
    of its export, the client of its server at --judge-url."""
    if not Path(folder).is_dir():
        raise ConfigError(f"{folder}: no folder of a preference model; check the path")
    told = read_serving(folder)
    cache, identity = judge_cache(options), weights_stamp(folder)
    if told is not None:
        with _served_scorer(options, folder, told.get("client", "")) as client:
            yield StoredScorer(client, cache, told["served_as"])
        return
    if options.judge_url is not None:
        raise ConfigError(
            f"--judge-url {options.judge_url}: {folder} is no export for serving; give the one of the server",
            field="judge_url",
        )
    from launch.models import load_extensions

    load_extensions()
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder)
    if not isinstance(model, Scorer):
        raise ConfigError(f"{folder} holds a {type(model).__name__}, which scores no answers; give a preference model")
    yield StoredScorer(model, cache, identity)


def _served_scorer(options: Options, folder: str, client: str) -> Any:
    if options.judge_url is None:
        raise ConfigError(f"{folder} is an export for serving; say where it is served: --judge-url http://…")
    for point in entry_points(group=CLIENTS):
        if point.value.replace(":", ".") == client:
            return point.load()(options.judge_url, folder, options.api_key_env)
    raise ConfigError(f"{folder} names the client {client!r}, which is not installed; install the package it is from")


def dry(options: Options, asked: Sequence[Question], answers: int) -> dict[str, Any]:
    """Calls, tokens and cost. The judge's name is asked of no server, so give --judge-model to see what is cached."""
    what = plan(asked, options.judge_model or "", judge_cache(options), prices=options.prices)
    generation = {"answers": answers, "tokens_at_most": answers * options.max_tokens}
    return {"generation": generation, "judge": vars(what), "summary": f"generate {answers} answers; judge: {what}"}


def user(text: str) -> list[Message]:
    """A dialogue of one turn."""
    return [{"role": "user", "content": text}]


def _plain(dialogue: list[Message]) -> str:
    """A model without a chat template continues text."""
    return "\n\n".join(turn["content"] for turn in dialogue)
