"""What README and docs name is there: configs, files, links, subcommands, and the Python that is shown."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from launch import cli, config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    folders = "launch|align|tasks|reasoning|configs|benchmarks|tests"
    named = re.findall(rf"`((?:{folders})/[\w./-]+?\.\w+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def shell_lines() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    joined = [block.replace("\\\n", " ") for block in blocks]
    return [shlex.split(line, comments=True) for block in joined for line in block.splitlines() if line.strip()]


def test_commands_of_the_readme_are_commands_of_the_program():
    known = cli._parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    used = [line[1] for line in shell_lines() if line[0] == "arbiter"]
    assert used and set(used) <= set(known)


def test_configs_and_launch_files_of_the_readme_exist():
    words = [word for line in shell_lines() for word in line]
    files = [word for word in words if word.startswith(("configs/", "launch/")) and "." in word]
    assert files and [file for file in files if not (ROOT / file).exists()] == []
    assert [w for w in words if w.startswith("configs/") and config.find(w) is None] == []


def test_make_targets_of_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line[1] for line in shell_lines() if line[0] == "make"} <= targets


def test_python_of_the_readme_names_what_there_is():
    """Every attribute read off `scores` is one of Scores, and the imports work."""
    from align.preference import PreferenceModel, Scores

    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    read = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "scores"
    }
    assert read and [name for name in read if not hasattr(Scores, name)] == []
    assert callable(PreferenceModel.from_pretrained) and callable(PreferenceModel.score)


def test_launch_lines_of_the_readme_ask_for_what_their_config_says():
    """accelerate's processes and sharding are the config's own, or the run would refuse itself."""
    from launch import runtime

    launches = [line for line in shell_lines() if line[:2] == ["accelerate", "launch"]]
    assert launches
    for line in launches:
        train = config.load(line[line.index("run") + 1]).config.train
        asked = runtime.asked_of_launcher(line[2:])
        assert asked is not None
        runtime.compare(
            runtime.Asked(asked.source, asked.processes, sharding=asked.sharding),
            runtime.Obtained(train.processes, train.precision, train.sharding),
        )
