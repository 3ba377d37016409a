"""The doctor tells what is here as it is, and a command for what is not."""

from __future__ import annotations

import importlib.metadata
import os

import pytest
import torch
from packaging.specifiers import SpecifierSet

from launch import doctor
from launch.cli import main


def by_topic() -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in doctor.examine()}


def test_it_tells_the_truth_about_this_machine():
    found = by_topic()
    assert str(len(os.sched_getaffinity(0))) in found["cores"].seen
    assert found["torch"].seen.startswith(torch.__version__)
    assert ("GPU 0" in found) == torch.cuda.is_available()
    assert (found["several processes"].state == "ok") == torch.distributed.is_gloo_available()


def test_what_is_absent_comes_with_a_remedy():
    for finding in doctor.examine():
        if finding.state != "ok" and finding.topic != "GPU":
            assert finding.remedy, finding


def test_versions_are_held_against_what_is_needed():
    version = importlib.metadata.version("torch")
    assert doctor._library("torch", SpecifierSet(">=1"), "x") == doctor.Finding("torch", "ok", version)
    wrong = doctor._library("torch", SpecifierSet("<1"), "pip install torch")
    assert wrong.state == "limited" and "<1 is needed" in wrong.seen and wrong.remedy == "pip install torch"
    assert doctor._library("no-such-thing", None, "get it").state == "absent"


def test_every_extra_that_brings_a_library_is_named():
    """scikit-learn comes with two extras, bitsandbytes with one; what none brings is installed by itself."""
    assert doctor._remedy("scikit-learn") == "pip install 'arbiter-llm[eval]' (also in graph)"
    assert doctor._remedy("bitsandbytes") == "pip install 'arbiter-llm[quantization]'"
    assert doctor._remedy("some-library") == "pip install some-library"


def test_the_command_prints_a_row_for_each_finding_and_ends_well(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for topic in ("Python", "memory", "disk", "torch", "vllm", "deepspeed", "bitsandbytes", "trl", "several processes"):
        assert topic in shown


def test_extras_in_brackets_are_shown_as_they_are(capsys, monkeypatch):
    """rich would read [deepspeed] as a colour and drop it."""
    monkeypatch.setenv("COLUMNS", "200")
    doctor.show([doctor.Finding("x", "absent", "no", "pip install 'arbiter-llm[deepspeed]'")])
    assert "'arbiter-llm[deepspeed]'" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["1", "0"])
def test_offline_is_said(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert (by_topic()["hub"].state == "limited") == (value == "1")
