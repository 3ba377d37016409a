"""docs/results/user_graph.md from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_page(results: dict[str, Any], page: Path) -> None:
    pass
