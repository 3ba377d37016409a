"""A preference model behind a real vLLM server scores as it does in process; what is exported; what is refused.

One server serves the whole file: an HRC model on a random Llama of head size 32, its weights wide enough that answers
differ and its ranking head that r lies on both sides of its clip. BT, GPM and the other gates go through the same
client with the products computed by transformers' own sequence classification model, since vLLM only multiplies.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from align.preference import PreferenceModel
from align.preference.batch import sequences
from align.preference.serving import FAMILIES, ServedPreferenceModel, export_for_serving, prepare, score_rows
from launch import checkpoint
from launch.cli import main
from launch.contracts import Scorer
from launch.errors import CheckpointError, ConfigError, DataError, RenderingError
from launch.generate.server import ServerError
from launch.serve import SERVING, read_serving
from tests.align.preference.conftest import lively
from tests.tiny import make_llama, make_tokenizer

pytestmark = pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine

LONG = "Tell me all that you know about primes, twin primes, and the sieve of Eratosthenes; be brief."
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a prime."}]
GROUPS = [
    ("Name a prime.", ["7", "8", "nine", "It is 7.", "", "8"]),
    (CHAT, ["7", "eight"]),
    (LONG, ["yes", "x" * 400, "x" * 300 + "y" * 100, "no " * 20]),  # two answers alike within the limit
    ("p" * 400, ["a", "b"]),  # the prompt alone fills the limit
    ("One answer.", ["only"]),
]


def scaled(model: PreferenceModel, by: float = 6.0) -> PreferenceModel:
    """Spread r over both sides of its clip, and open the gate differently for every prompt."""
    lively(model)
    with torch.no_grad():
        if hasattr(model, "rank_head"):
            model.rank_head.weight.mul_(by)
    return model


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose states depend on more than the last token."""
    from transformers import AutoModel

    folder = make_llama(tmp_path_factory.mktemp("wide") / "llama")
    backbone = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "norm" not in name:
                weight.mul_(8.0)
    backbone.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(wide_llama: Path) -> PreferenceModel:
    return scaled(PreferenceModel.from_backbone(wide_llama, kind="hrc", dims=4, c2=0.5, max_length=160, seed=1))


