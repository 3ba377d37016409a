"""Errors a user can act on: one line each, with the offending value, where it stands, and the remedy.

The command line prints the line and exits with `exit_code`; nothing else is caught.
"""

from __future__ import annotations

from typing import Any, get_args


class ArbiterError(Exception):
    """Base of every error that is the input's or the machine's, not the code's."""

    exit_code = 1


class ConfigError(ArbiterError):
    """A configuration that cannot be what was meant. `field` is the dotted key it concerns, if one is known."""

    exit_code = 2

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def check_choice(name: str, value: Any, kind: Any) -> None:
    """Raise ConfigError if `value` is none of the choices of the Literal `kind`."""
    if value not in get_args(kind):
        raise ConfigError(f"{name} {value!r} is not known; use one of {', '.join(get_args(kind))}", name)


class DataError(ArbiterError):
    """A row or file that cannot be used as it is."""


class RenderingError(ArbiterError):
    """Text would be turned into tokens in another way than the model was trained with."""


class CheckpointError(ArbiterError):
    """A checkpoint that is unreadable, half-written, or made by something else."""


class LaunchError(ArbiterError):
    """The processes, sharding or precision obtained are not those asked for."""


class Interrupted(ArbiterError):  # noqa: N818 (a wish granted, not a fault)
    """Ctrl-C or SIGTERM came; the run can go on from the checkpoint that was written.

    Every rank raises it, at the same step.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
