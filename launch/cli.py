"""The ``arbiter`` command.

    arbiter run configs/align/demo.yaml train.learning_rate=1e-5

Flags are few: what a job does is its config's fields, and ``arbiter fields RECIPE`` lists them from the dataclass.
Other packages add subcommands by entry points of group ``arbiter.commands``: a function that takes argparse's
subparsers, adds its parser, and sets ``command`` (a function of the parsed arguments, returning an exit code) on it.

Exit codes: 0 done, 1 the input or the machine refused, 2 the config or the command line is wrong, 130 Ctrl-C.
Everything heavy is imported by the command that needs it; ``arbiter --help`` imports no torch.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

from launch import __version__, config
from launch.errors import ArbiterError, ConfigError, Interrupted

_DESCRIPTION = "Train language models that judge well, and align others with them."
_EXAMPLES = """\
examples:
  arbiter run align/demo                          a shipped config, on any machine
  arbiter run my.yaml train.learning_rate=1e-5    a config of your own, one value changed
  arbiter run my.yaml --dry-run                   what it would do, hold in memory and take
  accelerate launch --config_file launch/accelerate/ddp.yaml -m launch run my.yaml
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Complaints go to stderr as one line."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # recipes of one's own are found beside the config, as with `python -m launch`
    try:
        arguments, rest = _parser().parse_known_args(argv)
        if hasattr(arguments, "overrides"):
            arguments.overrides += rest  # overrides may stand after a flag, where argparse does not look for them
        elif rest:
            raise ConfigError(f"arbiter {arguments.name}: unexpected {' '.join(rest)}")
        return arguments.command(arguments)
    except ConfigError as error:
        return _complain(error, error.exit_code, every_rank=False)  # all ranks read the same config: one says it
    except ArbiterError as error:
        return _complain(error, error.exit_code, every_rank=True)
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues where it stopped", 130, every_rank=False)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" while writing {error.filename}" if error.filename else ""
            line = f"the disk is full{where}; free some space and give the same command again: it continues"
        elif error.filename is not None:
            line = f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
        else:
            raise
        return _complain(line, 1, every_rank=True)


def _complain(message: object, code: int, every_rank: bool) -> int:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or every_rank:
        mark = "" if rank == "0" else f"[rank {rank}] "
        print(f"arbiter: {mark}{' '.join(str(message).split())}", file=sys.stderr)
    return code


# ---------------------------------------------------------------- commands


def _run(arguments: argparse.Namespace) -> int:
    from launch.runtime import leave, prepare_environment

    wrong = [text for text in arguments.overrides if text.startswith("-") or "=" not in text]
    if wrong:
        raise ConfigError(f"{wrong[0]!r} is no key=value; write for example {wrong[0].lstrip('-') or 'key'}=VALUE")
    prepare_environment()  # before a recipe imports accelerate
    loaded = config.load(arguments.config, arguments.overrides)
    if arguments.dry_run:
        from launch.estimate import dry_run

        print(dry_run(loaded))
        return 0
    try:
        result = loaded.recipe.main(loaded.config)
    except ConfigError as error:
        raise loaded.locate(error) from error
    except Interrupted:
        leave()
        raise
    if os.environ.get("RANK", "0") == "0":
        from launch.report import build
        from launch.runfolder import RunFolder

        RunFolder(result.folder).artifact("headline", result.metrics)
        print(f"report: {build(result.folder)}")
    leave()
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from launch.report import build

    print(build(Path(arguments.run)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from launch.export import export

    print(export(Path(arguments.source), Path(arguments.target), arguments.trust_pickle))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from launch.doctor import examine, show

    show(examine())
    return 0


def _recipes(arguments: argparse.Namespace) -> int:
    for name, module in config.recipe_names().items():
        print(f"{name:<12} {module}")
    print("\nshipped configs:")
    for name, file in config.shipped().items():
        print(f"{name:<28} {_first_comment(file)}")
    return 0


def _fields(arguments: argparse.Namespace) -> int:
    from launch.fields import default_text, fields_of

    name = arguments.recipe
    if name.endswith((".yaml", ".yml")) or "/" in name:
        recipe = config.recipe_of_file(name)
    else:
        recipe = config.find_recipe(name, "arbiter fields")
    for field in fields_of(recipe.Config):
        print(f"{field.key}: {field.type} = {default_text(field.default)}")
        if field.doc:
            print(f"    {field.doc}")
    return 0


def _first_comment(file: Path) -> str:
    """A config says what it is in its first comment line."""
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


# ---------------------------------------------------------------- parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arbiter",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"arbiter {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="name", required=True)

    run = commands.add_parser("run", help="run a config: train, align, measure", allow_abbrev=False)
    run.add_argument("config", metavar="CONFIG", help="YAML file, or the name of a shipped config")
    run.add_argument(
        "overrides", nargs="*", metavar="key=value", help="fields to change, e.g. train.learning_rate=1e-5"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="print the resolved config and the predicted cost, and stop"
    )
    run.set_defaults(command=_run)

    fields = commands.add_parser("fields", help="list every field of a recipe with its type, default and meaning")
    fields.add_argument("recipe", metavar="RECIPE", help="recipe name, dotted module, or a config that names it")
    fields.set_defaults(command=_fields)

    recipes = commands.add_parser("recipes", help="list recipes and shipped configs")
    recipes.set_defaults(command=_recipes)

    report = commands.add_parser("report", help="build RUN/report.html again from what the run recorded")
    report.add_argument("run", metavar="RUN", help="a run folder")
    report.set_defaults(command=_report)

    export = commands.add_parser("export", help="turn any checkpoint into a plain Hugging Face folder")
    export.add_argument("source", metavar="SRC", help="checkpoint folder: LoRA, FSDP, ZeRO or plain")
    export.add_argument("target", metavar="DST", help="folder to write")
    export.add_argument(
        "--trust-pickle", action="store_true", help="read FSDP and ZeRO checkpoints, which can run their writer's code"
    )
    export.set_defaults(command=_export)

    doctor = commands.add_parser("doctor", help="say what this machine can do, and how to get the rest")
    doctor.set_defaults(command=_doctor)

    for point in entry_points(group="arbiter.commands"):
        point.load()(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
