"""The stages of one round, each stored under the content it was made from: generate, score, select, reference, train.

A stage whose result is in the run folder is not made again, so a run that was killed goes on where it stopped, and a
run with one option changed remakes only what depends on it (scores are stored as S_T and S_C, before the schedule mixes
them). Generation keeps finished chunks on top of that. Seeds come from (run seed, round, chunk), never from what ran
before.

Under several processes the prompts are dealt out chunk by chunk and the results gathered, so the data set does not
depend on their number (up to rounding in the scores); one process writes. Samples and rows stay on disk and are read
when they are asked for: in memory are their places, the tables and the reference values.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.selfplay.dealing import collect, ending_together
from align.selfplay.fitting import fit_policy, save_merged
from align.selfplay.inputs import Judge, policy_identity
from align.selfplay.objective import reference_logprobs
from align.selfplay.pairs import PairDataset, pair_rows, write_pairs
from align.selfplay.reference import ReferenceCache, rows_key
from align.selfplay.schedule import coefficients, mixed_scores
from launch import runtime
from launch.contracts import Completion, Generator, Prompt
from launch.counters import NO_WORK, Cost, Work, cost_of, passes_of, record_machine, watch
from launch.errors import ConfigError
from launch.estimate import model_shape
from launch.generate.chunks import completion_from_json, completion_to_json, read_chunk, sample_chunks
from launch.generate.sampling import stable_hash
from launch.jsonlines import Chosen, Lines
from launch.logprob import layout_for
from launch.packing import Layout
from launch.rendering import Renderer
from launch.runfolder import RunFolder, Stage, content_hash, file_hash, write_rows
from launch.runtime import own_device

if TYPE_CHECKING:
    from align.selfplay.rounds import Config

log = logging.getLogger(__name__)
Samples = Sequence[list[Completion]]


class Stages:
    """Makes or finds the results of a run's stages.

    Holds at most one policy in memory (or one vLLM engine), and opens it only for a stage that has work to do.

    Args:
        config: `align.selfplay.rounds.Config`.
        run: its open run folder.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        self.config, self.run = config, run
        self._model: tuple[str, Any, Any] | None = None  # path, model, tokenizer
        self._engine: Any = None
        self._engine_of = ""
        self._told: set[str] = set()
        record_machine(run)

    # ---------------------------------------------------------------- generate

    def generate(self, name: str, policy: str, prompts: Sequence[Prompt], n: int) -> tuple[Samples, str]:
        """`n` samples of `policy` for each prompt, and the hash of what was sampled."""
        c = self.config
        asked = {key: value for key, value in asdict(c.sampling).items() if key != "seed"}
        key = {
            "policy": policy_identity(policy),
            "prompts": content_hash(list(prompts)),
            "n": n,
            "sampling": asked,
            "seed": [c.run.seed, name],
            "chunk": c.chunk,
            "generator": c.generator,
        }
        stage = self.run.stage(f"{name}-generate", key)
        if not self._done(stage):
            with self.run.timing(f"{name} generate") as facts:
                # An engine of its own serves all ranks' prompts from the main process.
                ranks = runtime.world_size() if c.generator == "hf" else 1
                chunks = list(range(-(-len(prompts) // c.chunk)))[runtime.rank() :: ranks]
                mine = [p for i in chunks for p in prompts[i * c.chunk : (i + 1) * c.chunk]]
                mine = mine if runtime.rank() < ranks else []
                store = stage.scratch() / f"rank-{runtime.rank()}-of-{ranks}"
                with ending_together(stage.scratch()):
                    files: list[Path] = []
                    if mine:
                        files = sample_chunks(
                            self._generator(policy),
                            mine,
                            n,
                            c.sampling,
                            c.chunk,
                            lambda i: stable_hash(c.run.seed, name, chunks[i]),
                            store,
                        )
                chunks_of_all = collect(runtime.gather(files), 1, ranks)
                rows = (row for file in chunks_of_all for row in read_chunk(file))
                told = ({"completions": [completion_to_json(x) for x in row]} for row in rows)
                self._write(stage, lambda folder: write_rows(folder / "completions.jsonl", told))
                samples = _completions(stage)
                needed = (Work.needed(len(row[0].prompt_ids), [len(x.token_ids) for x in row]) for row in samples)
                facts |= self._work(policy, needed)
        return _completions(stage), file_hash(stage.path / "completions.jsonl")

    def _generator(self, policy: str) -> Generator:
        c = self.config
        if c.generator == "server":
            from launch.generate import ServerGenerator

            server = ServerGenerator(c.server_url, c.server_model)
            if not server.is_vllm:
                server.close()
                raise ConfigError(
                    f"{c.server_url} is not a vLLM server and returns no token ids, which training needs; "
                    "use one, or generator: hf",
                    "server_url",
                )
            return server
        if c.generator == "vllm":
            from launch.generate import VLLMGenerator

            if self._engine is None:
                _clear_device()
                self._engine = VLLMGenerator(policy, folder=self.run.path / "engines")
            elif self._engine_of != policy:
                self._engine.reload(policy)
            self._engine_of = policy
            return self._engine
        from launch.generate import HFGenerator

        model, tokenizer = self.model(policy)
        return HFGenerator(model, tokenizer, batch_size=c.generate_batch)

    # ---------------------------------------------------------------- score and select

    def score(
        self, name: str, judge: Judge, prompts: Sequence[Prompt], samples: Samples, key: str
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """S_T and S_C, float64 [N, K, K], of every prompt's answers, and their hash. `key` names the answers."""
        stage = self.run.stage(f"{name}-score", {"responses": key, "judge": judge.identity})
        if not self._done(stage):
            self.free_engine()
            with self.run.timing(f"{name} score") as facts, _columns(judge.scorer) as columns:
                step = self.config.chunk
                mine = []
                for first in range(0, len(prompts), step)[runtime.rank() :: runtime.world_size()]:
                    part = zip(prompts[first : first + step], samples[first : first + step], strict=True)
                    mine += judge.parts([(prompt, [c.text for c in row]) for prompt, row in part])
                parts = collect(runtime.gather(mine), step, runtime.world_size())
                if columns:
                    seen = sum(sum(part) for part in runtime.gather(columns))
                    facts |= {"tokens": seen, "flops": 2.0 * cost_of(judge.scorer).body * seen}
                T, C = (np.stack([pair[i] for pair in parts]) for i in (0, 1))

                def write(folder: Path) -> None:
                    np.save(folder / "S_T.npy", T)
                    np.save(folder / "S_C.npy", C)

                self._write(stage, write)
        return np.load(stage.path / "S_T.npy"), np.load(stage.path / "S_C.npy"), file_hash(stage.path)

    def select(
        self,
        t: int,
        prompts: Sequence[Prompt],
        samples: Samples,
        responses: str,
        parts: tuple[np.ndarray, np.ndarray, str],
    ) -> PairDataset:
        """Round `t`'s data set under the schedule."""
        c = self.config
        S_T, S_C, scores = parts
        key = {
            "responses": responses,
            "scores": scores,
            "coefficients": coefficients(t, c.lam, c.schedule),
            "mode": c.mode,
            "legacy_double": c.legacy_double,
        }
        stage = self.run.stage(f"round-{t}-select", key)
        if not self._done(stage):
            mixed = mixed_scores(S_T, S_C, t, c.lam, c.schedule)
            rows = pair_rows(prompts, samples, mixed, c.legacy_double)
            self._write(stage, lambda folder: write_pairs(folder, rows, c.mode, t))
        return PairDataset.load(stage.path)

    # ---------------------------------------------------------------- reference and train

    def reference(self, name: str, policy: str, dataset: PairDataset) -> list[list[float]]:
        """log p of every row's K answers under `policy`, summed, nats."""
        c = self.config
        made_by = {
            "policy": policy_identity(policy),
            "max_length": c.max_length,
            "cut": "prompt_left",
            "precision": c.train.precision,
        }
        stage = self.run.stage(f"{name}-reference", {"tokens": rows_key(dataset.rows), **made_by})
        if not self._done(stage):
            with self.run.timing(f"{name} reference") as facts:
                cache = ReferenceCache(c.reference_cache, made_by) if c.reference_cache else None
                values = runtime.broadcast(cache.find(dataset.rows) if cache else [None] * len(dataset))
                unknown = [i for i, found in enumerate(values) if found is None]
                rows = Chosen(dataset.rows, unknown)
                if rows:
                    step = c.reference_batch
                    dealt = range(0, len(rows), step)[runtime.rank() :: runtime.world_size()]
                    mine = Chosen(rows, [i for first in dealt for i in range(len(rows))[first : first + step]])
                    model, tokenizer = self.model(policy)
                    layout = self.layout(model)
                    with _autocast(model, c.train.precision):
                        made = reference_logprobs(model, mine, self.renderer(tokenizer), step, layout=layout)
                    together = collect(runtime.gather(made), step, runtime.world_size())
                    for i, found in zip(unknown, together, strict=True):
                        values[i] = found
                    if cache and runtime.is_main():
                        cache.keep(rows, together)
                facts |= self._work(policy, (_row_work(row, None) for row in rows)) | {
                    "known": len(dataset) - len(rows)
                }
                out = [{"logprobs": row} for row in values]
                self._write(stage, lambda folder: write_rows(folder / "reference.jsonl", out))
        return [row["logprobs"] for row in stage.read_rows("reference")]

    def train(self, t: int, policy: str, dataset: PairDataset, start: str) -> str:
        """Fit round `t` from `policy`; returns the folder of the new policy. `start` is pi_0, the anchor's magnet."""
        c = self.config
        key = self.train_key(policy, dataset, start)
        stage = self.run.stage(f"round-{t}-train", key)
        if not self._done(stage):
            self.free_engine()
            reference = self.reference(f"round-{t}", policy, dataset)
            magnet = None
            if c.anchor:
                magnet = self.reference(f"round-{t}-start", start, dataset) if start != policy else reference
            name = f"round-{t}-{content_hash(key)[:8]}"
            with self.run.timing(f"round-{t} train") as facts:
                model, tokenizer = self.model(policy)
                layout = self.layout(model)
                folder = fit_policy(model, tokenizer, dataset, reference, magnet, c, self.run, name, t, layout)
                answers = None if c.mode == "all_k" else 2
                passes = passes_of(c.train) * c.train.epochs
                facts |= self._work(policy, (_row_work(row, answers) for row in dataset), passes)
            self._model = None
            if c.train.lora is None and c.train.quantization == "none":
                model.zero_grad(set_to_none=True)
                self._model = (str(folder), model, tokenizer)  # what was saved, bit for bit: the next round reads it

            def write(out: Path) -> None:
                if c.train.lora is None:
                    where = os.path.relpath(folder, self.run.path)
                else:
                    save_merged(policy, folder, out / "policy", tokenizer)
                    where = os.path.relpath(stage.path / "policy", self.run.path)
                (out / "policy.json").write_text(json.dumps({"policy": where}))

            self._write(stage, write)
        return str(self.run.path / stage.read_json("policy")["policy"])

    def train_key(self, policy: str, dataset: PairDataset, start: str) -> dict[str, Any]:
        """All that a fit's weights depend on."""
        c = self.config
        return {
            "rows": dataset.hash,
            "policy": policy_identity(policy),
            "start": policy_identity(start) if c.anchor else "",
            "loss": [c.loss, c.mode, c.beta, c.anchor],
            "max_length": c.max_length,
            "train": {k: v for k, v in asdict(c.train).items() if k not in _FREE},
            "seed": c.run.seed,
        }

    def renderer(self, tokenizer: Any) -> Renderer:
        """How policies read: the prompt loses its left first, and no answer is given an end it did not sample."""
        return Renderer(tokenizer, self.config.max_length, cut="prompt_left", end="keep")

    # ---------------------------------------------------------------- small print

    def model(self, policy: str) -> tuple[Any, Any]:
        """The policy in memory, loaded once for all stages of a round: (model, tokenizer)."""
        if self._model is None or self._model[0] != policy:
            from launch.models import load_causal_lm, load_tokenizer

            self._model = None  # free the one before first
            train = self.config.train
            # Weights stay fp32 under mixed precision: steps of 5e-7 would round to nothing in bf16.
            precision = train.precision if train.lora is not None else "fp32"
            model: Any = load_causal_lm(policy, precision, train.quantization)
            device = own_device()
            if device is not None and train.quantization == "none":
                model = model.to(device)
            self._model = (policy, model, load_tokenizer(policy))
        return self._model[1], self._model[2]

    def layout(self, model: Any) -> Layout:
        """How `model` reads rows; says once why, where it is not the way that was asked."""
        found, reason = layout_for(model, self.config.packing)
        if reason is not None and reason not in self._told:
            self._told.add(reason)
            log.warning("%s; rows are %s instead, at the same numbers", reason, found)
        return found

    def _work(self, policy: str, parts: Iterable[Work], passes: float = 1.0) -> dict[str, float]:
        """``tokens`` and ``flops`` that a stage needs at least, for its row of timings."""
        shape = model_shape(policy) if Path(policy).is_dir() else None
        work = sum(parts, NO_WORK)
        if shape is None:
            return {"tokens": work.tokens}
        head = shape.vocabulary * shape.width
        cost = Cost(shape.matmul_parameters(head=False), shape.layers * shape.attention, head)
        return {"tokens": work.tokens, "flops": cost.flops(work, passes)}

    def free_engine(self) -> None:
        """End the vLLM engine where it shares a GPU with what follows; on CPU it stays and takes new weights."""
        if self._engine is not None and own_device() is not None:
            self.close()

    def close(self) -> None:
        """End the vLLM engine, if one runs."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _done(self, stage: Stage) -> bool:
        """What the main process sees, on every rank: they must all go the same way."""
        return bool(runtime.broadcast(stage.done))

    def _write(self, stage: Stage, fill: Any) -> None:
        error: Exception | None = None
        if runtime.is_main():
            try:
                with stage.write() as folder:
                    fill(folder)
                shutil.rmtree(stage.path.with_name(f".partial-{stage.path.name}"), ignore_errors=True)
            except OSError as raised:  # the other ranks must not wait for a stage that cannot be written
                error = raised
        runtime.raise_together(error)


_FREE = {"processes", "save_steps", "keep_checkpoints", "log_steps", "eval_steps"}
"""Training options that do not change the weights."""


def _completions(stage: Stage) -> Samples:
    """What a generate stage holds, each prompt's answers read when they are asked for."""
    file = stage.path / "completions.jsonl"
    return Lines(file, lambda row: [completion_from_json(answer) for answer in row["completions"]])


def _row_work(row: Mapping[str, Any], answers: int | None) -> Work:
    """What a row's answers need: all K, or only the `answers` = 2 that are trained on."""
    which = range(len(row["response_ids"])) if answers is None else row["index"]
    return Work.needed(len(row["prompt_ids"]), [len(row["response_ids"][k]) for k in which])


@contextmanager
def _columns(scorer: Any) -> Iterator[list[int]]:
    """Columns that go through a scorer's backbone inside; stays empty for a scorer that has none."""
    backbone = getattr(scorer, "backbone", None)
    if backbone is None or not hasattr(backbone, "register_forward_pre_hook"):
        yield []
        return
    with watch(backbone) as seen:
        yield seen


def _clear_device() -> None:
    """Give a GPU's memory back that an ended fit still caches: an engine, another process, counts it as taken."""
    if own_device() is not None:
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def _autocast(model: Any, precision: str) -> Any:
    """The arithmetic that training will use, so that log-ratios begin at zero."""
    if precision == "fp32":
        return nullcontext()
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(next(model.parameters()).device.type, dtype)
