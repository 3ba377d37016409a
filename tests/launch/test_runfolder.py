"""A run folder's laws: whole files, forgiven cuts, stages addressed by content, another run refused."""

import dataclasses
import hashlib
import json
import logging
import shutil

import pytest
import torch

from launch import yamltree
from launch.errors import CheckpointError, ConfigError, DataError
from launch.runfolder import RunFolder, content_hash, examples_hash, file_hash, read_rows

CONFIG = {"run": {"folder": "a", "seed": 1}, "train": {"betas": (0.9, 0.95)}}


def test_the_same_configuration_enters_again_and_another_is_refused_by_key(tmp_path):
    RunFolder(tmp_path / "r").open(CONFIG, seed=1)
    RunFolder(tmp_path / "r").open({**CONFIG, "run": {"folder": "elsewhere", "seed": 1}}, seed=1)
    with pytest.raises(ConfigError, match=r"another train\.betas"):
        RunFolder(tmp_path / "r").open({**CONFIG, "train": {"betas": (0.8, 0.95)}}, seed=1)
    with pytest.raises(ConfigError, match="already holds a run"):
        RunFolder(tmp_path / "r", fresh=True).open(CONFIG, seed=1)


def test_what_changes_no_number_may_change_and_the_newest_is_written(tmp_path):
    free = {"save_steps": 7, "keep_checkpoints": 3, "log_steps": 1, "eval_steps": 5, "processes": 2}
    RunFolder(tmp_path / "r").open(CONFIG, seed=1)
    later = {**CONFIG, "train": {**CONFIG["train"], **free}}
    RunFolder(tmp_path / "r").open(later, seed=1)
    assert yamltree.read(tmp_path / "r" / "config.yaml").plain() == json.loads(json.dumps(later))


def test_a_rank_that_comes_after_the_main_process_enters_a_fresh_folder(tmp_path, monkeypatch):
    RunFolder(tmp_path / "r", fresh=True).open(CONFIG, seed=1)
    monkeypatch.setenv("RANK", "1")
    RunFolder(tmp_path / "r", fresh=True).open(CONFIG, seed=1)


def test_environment_names_versions_and_commit(tmp_path):
    run = RunFolder(tmp_path).open(CONFIG, seed=7)
    saved = json.loads((run.path / "environment.json").read_text())
    assert saved["seed"] == 7 and "torch" in saved["versions"] and "commit" in saved


def test_a_line_cut_by_a_kill_costs_that_line_alone(tmp_path):
    run = RunFolder(tmp_path)
    run.log({"step": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    run.log({"step": 3})
    assert [row["step"] for row in run.metrics()] == [1, 3]


def test_a_stage_is_whole_or_absent(tmp_path):
    stage = RunFolder(tmp_path).stage("score", {"k": 5})
    with pytest.raises(RuntimeError), stage.write() as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not stage.done
    with stage.write() as folder:
        (folder / "whole.json").write_text("[1]")
    assert stage.done and stage.read_json("whole") == [1] and not (stage.path / "half").exists()


def test_a_stage_is_addressed_by_content_and_not_by_key_order(tmp_path):
    run = RunFolder(tmp_path)
    assert run.stage("s", {"a": 1, "b": 2}).path == run.stage("s", {"b": 2, "a": 1}).path
    assert run.stage("s", {"a": 1}).path != run.stage("s", {"a": 2}).path


def scored(folder):
    """A finished stage that this process has not looked at: written in one run folder and copied into another."""
    stage = RunFolder(folder / "written").stage("score", {"k": 5})
    with stage.write() as out:
        (out / "S.json").write_text("[1, 2]")
        (out / "rows.jsonl").write_text('{"a": 1}\n')
    shutil.copytree(folder / "written", folder / "copied")
    return RunFolder(folder / "copied").stage("score", {"k": 5})


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "S.json").write_text("[1, 3]"), "S.json does not have the content that was written"),
        (lambda f: (f / "S.json").write_text("[1,"), "S.json has 3 of 6 bytes"),
        (lambda f: (f / "rows.jsonl").unlink(), "rows.jsonl is missing"),
        (lambda f: (f / ".stage.json").write_text("{"), "broken"),
    ],
)
def test_a_spoilt_stage_is_set_aside_and_made_again(tmp_path, caplog, spoil, told):
    stage = scored(tmp_path)
    spoil(stage.path)
    with caplog.at_level(logging.WARNING):
        assert not stage.done
    assert [told in record.getMessage() for record in caplog.records] == [True]
    assert not stage.path.exists() and stage.path.with_name(f".broken-{stage.path.name}").is_dir()
    with stage.write() as out:
        (out / "S.json").write_text("[1, 2]")
    assert stage.done and stage.read_json("S") == [1, 2]


