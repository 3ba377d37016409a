"""One trained character policy for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.align.selfplay.charworld import make_policy


@pytest.fixture(scope="session")
def char_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the starting policy (read only); about 4 s once."""
    return make_policy(tmp_path_factory.mktemp("chars") / "policy")
