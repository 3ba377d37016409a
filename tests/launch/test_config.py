"""Configs: every complaint has its place and the nearest right name, and what is resolved loads again as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch import config, yamltree
from launch.errors import ConfigError
from launch.fields import default_text, fields_of
from launch.options import LoraOptions, TrainOptions
from tests.launch.toy_recipe import Config, Part

RECIPE = "recipe: tests.launch.toy_recipe\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "job.yaml"
    file.write_text(RECIPE + text)
    return file


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(write(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_values_defaults_and_overrides(tmp_path):
    """Written beats default, override beats written; nested mappings are made on the way."""
    file = write(tmp_path, "model: m\ntrain:\n  batch_size: 4\n  learning_rate: 1e-6\nkind: 3\n")
    loaded = config.load(file, ["train.batch_size=16", "train.lora.rank=4", "names=[a, b]", "limit=5"])
    made = loaded.config
    assert made.train.batch_size == 16 and made.train.epochs == TrainOptions().epochs
    assert made.train.learning_rate == 1e-6 and isinstance(made.train.learning_rate, float)
    assert made.train.lora == LoraOptions(rank=4) and made.names == ["a", "b"]
    assert made.kind == 3 and made.limit == 5 and loaded.recipe.Config is Config
    assert loaded.resolved["recipe"] == "tests.launch.toy_recipe"


def test_a_group_given_in_part_keeps_the_rest_of_its_own_default(tmp_path):
    """Not that of its type: a learning rate alone must not change the batch size, at any depth."""
    file = write(tmp_path, "model: m\nwarm: {train: {learning_rate: 1e-2}}\n")
    made = config.load(file, ["warm.train.lora.dropout=0.5", "warm.part.name=x"]).config.warm
    assert (made.train.learning_rate, made.train.batch_size, made.train.epochs) == (1e-2, 64, TrainOptions().epochs)
    assert made.train.lora == LoraOptions(rank=3, dropout=0.5) and (made.part.name, made.part.weight) == ("x", 7.0)
    assert config.load(file, ["warm.train.lora=null"]).config.warm.train.lora is None


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("model: m\nmodle: x\n", 3, "unknown key 'modle'; did you mean 'model'?"),
        ("model: m\ntrain:\n  batchsize: 3\n", 4, "unknown key 'train.batchsize'; did you mean 'train.batch_size'?"),
        ("model: m\nlearning_rate: 3\n", 3, "did you mean 'train.learning_rate'?"),
        ("model: m\nzzz: 1\n", 3, "known keys: model, kind, pair"),
        ("model: 3\n", 2, "model = 3 is not str"),
        ("model: m\nkind: gmp\n", 3, "kind = 'gmp' is not \"bt\" | \"gpm\" | 3; did you mean 'gpm'?"),
        ("model: m\ntrain: {precision: f32}\n", 3, "did you mean 'fp32'?"),
        ("model: m\ntrain:\n  batch_size: 2.0\n", 4, "train.batch_size = 2.0 is not int"),
        ("model: m\ntrain:\n  batch_size: true\n", 4, "train.batch_size = true is not int"),
        ("model: m\ntrain:\n  learning_rate: fast\n", 4, "train.learning_rate = 'fast' is not float"),
        ("model: m\ntrain:\n  learning_rate: .nan\n", 4, "is not float"),
        ("model: m\npair: [1]\n", 3, "pair = [1] is not tuple[int, float]"),
        (
            "model: m\nparts:\n  - {name: a}\n  - {nam: b}\n",
            5,
            "unknown key 'parts[1].nam'; did you mean 'parts[1].name'?",
        ),
        ("model: m\ntable: {a: x}\n", 3, "table.a = 'x' is not float"),
        ("model: m\nlimit: [1]\n", 3, "limit = [1] is not int"),
        ("model: m\nnames: 3\n", 3, "names = 3 is not str | list[str]"),
        ("model: m\ntrain: 3\n", 3, "train = 3 is not TrainOptions"),
        ("model: m\non: yes\n", 3, "on = 'yes' is not bool"),
        ("model: m\nmodel: n\n", 3, "key 'model' is written twice"),
        ("model: m\ntrain:\n  quantization: 4bit\n", 4, "train.quantization: 4bit needs train.lora"),
        ("kind: bt\n", 1, "'model' is missing (str)"),
        ("model: [m\n", 3, "YAML cannot be read"),
        ("model: !!python/object:os.system m\n", 2, "configs use no tags"),
        ("model: m\nanything: &a [*a]\n", 3, "an alias may not contain itself"),
    ],
)
def test_a_refusal_names_file_line_and_remedy(tmp_path, text, line, said):
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path}/job.yaml:{line}: "), message
    assert said in message


def test_a_refusal_of_an_override_quotes_it(tmp_path):
    assert "override 'train.lr=1': unknown key 'train.lr'" in refusal(tmp_path, "model: m\n", "train.lr=1")
    assert "write key=value" in refusal(tmp_path, "model: m\n", "train.lr")
    assert "model = null is not str" in refusal(tmp_path, "model: m\n", "model=")
    said = refusal(tmp_path, "model: m\n", "train.quantization=4bit")
    assert said.startswith("override 'train.quantization=4bit': train.quantization: 4bit needs")


def test_files_that_are_no_config(tmp_path):
    for content, said in (
        (b"", "empty config"),
        (b"- a\n", "a mapping of"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: 1", "no `recipe`"),
    ):
        file = tmp_path / "x.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            config.load(file)


def test_a_missing_config_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"no config .nope.; .*shipped configs"):
        config.load("nope")


def test_every_shipped_config_is_found_by_name_and_builds():
    """From its short name, from configs/NAME.yaml in any folder, and into its recipe's Config."""
    for name, file in config.shipped().items():
        assert config.find(name) == config.find(f"configs/{name}.yaml").resolve() == file
        yamltree.read(file)