@pytest.fixture(scope="module")
def saved(model: PreferenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preference") / "final"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(saved: Path) -> Path:
    return prepare(saved)


@pytest.fixture(scope="module")
def url(exported: Path, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`arbiter serve` of the preference model, started as a user does; SIGTERM ends all that it started."""
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "launch.cli", "serve", str(saved), "--port", "0", "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    try:
        assert process.stdout is not None
        said: list[str] = []
        while not said or not said[-1].startswith("client: "):
            said.append(process.stdout.readline())
            assert said[-1], f"arbiter serve ended with {process.wait()}: {said}"
        found = re.search(r"at (http://127\.0\.0\.1:\d+), log in", said[-2])
        assert found is not None
        yield found[1]
        assert said[-1].strip() == f"client: align.preference.serving.ServedPreferenceModel('{found[1]}', '{exported}')"
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) >= 3  # the command, the server, its engine
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stdout.read() == "server ended\n"
        assert not psutil.wait_procs(family, timeout=20)[1]
        assert not list(folder.glob("engine-*.json"))
    finally:
        if process.poll() is None:
            process.terminate()  # and not kill, which would leave the engine behind
        process.wait(90)


@pytest.fixture(scope="module")
def served(url: str, exported: Path) -> Iterator[ServedPreferenceModel]:
    with ServedPreferenceModel(url, exported) as client:
        yield client


def same(got: Any, want: Any, tolerance: float = 1e-3) -> None:
    for name in ("S", "S_T", "S_C", "P", "r", "vectors", "lambda_sq", "nash"):
        a, b = getattr(got, name), getattr(want, name)
        assert a.shape == b.shape and a.dtype == b.dtype == np.float64, name
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=0, err_msg=name)
    assert got.tau == want.tau


# ------------------------------------------------------------ the real server


def test_served_scores_equal_those_in_process(served: ServedPreferenceModel, model: PreferenceModel) -> None:
    """Each kind of group: equal answers, an empty one, chat, answers and a prompt over the length limit, K = 1."""
    assert isinstance(served, Scorer)
    plan = sequences(model.renderer, GROUPS, "last")
    assert plan.cut_groups == [2, 3] and max(map(len, plan.ids)) == served.renderer.max_length == 160
    want = model.score_many(GROUPS)
    spread = np.concatenate([s.r for s in want])
    assert (abs(spread) == 5).any() and (abs(spread) < 5).any() and max(abs(s.S_C).max() for s in want) > 1
    for got, expected in zip(served.score_many(GROUPS), want, strict=True):
        same(got, expected)
    same(served.score(*GROUPS[1]), want[1])


def test_equal_answers_and_answers_cut_alike_score_exactly_zero(served: ServedPreferenceModel) -> None:
    first, long = served.score(*GROUPS[0]), served.score(*GROUPS[2])
    assert first.S[1, 5] == 0.0 and long.S[1, 2] == 0.0
    assert np.array_equal(first.S, -first.S.T) and np.array_equal(first.S[1], first.S[5])


def test_scores_change_neither_with_order_nor_with_other_groups(served: ServedPreferenceModel) -> None:
    """To 1e-4: the server's batches differ."""
    prompt, answers = GROUPS[0]
    alone, turned = served.score(prompt, answers), served.score(prompt, answers[::-1])
    np.testing.assert_allclose(turned.S[::-1, ::-1], alone.S, atol=1e-4)


def test_a_prompt_is_read_once_for_its_answers(url: str, served: ServedPreferenceModel) -> None:
    """Its whole blocks of 32 tokens; what remains of it is read with each answer."""

    def computed() -> int:
        told = httpx.get(f"{url}/metrics", trust_env=False).text
        [found] = re.findall(
            r'^vllm:prompt_tokens_by_source_total\{[^}]*source="local_compute"\} ([\d.e+]+)$', told, re.M
        )
        return int(float(found))

    prompt, answers = "q" * 99, ["a", "bb", "ccc", "dddd"]  # 100 tokens with BOS
    before = computed()
    served.score(prompt, answers)
    assert computed() - before == 100 + sum(100 % 32 + len(answer) + 1 for answer in answers)


def test_the_server_lists_the_fingerprint_and_the_limit(url: str, exported: Path) -> None:
    cards = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]
    assert [card["id"] for card in cards] == [exported.name, read_serving(exported)["served_as"]]
    assert {card["max_model_len"] for card in cards} == {160}


def test_a_server_under_another_model_is_refused(
    url: str, served: ServedPreferenceModel, exported: Path, tmp_path: Path
) -> None:
    """At the start, and by the server itself if it changed in between."""
    other = shutil.copytree(exported, tmp_path / "other")
    told = json.loads((other / SERVING).read_text())
    (other / SERVING).write_text(json.dumps({**told, "served_as": "preference-0123456789abcdef"}))
    with pytest.raises(ServerError, match=rf"serves {exported.name}, .* not preference-0123456789abcdef; start") as one:
        ServedPreferenceModel(url, other)
    assert "\n" not in str(one.value)
    with ServedPreferenceModel(url, exported) as client:
        client.served_as = "preference-0123456789abcdef"
        with pytest.raises(ServerError, match=r"^group 0: .*/pooling answered 404: .*does not exist"):
            client.score("Hi", ["a"])


def test_a_refused_request_is_one_line(served: ServedPreferenceModel) -> None:
    with pytest.raises(ServerError, match=r"^group 7: .*/pooling answered 400: ") as caught:
        served._pool([[1] * 161], "group 7")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is no list of answers"):
        served.score("Hi", [])


def evaluated(out: Path, *words: object) -> dict[str, Any]:
    """What `arbiter eval` scores."""
    assert main(["eval", *map(str, words), "--out", str(out), "--json"]) == 0
    [row] = json.loads((out / "scores.json").read_text())
    return row


def test_a_served_model_judges_an_evaluation_as_its_folder_does(
    url: str, exported: Path, saved: Path, tmp_path: Path
) -> None:
    """`--judge-url`: AlpacaEval's preferences and RewardBench's scores to 1e-3, and nothing is asked twice."""
    sides = {"ref": ["7", "no", "same", ""], "mine": ["8", "yes it is", "same", "seven"]}
    for name, texts in sides.items():
        rows = [{"instruction": f"{i}?", "output": text, "generator": name} for i, text in enumerate(texts)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    pair = ["alpaca_eval", "--model", tmp_path / "mine.json", "--baseline", tmp_path / "ref.json"]
    there = evaluated(tmp_path / "served", *pair, "--judge", exported, "--judge-url", url)
    here = evaluated(tmp_path / "folder", *pair, "--judge", saved)
    assert there["win_rate"] == pytest.approx(here["win_rate"], abs=0.1)
    [theirs], [ours] = (list((tmp_path / w / "results/mine").glob("*/*.json")) for w in ("served", "folder"))
    preferences = [[row["preference"] for row in json.loads(file.read_text())] for file in (theirs, ours)]
    assert preferences[0] == pytest.approx(preferences[1], abs=1e-3) and preferences[0][2] == 1.5
    assert there["provenance"]["judge"] == exported.name
    asked = requests_of(url)
    evaluated(tmp_path / "served", *pair, "--judge", exported, "--judge-url", url)
    assert requests_of(url) == asked

    bench = [{"id": "1", "subset": "Math", "prompt": "1?", "chosen": ["a"], "rejected": ["b", "cc", "ddd"]}]
    (tmp_path / "rb.json").write_text(json.dumps(bench))
    words = ["rewardbench", "--questions", tmp_path / "rb.json", "--model"]
    evaluated(tmp_path / "rb", *words, exported, "--judge-url", url, "--name", "pm")
    [columns] = json.loads((tmp_path / "rb/eval-set-scores/pm.json").read_text())
    own = PreferenceModel.from_pretrained(saved).score("1?", ["a", "b", "cc", "ddd"]).S.mean(axis=1)
    assert columns["scores"][0] == pytest.approx(own.tolist(), abs=1e-3)


def requests_of(url: str) -> float:
    told = httpx.get(f"{url}/metrics", trust_env=False).text
    return sum(map(float, re.findall(r"^vllm:request_success_total\{[^}]*\} (\S+)$", told, re.M)))


# ------------------------------------------------------------ without a server


def test_an_export_needs_its_servers_address_and_a_model_none(
    exported: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text('[{"instruction": "q", "output": "a", "generator": "m"}]')
    pair = ["alpaca_eval", "--model", tmp_path / "rows.json", "--baseline", tmp_path / "rows.json"]
    for words, complaint in (
        (["--judge", exported], f"{exported} is an export for serving; say where it is served: --judge-url"),
        (["--judge", saved, "--judge-url", "http://127.0.0.1:9"], f"{saved} is no export for serving"),
        (["--judge", tmp_path / "none"], "none: no folder of a preference model; check the path"),
    ):
        assert main(["eval", *map(str, [*pair, *words, "--out", tmp_path / "out"])]) != 0
        assert complaint in capsys.readouterr().err


class Multiplied(ServedPreferenceModel):
    """A client whose products come from transformers' sequence classification model, row by row."""

    def __init__(self, folder: Path) -> None:
        self.whole, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        super().__init__("http://127.0.0.1:9", folder, concurrency=1)

    def _check_server(self) -> None:
        """There is none."""

    @torch.no_grad()
    def _pool(self, ids: list[list[int]], what: str) -> torch.Tensor:
        self.sent = ids
        return torch.cat([self.whole(input_ids=torch.tensor([row])).logits for row in ids])


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "bt"},
        {"kind": "bt", "clip": False},
        {"kind": "gpm", "dims": 6},
        {"kind": "gpm", "dims": 2, "gate": "softplus", "unit_norm": False},
        {"kind": "hrc", "gate": "scalar"},
        {"kind": "hrc", "gate": "none", "c1": 0.5},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_kind_and_gate_equals_the_model_in_process(
    options: dict[str, Any], wide_llama: Path, tmp_path: Path
) -> None:
    model = scaled(PreferenceModel.from_backbone(wide_llama, max_length=160, seed=2, **options))
    with Multiplied(export_for_serving(model, tmp_path / "out")) as client:
        for got, want in zip(client.score_many(GROUPS[:3]), model.score_many(GROUPS[:3]), strict=True):
            same(got, want)
        client.score("Hi", ["a", "b", "a"])
        assert len(client.sent) == 2 + ("gate_head" in score_rows(model))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_exported_whole(family: str, tmp_path: Path) -> None:
    """The export loads without this project and gives the same scores; vLLM knows the architecture it names."""
    model = scaled(PreferenceModel.from_backbone(tiny_backbone(family, tmp_path / "backbone"), max_length=64, seed=3))
    folder = export_for_serving(model, tmp_path / "out")
    assert checkpoint.problem(folder) is None and not list(folder.glob("*.bin"))
    assert json.loads((folder / "config.json").read_text())["architectures"] == [FAMILIES[family]]
    with Multiplied(folder) as client:
        same(client.score(*GROUPS[0]), model.score(*GROUPS[0]))


def tiny_backbone(family: str, folder: Path) -> Path:
    """A random model of the family with heads of 32, and the byte tokenizer."""
    from transformers import AutoConfig, AutoModel

    tokenizer = make_tokenizer()
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_export_is_made_anew_only_if_the_model_changed(saved: Path, exported: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(saved, tmp_path / "final"))
    first = prepare(source)
    assert first == tmp_path / "final-served"
    told, made = read_serving(first), (first / SERVING).stat().st_mtime_ns
    assert (
        told is not None and told["served_as"] == read_serving(exported)["served_as"]
    )  # of the content, not the place
    assert prepare(source) == first and (first / SERVING).stat().st_mtime_ns == made
    changed = PreferenceModel.from_pretrained(source)
    with torch.no_grad():
        changed.rank_head.weight.add_(1e-3)
    changed.save_pretrained(source)
    again = read_serving(prepare(source))
    assert again is not None and again["served_as"] != told["served_as"]


def test_the_score_matrix_stays_float32_under_a_bfloat16_backbone(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    model = PreferenceModel.from_backbone(tiny_llama, precision="bf16", max_length=64)
    folder = export_for_serving(model, tmp_path / "out")
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        assert tensors.get_tensor("score.weight").dtype == torch.float32
        assert torch.equal(tensors.get_tensor("score.weight"), torch.cat(list(score_rows(model).values())))
        assert tensors.get_tensor("model.norm.weight").dtype == torch.bfloat16


def test_what_vllm_does_not_serve_is_refused(tiny_bert: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone 'bert' looks both ways .* PreferenceModel in process"):
        export_for_serving(PreferenceModel.from_backbone(tiny_bert), tmp_path / "out")
    model = PreferenceModel.from_backbone(tiny_llama)
    model.backbone.config.model_type = "falcon"
    with pytest.raises(ConfigError, match=r"backbone 'falcon' is none of llama, mistral, .* in process"):
        export_for_serving(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    with pytest.raises(CheckpointError, match="full is in the way and no earlier export"):
        export_for_serving(PreferenceModel.from_backbone(tiny_llama), tmp_path / "full")


def test_a_client_refuses_a_folder_that_was_changed(exported: Path, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no exported preference model \(arbiter_serving.json is missing\)"):
        ServedPreferenceModel("http://127.0.0.1:9", saved)
    light = Path(shutil.copytree(exported, tmp_path / "light", ignore=shutil.ignore_patterns("*.safetensors")))
    told = json.loads((light / SERVING).read_text())
    (light / SERVING).write_text(json.dumps({**told, "settings": {**told["settings"], "tau": 1.0}}))
    with pytest.raises(RenderingError, match=r"trained at tau 0.1, not 1.0"):
        ServedPreferenceModel("http://127.0.0.1:9", light)
    (light / SERVING).write_text(json.dumps(told))
    make_tokenizer(template="{{ messages[0]['content'] }}").save_pretrained(light)
    with pytest.raises(RenderingError, match="trained under another rendering"):
        ServedPreferenceModel("http://127.0.0.1:9", light)


def test_a_server_that_is_down_is_one_line(exported: Path) -> None:
    with pytest.raises(
        ServerError, match=r"no server at http://127\.0\.0\.1:9 \(.*\); start it with: arbiter serve"
    ) as e:
        ServedPreferenceModel("http://127.0.0.1:9/v1/", exported, retries=0)
    assert "\n" not in str(e.value)
