"""The command: one line for a refusal, the documented exit codes, help at once, the same job however it is started."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from launch.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A config of the toy recipe whose run goes to tmp_path/run."""
    monkeypatch.delenv("RANK", raising=False)
    file = tmp_path / "job.yaml"
    file.write_text(
        f"recipe: tests.launch.toy_recipe\nmodel: m\nrun: {{folder: {tmp_path}/run}}\ntrain:\n  batch_size: 4\n"
    )
    return file


def test_run_writes_the_folder_and_its_report(job, tmp_path, capsys):
    assert main(["run", str(job), "run.seed=7"]) == 0
    run = tmp_path / "run"
    assert "report.html" in capsys.readouterr().out and (run / "report.html").exists()
    assert json.loads((run / "artifacts/headline.json").read_text()) == {"loss": 1 / 3}
    assert "seed: 7" in (run / "config.yaml").read_text()


def test_a_run_folder_holds_a_config_that_runs_again(job, tmp_path):
    assert main(["run", str(job)]) == 0
    assert main(["run", str(tmp_path / "run/config.yaml")]) == 0
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("override", "code", "left"), [("train.epochs=1", 0, True), ("fail=stop", 143, True), ("fail=data", 1, False)]
)
def test_a_run_that_is_over_on_every_rank_ends_its_process_group(job, tmp_path, override, code, left):
    """Left to the interpreter's end, gloo's threads may abort it; after a failure ranks would wait for each other."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert main(["run", str(job), override]) == code
        assert dist.is_initialized() is not left
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_overrides_may_stand_behind_flags(job, capsys):
    assert main(["run", "--dry-run", str(job), "train.epochs=2"]) == 0
    assert main(["run", str(job), "--dry-run", "train.epochs=3"]) == 0
    shown = capsys.readouterr().out
    assert "epochs: 2.0" in shown and "epochs: 3.0" in shown


def test_dry_run_prints_a_config_that_loads_and_starts_nothing(job, tmp_path, capsys):
    assert main(["run", str(job), "--dry-run"]) == 0
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(capsys.readouterr().out)
    from launch.config import load

    assert load(resolved).config == load(job).config and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("fail=data", 1, "arbiter: rows.jsonl:7: empty response; give it text or remove the row"),
        ("fail=field", 2, "job.yaml:5: train.batch_size: too long for this model"),
        ("fail=interrupt", 130, "arbiter: interrupted; the same command continues"),
        ("fail=full", 1, "arbiter: the disk is full while writing metrics.jsonl"),
        ("modl=x", 2, "arbiter: override 'modl=x': unknown key 'modl'; did you mean 'model'?"),
        ("--lr", 2, "'--lr' is no key=value"),
        ("epochs", 2, "'epochs' is no key=value"),
    ],
)
def test_a_refusal_is_one_line_on_stderr_and_an_exit_code(job, capsys, override, code, said):
    assert main(["run", str(job), override]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_run_folder_that_cannot_be_made_is_one_line(job, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["run", str(job), f"run.folder={tmp_path}/file/run"]) == 1
    error = capsys.readouterr().err
    assert error == f"arbiter: cannot use {tmp_path}/file/run: Not a directory; check the path and its permissions\n"


def test_other_ranks_are_quiet_about_what_all_ranks_see(job, capsys, monkeypatch):
    """A config error is said once. An error of one rank's own is said by it, with its number."""
    monkeypatch.setenv("RANK", "3")
    assert main(["run", str(job), "modl=x"]) == 2
    assert capsys.readouterr().err == ""
    assert main(["run", str(job), "fail=data"]) == 1
    assert capsys.readouterr().err.startswith("arbiter: [rank 3] rows.jsonl:7")


def test_an_error_of_the_code_is_not_hidden(job, monkeypatch):
    import tests.launch.toy_recipe as toy

    def broken(config):
        raise ZeroDivisionError

    monkeypatch.setattr(toy, "main", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(job)])


def test_report_export_and_config_that_are_not_there(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 1
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert main(["run", str(tmp_path / "none.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("arbiter: ") and "none" in line for line in lines)


def test_export_calls_the_exporter(tiny_llama, tmp_path, capsys):
    """A plain folder is exported to one that loads: same file names for weights and tokenizer."""
    assert main(["export", str(tiny_llama), str(tmp_path / "out")]) == 0
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in (tmp_path / "out").iterdir()}


def test_fields_lists_the_dataclass_of_a_recipe_or_a_config(job, capsys):
    assert main(["fields", "tests.launch.toy_recipe"]) == 0
    by_recipe = capsys.readouterr().out
    assert main(["fields", str(job)]) == 0
    assert capsys.readouterr().out == by_recipe
    assert "model: str = required\n    Folder of the model.\n" in by_recipe
    assert 'train.optimizer: "adamw" | "rmsprop" | "sgd" = "adamw"' in by_recipe


def test_recipes_lists_shipped_configs(capsys):
    from launch.config import shipped

    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert "shipped configs:" in shown and all(name in shown for name in shipped())


def test_other_packages_add_subcommands(tmp_path, monkeypatch, capsys):
    """An entry point of group arbiter.commands in a real distribution folder becomes a subcommand."""
    folder = tmp_path / "extras-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[arbiter.commands]\nhello = hello_command:add\n")
    (tmp_path / "hello_command.py").write_text(
        "def add(commands):\n"
        "    parser = commands.add_parser('hello')\n"
        "    parser.set_defaults(command=lambda arguments: print('good day') or 5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["hello"]) == 5 and capsys.readouterr().out == "good day\n"
    assert main(["hello", "what"]) == 2


def test_help_comes_under_a_second_without_torch():
    """CPU seconds of the whole process, interpreter start included, so that a busy machine does not matter."""
    code = (
        "import sys\nfrom launch.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'trl', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "arbiter run align/demo" in done.stdout
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


def test_python_m_launch_is_the_same_command(job, tmp_path):
    """The same metrics from `python -m launch run` as from `main`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch", "run", str(job), f"run.folder={tmp_path}/other"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert main(["run", str(job)]) == 0
    kept = [
        [
            (row["stage"], row["step"], row["loss"])
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open())
        ]
        for name in ("run", "other")
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 3