def test_an_unknown_recipe_is_refused_with_its_line(tmp_path):
    file = tmp_path / "x.yaml"
    for name, said in (
        ("tests.launch.no_such", "no recipe"),
        ("launch.errors", "is no recipe"),
        ("a b", "is not a name"),
    ):
        file.write_text(f"# first\nrecipe: {name}\n")
        with pytest.raises(ConfigError, match=rf"x.yaml:2: .*{said}"):
            config.load(file)


def test_a_recipe_is_found_by_its_entry_point(tmp_path, monkeypatch):
    """A real distribution folder on the path, as an installed package has."""
    folder = tmp_path / "toys-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[arbiter.recipes]\ntoy = tests.launch.toy_recipe\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "x.yaml"
    file.write_text("recipe: toy\nmodel: m\n")
    loaded = config.load(file)
    assert loaded.resolved["recipe"] == "tests.launch.toy_recipe"
    file.write_text("recipe: toyy\nmodel: m\n")
    with pytest.raises(ConfigError, match="did you mean 'toy'"):
        config.load(file)


def test_a_complaint_of_the_running_recipe_gets_its_line(tmp_path):
    loaded = config.load(write(tmp_path, "model: m\ntrain:\n  batch_size: 4\n"))
    placed = loaded.locate(ConfigError("too large", field="train.batch_size"))
    assert str(placed) == f"{tmp_path}/job.yaml:4: train.batch_size: too large"
    assert str(loaded.locate(ConfigError("no field"))) == "no field"


# ---------------------------------------------------------------- resolved configs load again

texts = st.text(max_size=12)
floats = st.floats(allow_nan=False)
loras = st.builds(
    LoraOptions, rank=st.integers(1, 99), dropout=floats, target_modules=texts | st.lists(texts, max_size=3)
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
configs = st.builds(
    Config,
    model=texts,
    kind=st.sampled_from(["bt", "gpm", 3]),
    pair=st.tuples(st.integers(), floats),
    many=st.lists(texts, max_size=3).map(tuple),
    names=texts | st.lists(texts, max_size=3),
    table=st.dictionaries(texts, floats, max_size=3),
    parts=st.lists(st.builds(Part, name=texts, weight=floats), max_size=2),
    limit=st.none() | st.integers(),
    folder=st.none() | texts.map(Path),
    anything=plain,
    on=st.booleans(),
    lora=st.none() | loras,
    train=st.builds(TrainOptions, learning_rate=floats, lora=st.none() | loras),
)


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\u2029", "a\r\nb", " lead", "1e-6", "no", "", "#"])
def test_text_that_yaml_would_fold_or_retype_comes_back(tmp_path, text):
    file = tmp_path / "text.yaml"
    file.write_text(yamltree.dump({"text": text}), encoding="utf-8", newline="")
    assert yamltree.read(file).plain() == {"text": text}


@given(configs)
@settings(max_examples=60, deadline=None)
def test_loading_the_resolved_config_gives_the_same_object(tmp_path_factory, made):
    """dump(resolve(c)) loads as an equal c, and resolves to equal data: strings that look like numbers included."""
    file = tmp_path_factory.getbasetemp() / "resolved.yaml"
    file.write_text(config.dump(made), encoding="utf-8", newline="")
    loaded = config.load(file)
    assert loaded.config == made
    assert loaded.resolved == config.resolve(made)


@pytest.mark.parametrize(
    "text", ["1e-6", "1E5", ".5", "0x1f", "007", "null", "~", "true", "no", "2024-01-01", "1_000", "", "<<"]
)
def test_strings_that_look_like_something_else_stay_strings(tmp_path, text):
    made = Config(model=text)
    loaded = config.load(write(tmp_path, config.dump({"model": text})))
    assert loaded.config.model == made.model


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), (".inf", float("inf")), ("-.Inf", float("-inf")),
     ("010", 10), ("0x1F", 31), ("1_000", 1000), ("+3", 3), ("no", "no"), ("off", "off"), ("True", True), ("~", None)],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2_says(tmp_path, text, value):
    read = config.load(write(tmp_path, f"model: m\nanything: {text}\n")).config.anything
    assert read == value and type(read) is type(value)


# ---------------------------------------------------------------- fields


def test_every_field_is_listed_once_with_its_docstring():
    """The list is the dataclass: same leaves as a resolved default, docstrings joined to one line."""
    listed = {field.key: field for field in fields_of(Config)}
    assert listed["model"].doc == "Folder of the model." and default_text(listed["model"].default) == "required"
    assert listed["kind"].type == '"bt" | "gpm" | 3'
    assert (
        listed["train.betas"].type == "tuple[float, float]"
        and default_text(listed["train.betas"].default) == "[0.9, 0.95]"
    )
    assert "adapters" not in listed["train.lora"].doc and listed["train.lora.rank"].default == 16
    leaves = {f"train.{field.name}" for field in dataclasses.fields(TrainOptions)}
    assert leaves <= set(listed)
    from launch.fields import field_docs

    assert field_docs(Part) == {"weight": "Share of this part, in kilograms per litre."}