def test_a_whole_stage_is_compared_once_and_by_the_main_process(tmp_path, monkeypatch):
    """A rank that compared while the main process moves the folder would fail; so it only looks whether it is there."""
    stage = scored(tmp_path)
    (stage.path / "S.json").write_text("spoilt")
    monkeypatch.setenv("RANK", "1")
    assert stage.done and stage.path.is_dir()
    monkeypatch.setenv("RANK", "0")
    (stage.path / "S.json").write_text("[1, 2]")
    assert stage.done and stage.read_json("S") == [1, 2] and stage.read_rows("rows") == [{"a": 1}]
    (stage.path / "S.json").write_text("changed behind its back")
    assert stage.done


def test_a_manifest_is_no_content(tmp_path):
    """Keys of later stages are hashes of earlier stages' folders: they are those of the files alone."""
    stage = scored(tmp_path)
    before = file_hash(stage.path)
    (stage.path / ".stage.json").unlink()
    assert file_hash(stage.path) == before
    assert stage.done, "stages made before there were manifests are believed"


def test_lines_end_at_newline_alone(tmp_path):
    run = RunFolder(tmp_path)
    run.samples("s", [{"text": "one\u2028line"}, {"text": "two"}])
    assert [r["text"] for r in read_rows(tmp_path / "samples" / "s.jsonl")] == ["one\u2028line", "two"]


def test_broken_data_is_named_by_file_and_line(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(CheckpointError, match=r"rows\.jsonl:2"):
        read_rows(tmp_path / "rows.jsonl")


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run = RunFolder(tmp_path / "r").open(CONFIG, seed=0)
    run.log({"step": 1})
    run.artifact("a", {})
    assert not run.path.exists()


def test_hashes_follow_content(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("same")
    assert file_hash(tmp_path / "x") == file_hash(tmp_path / "y")
    (tmp_path / "y" / "f").write_text("other")
    assert file_hash(tmp_path / "x") != file_hash(tmp_path / "y")
    # By hand: a folder is the names and contents of its files in order, a file its content alone.
    assert file_hash(tmp_path / "x") == hashlib.sha256(b"fsame").hexdigest()
    assert file_hash(tmp_path / "y" / "f") == hashlib.sha256(b"other").hexdigest()
    assert content_hash({"a": [1.0, 2]}) == content_hash({"a": [1.0, 2]}) != content_hash({"a": [2, 1.0]})


def test_other_data_of_a_known_name_is_refused(tmp_path):
    run = RunFolder(tmp_path)
    first = run.fingerprint_data("votes", [{"x": 1}])
    assert run.fingerprint_data("votes", [{"x": 1}]) == first
    with pytest.raises(DataError, match=r"begun with other 'votes' data .*choose another run\.folder"):
        run.fingerprint_data("votes", [{"x": 2}])
    run.fingerprint_data("test", [{"x": 2}])
    assert json.loads((tmp_path / "data.json").read_text())["votes"] == first


@dataclasses.dataclass
class Row:
    ids: torch.Tensor
    answers: tuple[str, ...]


def test_examples_are_told_apart_by_value_and_order_alone(tmp_path):
    """Tensors of 2000 numbers that differ in the middle, which `repr` leaves out; objects at other addresses."""

    def row(middle: int, answer: str = "a") -> Row:
        ids = torch.zeros(2000, dtype=torch.long)
        ids[1000] = middle
        return Row(ids, (answer,))

    assert examples_hash([row(1), row(2)]) == examples_hash([row(1), row(2)])
    others = [[row(2), row(1)], [row(1), row(3)], [row(1, "b"), row(2)], [row(1)], [[1, 2], row(2)]]
    assert len({examples_hash(rows) for rows in [[row(1), row(2)], *others]}) == 6
    assert examples_hash([{"x": object()}]) == examples_hash([{"x": object()}])
    assert examples_hash([{(1, 2): 3}]) != examples_hash([{(1, 2): 4}])


def test_a_full_disk_says_so_and_keeps_what_was_there(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.artifact("a", {"kept": 1})

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; what was there before is kept"):
        run.artifact("a", {"lost": 1})
    monkeypatch.undo()
    assert run.artifacts("a") == {"a": {"kept": 1}}
    assert [p.name for p in (tmp_path / "artifacts").iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/artifacts/a\.json: Not a directory"):
        RunFolder(tmp_path / "file").artifact("a", {})
