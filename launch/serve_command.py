"""``arbiter serve MODEL``: vLLM with the right flags, on the loopback interface, until Ctrl-C or SIGTERM.

    arbiter serve runs/run/checkpoints/policy/final --port 8000
    arbiter serve runs/hrc/checkpoints/preference/final          # a preference model: exported first, then pooled
    arbiter serve big-model --vllm="--tensor-parallel-size 2"    # goes to vLLM as it is

A model type of this project's own is turned into one that vLLM knows by a function that the entry points of group
``arbiter.servable`` name by model_type: (folder, target or None) -> the folder to serve.

The server's log, and the record of its processes by which the next start ends what a SIGKILL left behind, are in
--folder. Left out: restarting a server that ended (a service manager does that) and listening to other machines.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Any

from launch.errors import CheckpointError, ConfigError

GROUP = "arbiter.servable"


def add_parser(commands: Any) -> None:
    """Add the subcommand (entry point of group ``arbiter.commands``)."""
    parser = commands.add_parser("serve", help="serve a model or preference model with vLLM", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="folder or hub name of a model, or folder of a preference model")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1, 0 for any free one (default 8000)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 (default: float32 on CPU, else the model's own)")
    parser.add_argument("--max-model-len", type=int, metavar="N", help="tokens a request may have (default: all)")
    parser.add_argument("--folder", default="runs/servers", metavar="DIR", help="for the log (default runs/servers)")
    parser.add_argument("--export", metavar="DIR", help="where a preference model goes (default MODEL-served)")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds to come up (default 600)")
    parser.add_argument("--vllm", default="", metavar="FLAGS", help='flags for vLLM: --vllm="--tensor-parallel-size 2"')
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; returns 128 + its number."""
    from launch.generate.orphans import end_orphans
    from launch.serve import read_serving, serve

    try:
        flags = shlex.split(arguments.vllm)
    except ValueError as error:
        raise ConfigError(f"--vllm={arguments.vllm!r}: {str(error).lower()}; quote it as a shell would") from error
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)  # a second one must not stop the ending of the server
        caught.append(number)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, stop)
        model = servable(arguments.model, None if arguments.export is None else Path(arguments.export))
        end_orphans(arguments.folder)
        print(f"starting vLLM on {model} …", flush=True)
        with serve(
            model,
            port=arguments.port,
            dtype=arguments.dtype,
            max_model_len=arguments.max_model_len,
            folder=arguments.folder,
            extra=flags,
            timeout=arguments.timeout,
        ) as server:
            print(f"serving {server.model} at {server.url}, log in {server.log}; Ctrl-C ends it", flush=True)
            told = read_serving(model)
            if told is not None and "client" in told:
                print(f"client: {told['client']}({server.url!r}, {str(model)!r})", flush=True)
            while True:
                server.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        if not caught:  # none of ours
            raise
        print("server ended", flush=True)
        return 128 + caught[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def servable(model: str, target: Path | None = None) -> str | Path:
    """`model` itself, or the folder it was exported to if it is of a model type of this project's own.

    Raises:
        ConfigError: `target` given for a model that vLLM serves as it is.
        CheckpointError: a folder without a readable config.json.
    """
    folder = Path(model)
    if folder.is_dir():
        file = folder / "config.json"
        if not file.is_file():
            raise CheckpointError(f"{folder} has no config.json; give a model's folder (RUN/checkpoints/NAME/final)")
        try:
            kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
        except ValueError as error:
            raise CheckpointError(f"{file} is broken ({error}); the folder is no whole checkpoint") from error
        for point in entry_points(group=GROUP, name=str(kind)):
            return point.load()(folder, target)
    elif folder.is_absolute() or model.startswith("."):
        raise CheckpointError(f"{folder} is not a folder; give a model's folder or its hub name")
    if target is not None:
        raise ConfigError(f"--export {target}: vLLM serves {model} as it is; leave --export out")
    return model
