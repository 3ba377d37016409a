"""Data in: every layout gives the same groups, splits are by prompt, and bad input gives one clear line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from align.preference.data import DataOptions, Loading, load_groups, to_messages
from launch.errors import ConfigError, DataError

Rows = list[dict[str, Any]]
ASK = [{"role": "user", "content": "2+2?"}]


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write(folder: Path, rows: Rows, name: str = "data.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def load(folder: Path, rows: Rows, **options: Any) -> Rows:
    train, test = load_groups(DataOptions(path=write(folder, rows), test_fraction=0, **options))
    assert len(test) == 0
    return list(train)


def complaint(folder: Path, rows: Rows, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, rows, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "data.jsonl:1" in message
    return message


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"instruction": "2+2?", "chosen": "4", "reject": "5", "margin": 0.5},
        {"prompt": "2+2?", "response_1": "4", "response_2": "5", "label": 1},
        {"prompt": "2+2?", "response_1": "5", "response_2": "4", "label": 2},
        {"prompt": "2+2?", "responses": ["4", "5"], "scores": [1, -1.5]},
        {"prompt": "2+2?", "responses": ["4", "5"], "votes": [[0, 1, 0]]},
        {"prompt": "2+2?", "responses": ["4", "5"], "votes": [{"i": 1, "j": 0, "wins_i": 0, "wins_j": 1}]},
        {"prompt": "2+2?", "responses": ["4", "5"], "table": [[None, 1], [0, None]]},
    ],
)
def test_every_layout_gives_the_same_group(tmp_path: Path, row: dict[str, Any]) -> None:
    (group,) = load(tmp_path, [row])
    texts = group["responses"]
    assert group["prompt"] == "2+2?"
    assert [(texts[w], texts[b]) for w, b in zip(group["winners"], group["losers"], strict=True)] == [("4", "5")]
    assert (group["weights"], group["ties"], group["source"]) == ([1.0], [], f"{tmp_path}/data.jsonl:1")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASK, "chosen": say("4"), "rejected": say("5")},
        {"chosen": ASK + say("4"), "rejected": ASK + say("5")},
        {"prompt": ASK, "chosen": ASK + say("4"), "rejected": ASK + say("5")},
        {"prompt": "2+2?", "chosen": say("4"), "rejected": say("5")},
        {"prompt": ASK, "responses": [say("4"), say("5")], "scores": [1, 0]},
    ],
)
def test_conversations_with_prompt_given_or_implied(tmp_path: Path, row: dict[str, Any]) -> None:
    (group,) = load(tmp_path, [row])
    assert (group["prompt"], group["responses"], group["winners"]) == (ASK, ["4", "5"], [0])


def test_implied_prompt_of_plain_text_never_splits_a_word_or_a_turn(tmp_path: Path) -> None:
    """Both answers begin with "I ": a plain common prefix would count that into the prompt."""
    dialogue = "\n\nHuman: Hi\n\nAssistant:"
    rows = [
        {"chosen": f"{dialogue} I am well.", "rejected": f"{dialogue} I do not care."},
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
    ]
    first, second = load(tmp_path, rows)
    assert (first["prompt"], first["responses"]) == (dialogue, [" I am well.", " I do not care."])
    assert (second["prompt"], second["responses"]) == ("The sky is", [" blue.", " black."])


def test_files_of_every_kind_hold_the_same_groups(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"prompt": f"p{n}\u2028", "chosen": "good", "rejected": "bad"} for n in range(3)]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "splits")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    (tmp_path / "data.json").write_text(json.dumps(rows))
    plain = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)  # no end of line after the last row
    (tmp_path / "data.jsonl").write_text(plain)
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(plain.encode()))
    for name in ("data.jsonl", "data.jsonl.gz", "data.json", "data.parquet", "saved", "splits"):
        train, _ = load_groups(DataOptions(path=str(tmp_path / name), test_fraction=0))
        assert [group["prompt"] for group in train] == [row["prompt"] for row in rows], name


def test_columns_can_be_renamed(tmp_path: Path) -> None:
    row = {"question": "2+2?", "chosen": "4", "worse": "5"}
    (group,) = load(tmp_path, [row], columns={"prompt": "question", "rejected": "worse"})
    assert (group["prompt"], group["responses"]) == ("2+2?", ["4", "5"])


def test_labels_can_be_translated(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "response_1": "a", "response_2": "b", "label": n} for n in range(3)]
    values = {"0": 1, "1": 2, "2": 0}
    first, second = load(tmp_path, rows, label_values=values)
    assert (first["winners"], second["winners"]) == ([0], [1])
    assert "label_values knows 5" in complaint(tmp_path, rows, label_values={"5": 1})


# ---------------------------------------------------------------- votes, ties, annotators


def test_scores_make_all_strict_pairs_and_keep_ties_apart(tmp_path: Path) -> None:
    row = {"prompt": "p", "responses": ["a", "b", "c", "d"], "scores": [3, 1, 3, None]}
    (group,) = load(tmp_path, [row])
    assert list(zip(group["winners"], group["losers"], strict=True)) == [(0, 1), (2, 1)]
    assert group["ties"] == [[0, 2]]
    (halved,) = load(tmp_path, [row], ties="half")
    assert sum(halved["weights"]) == 3.0
    assert halved["ties"] == []
    (close,) = load(tmp_path, [{**row, "scores": [3, 1, 2.5, None]}], min_margin=1.0)
    assert close["ties"] == [[0, 2]]


def test_votes_add_up_and_majority_gives_one_direction(tmp_path: Path) -> None:
    """Three judges on a-b: 2 to 1. Two on b-c: 1 to 1. One calls a-c a tie."""
    votes = [[0, 1, 0], [0, 1, 0], [0, 1, 1], [1, 2, 1], [1, 2, 2], [0, 2, None]]
    row = {"prompt": "p", "responses": ["a", "b", "c"], "votes": votes}
    (every,) = load(tmp_path, [row])
    found = zip(every["winners"], every["losers"], every["weights"], strict=True)
    assert sorted(found) == [(0, 1, 2.0), (1, 0, 1.0), (1, 2, 1.0), (2, 1, 1.0)]
    assert every["ties"] == [[0, 2]]
    (majority,) = load(tmp_path, [row], votes="majority")
    assert (majority["winners"], majority["losers"], majority["weights"]) == ([0], [1], [1.0])
    assert sorted(majority["ties"]) == [[0, 2], [1, 2]]


def test_probability_table_trains_on_soft_votes(tmp_path: Path) -> None:
    """P(a > b) = .8 weighs .8 one way and .2 the other: the loss is the cross-entropy of the probabilities."""
    (group,) = load(tmp_path, [{"prompt": "p", "responses": ["a", "b"], "table": [[0.5, 0.8], [0.2, 0.5]]}])
    assert list(zip(group["winners"], group["losers"], group["weights"], strict=True)) == [(0, 1, 0.8), (1, 0, 0.2)]


def test_annotators_by_row_and_by_column(tmp_path: Path) -> None:
    pair = {"prompt": "p", "response_1": "a", "response_2": "b"}
    by_row = [{**pair, "label": 1, "annotator": "ann"}, {**pair, "label": 2, "annotator": "bob"}]
    by_column = [{**pair, "ann": 1, "bob": 2, "cem": None}]
    first = load(tmp_path, by_row)[0]
    second = load(tmp_path, by_column, labels=["ann", "bob", "cem"])[0]
    for group in (first, second):
        assert (group["winners"], group["annotators"]) == ([0, 1], ["ann", "bob"])
    (kept,) = load(tmp_path, by_row, annotators=["bob"])
    assert (kept["winners"], kept["annotators"]) == ([1], ["bob"])


# ---------------------------------------------------------------- grouping and splitting


def test_rows_of_one_prompt_become_one_group_of_different_answers(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    rows = [{"prompt": "p", "chosen": x, "rejected": y} for x, y in pairs]
    (group,) = load(tmp_path, rows)
    assert group["responses"] == ["a", "b", "c"]
    assert list(zip(group["winners"], group["losers"], strict=True)) == [(0, 1), (1, 2), (2, 0)]


def test_groups_never_outgrow_the_limit_and_lose_no_pair(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(10)]
    groups = load(tmp_path, rows, max_responses=6)
    assert [len(group["responses"]) for group in groups] == [6, 6, 6, 2]
    assert sum(len(group["winners"]) for group in groups) == 10


def test_split_is_by_prompt_and_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n % 20}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(100)]
    options = {"test_fraction": 0.25, "max_responses": 4}
    train, test = load_groups(DataOptions(path=write(tmp_path, rows), **options))
    held_out = {group["prompt"] for group in test}
    assert len(held_out) == 5
    assert held_out.isdisjoint({group["prompt"] for group in train})
    again = load_groups(DataOptions(path=write(tmp_path, rows[::-1]), **options))[1]
    assert {group["prompt"] for group in again} == held_out
    other = load_groups(DataOptions(path=write(tmp_path, rows), split_seed=1, **options))[1]
    assert {group["prompt"] for group in other} != held_out


def test_separate_test_file_takes_its_prompts_out_of_training(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "good", "rejected": "bad"} for n in range(4)]
    loading = Loading()
    options = DataOptions(path=write(tmp_path, rows), test_path=write(tmp_path, rows[:1], "test.jsonl"))
    train, test = load_groups(options, loading)
    assert [group["prompt"] for group in train] == ["p1", "p2", "p3"]
    assert [group["prompt"] for group in test] == ["p0"]
    assert loading.leaked == 1
    assert any("1 training prompts left out" in line for line in loading.lines())


def test_max_groups_draws_prompts_that_a_split_still_divides(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "good", "rejected": "bad"} for n in range(50)]
    train, test = load_groups(DataOptions(path=write(tmp_path, rows), max_groups=10, test_fraction=0.2))
    assert (len(train), len(test)) == (8, 2)


def test_dialogue_text_becomes_turns() -> None:
    assert to_messages("\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Bye\n\nAssistant:") == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ]
    assert to_messages("2+2?") == ASK


# ---------------------------------------------------------------- bad input

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
SCORED = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 0]}
VOTED = {"prompt": "p", "responses": ["a", "b"], "votes": [[0, 1, 0]]}
LABELLED = {"prompt": "p", "response_1": "a", "response_2": "b", "label": 1}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**PAIR, "chosen": ""}, "response 1 is empty"),
        ({**PAIR, "rejected": " \n\t"}, "response 2 is empty"),
        ({**PAIR, "rejected": "a"}, "identical"),
        ({**PAIR, "chosen": None}, "must both be text"),
        ({"chosen": "x y", "rejected": "x y"}, "identical"),
        ({"chosen": "yes", "rejected": "no"}, "no common prompt"),
        ({**PAIR, "prompt": "  "}, "prompt is empty"),
        ({**PAIR, "prompt": 3}, "prompt is a int"),
        ({**PAIR, "weight": 0}, "weight 0.0 is not above 0"),
        ({"prompt": "p", "chosen": "a", "rejcted": "b"}, "columns.rejected=rejcted"),
        ({"text": "a"}, "no column"),
        ({"prompt": [], **{k: PAIR[k] for k in ("chosen", "rejected")}}, "no turn at all"),
        ({**PAIR, "prompt": [{"role": "system", "content": "x"}]}, "ends with 'system'"),
        ({**PAIR, "prompt": ASK + say("4")}, "ends with 'assistant'"),
        ({**PAIR, "prompt": [{"role": "human", "content": "x"}]}, "role 'human'"),
        ({**PAIR, "prompt": [{"from": "human", "value": "x"}]}, "'role' and 'content'"),
        ({**PAIR, "prompt": [{"role": "user", "text": "x"}]}, "'role' and 'content'"),
        ({**PAIR, "prompt": ["x"]}, "'role' and 'content'"),
        ({"prompt": ASK, "chosen": [{"role": "assistant"}], "rejected": say("5")}, "not one with role"),
        ({"prompt": ASK, "chosen": ASK, "rejected": say("5")}, "0 messages after"),
        ({"prompt": "p", "chosen": ASK, "rejected": say("5")}, "the last turn is by 'user'"),
        ({**PAIR, "margin": -0.5}, "margin -0.5 says that the rejected answer is better; swap"),
        ({"chosen": ASK + say("4") + ASK + say("1"), "rejected": ASK + say("5") + ASK + say("1")}, "last turn only"),
        ({**SCORED, "scores": [float("nan"), 0]}, "score 1 is nan"),
        ({**SCORED, "scores": [1, float("inf")]}, "score 2 is inf"),
        ({**SCORED, "scores": [1, "high"]}, "score 2 is 'high'"),
        ({**SCORED, "scores": [1]}, "as many scores, not 1"),
        ({**SCORED, "responses": ["a"], "scores": [1]}, "1 answer; a preference needs at least two"),
        ({**SCORED, "responses": "ab"}, "a list of answers belongs here"),
        ({**SCORED, "responses": ["a", 7]}, "response 2 is a int"),
        ({**LABELLED, "label": 3}, "label is 3"),
        ({**LABELLED, "label": "1"}, "label is '1'"),
        ({**LABELLED, "label": True}, "label is True"),
        ({**VOTED, "votes": [[0, 2, 0]]}, "index 2 in a vote"),
        ({**VOTED, "votes": [[0, 1, 2]]}, "winner 2 is neither 0 nor 1"),
        ({**VOTED, "votes": [[1, 1, 1]]}, "with itself"),
        ({**VOTED, "votes": [{"i": 0, "j": 1, "wins_i": -1}]}, "wins_i is -1"),
        ({**VOTED, "votes": ["0>1"]}, "write [i, j, winner]"),
        ({"prompt": "p", "responses": ["a", "b"], "table": [[0, 1]]}, "2 rows and 2 columns"),
        ({"prompt": "p", "responses": ["a", "b"], "table": [[0, -1.5], [1.5, 0]]}, "not below 0"),
        ({"prompt": "p", "responses": ["a", "b"], "table": [[0, float("nan")], [1, 0]]}, "table[0][1] is nan"),
    ],
)
def test_bad_row_gives_one_line_with_file_row_and_remedy(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    assert says in complaint(tmp_path, [row])


def test_bad_rows_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path, [PAIR, {**PAIR, "chosen": ""}, {**PAIR, "prompt": "q"}])
    with Path(file).open("a") as out:
        out.write('{"prompt": "r", "chosen": \n[1, 2]\n')
    loading = Loading()
    train, _ = load_groups(DataOptions(path=file, test_fraction=0, bad_rows="skip"), loading)
    assert [group["prompt"] for group in train] == ["p", "q"]
    assert [line.split(": ")[0].rpartition(":")[2] for line in loading.skipped] == ["2", "4", "5"]
    assert "3 bad rows left out" in loading.lines()[1]


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    file = write(tmp_path, [PAIR, PAIR])
    with Path(file).open("a") as out:
        out.write('{"prompt": "r" "chosen"}\n')
    with pytest.raises(DataError, match=r"data\.jsonl:3: broken JSON .* column 16"):
        load_groups(DataOptions(path=file))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def says(name: str, content: bytes | None) -> str:
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_groups(DataOptions(path=str(file)))
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    row = json.dumps(PAIR).encode()
    assert "no such file" in says("missing.jsonl", None)
    assert "no rows" in says("empty.jsonl", b"")
    assert "cannot be read" in says("cut.jsonl.gz", gzip.compress(row * 50)[:-20])
    assert "cannot be read" in says("plain.jsonl.gz", row)
    assert "not UTF-8" in says("latin.jsonl", '{"prompt": "é"}'.encode("latin-1"))
    assert "name the file .jsonl" in says("lines.json", row + b"\n" + row)
    assert "a list of rows" in says("object.json", row)
    assert "cannot be read as parquet" in says("cut.parquet", b"PAR1 and then nothing")
    assert "unknown kind" in says("data.xlsx", row)
    (tmp_path / "folder").mkdir()
    assert "neither a saved data set" in says("folder", None)


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    tied = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 1]}
    with pytest.raises(DataError, match="no strict preference"):
        load(tmp_path, [tied])
    with pytest.raises(DataError, match=r"data\.path is empty"):
        load_groups(DataOptions())
    with pytest.raises(DataError, match="one prompt only"):
        load_groups(DataOptions(path=write(tmp_path, [PAIR]), test_fraction=0.5))


def test_nothing_is_left_out_without_a_count(tmp_path: Path) -> None:
    """Three prompts with a winner, two with ties only; the same five as the test, where ties are kept."""
    tied = [{"prompt": f"t{n}", "responses": ["a", "b"], "scores": [1, 1]} for n in range(2)]
    rows = [{"prompt": f"p{n}", "chosen": "good", "rejected": "bad", "margin": 0.5} for n in range(3)]
    loading = Loading()
    train, _ = load_groups(DataOptions(path=[write(tmp_path, tied, "t.jsonl"), write(tmp_path, rows)], test_fraction=0,
                                       min_margin=0.5), loading)  # fmt: skip
    assert (len(train), loading.train, loading.tied, loading.tied_test) == (3, 3, 2, 0)
    assert any("2 training groups left out" in line for line in loading.lines())
    loading = Loading()
    other = write(tmp_path, [{**PAIR, "prompt": "other"}], "other.jsonl")
    _, test = load_groups(
        DataOptions(path=other, test_path=[str(tmp_path / "t.jsonl"), write(tmp_path, rows)]), loading
    )
    assert (len(test), loading.test, loading.tied, loading.tied_test) == (5, 5, 0, 2)
    assert any("2 test groups have ties only" in line for line in loading.lines())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"format": "trl"}, "format"),
        ({"bad_rows": "ignore"}, "bad_rows"),
        ({"max_responses": 1}, "max_responses"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataOptions(path="x.jsonl", **options)
    assert caught.value.field == field
