"""From text to arguments, WordNet's files, the lexicon, its vectors and its tools."""

from __future__ import annotations

import builtins
import json
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from launch.errors import CheckpointError, ConfigError, DataError
from launch.tools import ToolSpec
from launch.tools_pool import Pool
from reasoning.verbs import Lexicon, Taxonomy, VerbEncoder, wordnet, wordnet_lexicon
from reasoning.verbs.arguments import Argument, arguments
from reasoning.verbs.concepts import SelectionalAssociation, argument_quality, conceptualise
from reasoning.verbs.conllu import parse as parse_conllu
from reasoning.verbs.conllu import read_conllu
from reasoning.verbs.identify import Pair, by_concepts, frequent_verbs, held_out, identify
from reasoning.verbs.shallow import parse
from reasoning.verbs.taxonomy import CLOSURE_CAP, CLOSURE_SENSES
from reasoning.verbs.tools import argument_concepts, check_argument
from reasoning.verbs.wordnet import load
from tests.conftest import DATA

TREES = """
The    the    DET  2 det
girl   girl   NOUN 3 nsubj
ate    eat    VERB 0 root
some   some   DET  6 det
ice    ice    NOUN 6 compound
cream  cream  NOUN 3 obj
.      .      PUNCT 3 punct

Songs  song   NOUN 3 nsubj:pass
were   be     AUX  3 aux:pass
sung   sing   VERB 0 root
by     by     ADP  6 case
two    two    NUM  6 nummod
Boys   boy    NOUN 3 obl:agent

She    she    PRON 2 nsubj
sings  sing   VERB 0 root
hymns  hymn   NOUN 2 dobj
"""


def conllu(rows: str) -> str:
    """Rows of form, lemma, part, head, label as CoNLL-U."""
    out: list[str] = []
    for block in rows.strip().split("\n\n"):
        for number, row in enumerate(block.splitlines(), 1):
            form, lemma, upos, head, label = row.split()
            out.append("\t".join((str(number), form, lemma, upos, "_", "_", head, label, "_", "_")))
        out.append("")
    return "\n".join(out)


# ---------------------------------------------------------------- trees and arguments


def test_arguments_of_active_and_passive_verbs() -> None:
    """Pronouns are in no taxonomy; "ice cream" is a phrase of it; the passive's subject is an object."""
    found = list(arguments(parse_conllu(conllu(TREES).splitlines()), {"ice cream", "song"}))
    assert [a[:3] for a in found] == [
        ("eat", "subject", "girl"),
        ("eat", "object", "ice cream"),
        ("sing", "object", "song"),
        ("sing", "subject", "boy"),
        ("sing", "object", "hymn"),
    ]
    assert found[0].patterns == (
        ("child", "NOUN", "nsubj", "DET", "det"),
        ("sibling", "NOUN", "nsubj", "NOUN", "obj"),
    )  # the full stop is none
    assert [a.term for a in arguments(parse_conllu(conllu(TREES).splitlines()))][1] == "cream"


def test_ranges_and_empty_nodes_are_passed_over() -> None:
    lines = conllu("Eat eat VERB 0 root\npie pie NOUN 1 obj").splitlines()
    lines[1:1] = ["2-3\tdon't" + "\t_" * 8, "1.1\tnothing" + "\t_" * 8]
    assert [a.term for a in arguments(parse_conllu(["# a comment", *lines]))] == ["pie"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1\tEat\teat", "line 3: 3 columns of 10"),
        ("1 Eat eat VERB _ _ 0 root _ _", "line 3: 1 columns of 10; is it CoNLL-U, with tabs"),
        ("2\tEat\teat\tVERB\t_\t_\t0\troot\t_\t_", "line 3: token '2' with head '0' after 0 tokens"),
        ("1\tEat\teat\tVERB\t_\t_\t_\troot\t_\t_", "line 3: token '1' with head '_'"),
        ("1\tEat\teat\tVERB\t_\t_\t1\troot\t_\t_", "line 3: heads of token 1 never reach the root"),
        ("1\tEat\teat\tVERB\t_\t_\t7\troot\t_\t_", "line 3: heads of token 1 never reach the root"),
    ],
)
def test_broken_trees_name_file_and_line(tmp_path: Path, row: str, complaint: str) -> None:
    file = tmp_path / "text.conllu"
    file.write_text(f"# one\n# two\n{row}\n")
    with pytest.raises(DataError, match=f"text.conllu, {complaint}"):
        list(read_conllu(file))


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "text.conllu"
    file.write_bytes("# caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"text\.conllu is not UTF-8"):
        list(read_conllu(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The old dog was chased by two cats.", {("chase", "object", "dog"), ("chase", "subject", "cat")}),
        ("She said the child ate the red apples.", {("eat", "subject", "child"), ("eat", "object", "apple")}),
        ("hold your breath", {("hold", "object", "breath")}),
        ("The roof of the house collapsed.", {("collapse", "subject", "roof")}),
        ("Dogs and cats love to chase mice.", {("love", "subject", "dog"), ("chase", "object", "mouse")}),
        ("I've never seen him", set()),
        ("Mary gave the boy a book", {("give", "subject", "mary"), ("give", "object", "book")}),
        ("He doesn't wear hats in the house", {("wear", "object", "hat")}),
        ("very", set()),
        ("!?", set()),
    ],
)
def test_rules_for_plain_text(text: str, expected: set[tuple[str, str, str]]) -> None:
    tree = parse(text)
    assert {a[:3] for a in arguments([tree] if tree else [], wordnet())} == expected


# ---------------------------------------------------------------- WordNet


def test_wordnet_is_read_and_not_imported() -> None:
    """The files' own figures: 117,798 noun lemmas and 82,115 synsets; builtins stay as they are."""
    nouns = load("noun")
    assert (len(nouns.senses), len(nouns.synsets)) == (117_798, 82_115)
    assert "wn" not in sys.modules and not hasattr(builtins, "_lemma_pos_offset_map")
    assert nouns.lemmas("Geese") == ["goose"] and load("verb").lemmas("lives") == ["live"]
    assert nouns.synsets[nouns.senses["piano"][0]].words[:2] == ("piano", "pianoforte")


def test_wordnets_pairs_are_what_walking_the_synsets_gives() -> None:
    """The matrices against a walk, for 60 lemmas, one step and all the way up."""
    nouns = load("noun")
    for lemma in sorted(nouns.senses)[:: len(nouns.senses) // 60]:
        direct = {w for s in nouns.senses[lemma] for h in nouns.synsets[s].hypernyms for w in nouns.synsets[h].words}
        assert set(wordnet().concepts(lemma)) == direct - {lemma}
        reached: set[int] = set()
        edge = [h for s in nouns.senses[lemma][:CLOSURE_SENSES] for h in nouns.synsets[s].hypernyms]
        while edge:
            reached.update(edge)
            edge = [h for s in edge for h in nouns.synsets[s].hypernyms]
        every = {w for s in reached for w in nouns.synsets[s].words}
        kept = set(wordnet(True).concepts(lemma))
        assert kept <= every
        assert max(wordnet(True).sizes) <= CLOSURE_CAP and not {"entity", "physical entity"} & kept


# ---------------------------------------------------------------- the lexicon


def test_verbs_acceptance_8_speed() -> None:
    """60 frequent verbs, k = 5, direct pairs: under 5 seconds of one core. All optima are proven."""
    statistics = wordnet_lexicon().statistics["object"]
    verbs = [v for v, _ in statistics.verbs.most_common(60)]
    taxonomy = wordnet()
    start = time.process_time()
    found = [conceptualise(taxonomy, statistics.quality(v), 5) for v in verbs]
    assert time.process_time() - start < 5
    assert all(f.proven and len(f.chosen) == 5 for f in found)
    for f in found:
        sets = [taxonomy.entities(c) for c in f.names]
        assert all(len(a & b) <= 0.2 * min(len(a), len(b)) for a, b in combinations(sets, 2))


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("wear", "garment"), ("eat", "food"), ("drive", "automotive vehicle"), ("win", "competition"), ("pay", "payment")],
)
def test_examples_of_wordnet_say_what_verbs_take(verb: str, expected: str) -> None:
    assert expected in wordnet_lexicon().concepts(verb, "object").names


def test_checks_of_arguments() -> None:
    lexicon = wordnet_lexicon()
    scarf = lexicon.check("wear", "object", " Scarf ")
    assert scarf == {"covered": True, "by": ["garment"], "score": 1.0}
    assert lexicon.check("wear", "object", "piano") == {"covered": False, "by": [], "score": 0.0}
    assert not lexicon.check("wear", "object", "xyzzy")["covered"]
    with pytest.raises(DataError, match="no role 'agent'"):
        lexicon.concepts("wear", "agent")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'xyzzy' has no object"):
        lexicon.check("xyzzy", "object", "piano")


@pytest.mark.parametrize(
    ("verb", "fits", "odd"),
    [("drink", "tea", "stone"), ("eat", "soup", "idea"), ("read", "novels", "spoon"), ("drive", "Truck", "opinion")],
)
def test_plausible_objects_are_told_from_odd_ones(verb: str, fits: str, odd: str) -> None:
    assert check_argument(verb, "object", fits)["score"] > 0.9
    assert check_argument(verb, "object", odd) == {"covered": False, "by": [], "score": 0.0, "known": True}


def test_an_odd_object_may_be_covered_by_another_sense() -> None:
    """A piano is no garment, but *piano* is also a property of music: covered, with a low score."""
    got = check_argument("wear", "object", "piano")
    assert got["covered"] and got["score"] < 0.2 < check_argument("wear", "object", "scarves")["score"]


def test_fewer_concepts_where_so_many_do_not_fit_together() -> None:
    taxonomy = Taxonomy.from_pairs([(e, c) for e in ("a", "b") for c in ("x", "y")] + [("c", "z")])
    one, two = ("child", "NOUN", "obj", "DET", "det"), ("child", "NOUN", "obj", "ADJ", "amod")
    found = [Argument("eat", "object", e, (one, two)) for e in "abc"] + [Argument("see", "object", "d", (one, two))]
    lexicon = Lexicon(found, taxonomy, "by hand")
    assert lexicon.concepts("eat", "object", 3).chosen == ()
    size, got = lexicon.finest("eat", "object", 3)
    assert (size, got.names) == (2, ("x", "z"))
    assert lexicon.finest("see", "object", 3)[0] == 0


def test_a_text_without_arguments_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.conllu").write_text(conllu("She she PRON 2 nsubj\nsings sing VERB 0 root"))
    with pytest.raises(DataError, match=r"a\.conllu holds no verb with a noun"):
        Lexicon.from_conllu(tmp_path, Taxonomy.from_pairs([]))
    with pytest.raises(DataError, match="no CoNLL-U file at"):
        Lexicon.from_conllu(tmp_path / "b.conllu")


# ---------------------------------------------------------------- identification


def test_held_out_pairs_are_balanced_and_false_ones_never_seen() -> None:
    rng = np.random.default_rng(0)
    found = [Argument(f"v{rng.integers(6)}", "object", f"e{rng.integers(40)}", ()) for _ in range(600)]
    verbs = frequent_verbs(found, "object", 4)
    train, pairs = held_out(found, "object", verbs, seed=1)
    mine = [a for a in found if a.verb in verbs]
    assert len(train) == len(mine) - round(0.3 * len(mine))
    assert sum(p.true for p in pairs) * 2 == len(pairs)
    together = {(a.verb, a.term) for a in mine}
    assert all(((p.verb, p.term) in together) == p.true for p in pairs)
    assert held_out(found, "object", verbs, 1) == (train, pairs) != held_out(found, "object", verbs, 2)
    with pytest.raises(DataError, match="too few"):
        held_out(found[:1], "object", verbs, 0)


def test_unseen_pairs_are_held_out_with_every_occurrence() -> None:
    rng = np.random.default_rng(0)
    found = [Argument(f"v{rng.integers(4)}", "object", f"e{int(rng.exponential(8))}", ()) for _ in range(400)]
    verbs = frequent_verbs(found, "object", 4)
    train, pairs = held_out(found, "object", verbs, seed=1, unseen=True)
    asked, read = {(p.verb, p.term) for p in pairs if p.true}, {(a.verb, a.term) for a in train}
    assert not asked & read and asked | read <= {(a.verb, a.term) for a in found}
    assert len(asked) == sum(p.true for p in pairs) == len(pairs) / 2  # each pair once, frequent or not
    assert [a for a in found if (a.verb, a.term) in read] == train
    assert held_out(found[::-1], "object", verbs, 1, unseen=True)[1] == pairs  # no matter how often and in what order


def test_rates_by_hand() -> None:
    taxonomy = Taxonomy.from_pairs([("pie", "food"), ("soup", "food"), ("car", "thing")])
    pairs = [Pair("eat", "pie", True), Pair("eat", "fig", True), Pair("eat", "car", False), Pair("eat", "soup", False)]
    assert identify(pairs, by_concepts(taxonomy, {"eat": ["food"]})) == (0.5, 0.5, 0.5, 4)


# ---------------------------------------------------------------- vectors and tools


def test_vectors_are_readable_sum_to_one_and_come_back(tmp_path: Path) -> None:
    encoder = VerbEncoder(5).fit(wordnet_lexicon(), ["wear", "eat", "pay", "sing"])
    vectors = encoder.encode(["pay", "wear"])
    assert vectors.dtype == np.float32 and vectors.shape == (2, len(encoder.vocabulary))
    assert vectors.sum(1) == pytest.approx([1, 1], abs=1e-6) and (vectors >= 0).all()
    wear = encoder.sparse("wear")
    assert next(iter(wear)) == "object:garment"
    assert {encoder.vocabulary[i]: w for i, w in enumerate(vectors[1]) if w} == pytest.approx(wear)
    encoder.save_pretrained(tmp_path / "verbs")
    back = VerbEncoder.from_pretrained(tmp_path / "verbs")
    assert back.vocabulary == encoder.vocabulary and (back.encode(["pay", "wear"]) == vectors).all()
    with pytest.raises(DataError, match="'fly' was not fitted"):
        back.encode(["fly"])
    with pytest.raises(ConfigError, match="k 0"):
        VerbEncoder(0)
    with pytest.raises(CheckpointError, match="holds no encoder"):
        VerbEncoder.from_pretrained(tmp_path)


def test_the_tools_are_the_library_behind_a_process(tmp_path: Path) -> None:
    (tmp_path / "own.conllu").write_text(conllu(TREES))
    tools = {spec.name: spec for spec in (ToolSpec.of(argument_concepts), ToolSpec.of(check_argument))}
    with Pool(tools, tmp_path, workers=1) as pool:
        said = pool.call("argument_concepts", {"verb": "To Sing", "role": "object", "k": 2, "text": "own.conllu"})
        own = json.loads(said)["result"]
        refused, well = pool.answer("check_argument", {"verb": "eat", "role": "place", "term": "pie"})
    assert (own["arguments"], own["source"], own["proven"]) == (2, "own.conllu", True)
    assert not well and "role" in refused


def test_tools_answer_from_wordnets_examples_and_say_so() -> None:
    got = argument_concepts("wear", "object", 3)
    assert [c["concept"] for c in got["concepts"]][:2] == ["garment", "clothing"]
    assert "example sentences of WordNet" in got["source"] and got["arguments"] > 50
    assert argument_concepts("to Wore", "object", 3) == got
    xyzzy = check_argument("wear", "object", "xyzzy")
    assert xyzzy == {"covered": False, "by": [], "score": 0.0, "known": False}
    with pytest.raises(DataError, match="k is 0"):
        argument_concepts("wear", "object", 0)


# ---------------------------------------------------------------- real trees, where a user has put some

TREEBANKS = DATA / "verbs"
"""dev and test files of UD_English-EWT and -GUM, all three of -LinES; not part of the data folder."""

if TREEBANKS.is_dir():

    def real(closure: bool, k: int, unseen: bool = False) -> dict[str, np.ndarray]:
        """Mean (accuracy, true and false positive rate) over three splits of the 60 verbs with most objects."""
        files = sorted(TREEBANKS.glob("*.conllu"))
        found = list(arguments((s for f in files for s in read_conllu(f)), wordnet()))
        assert (sum(a.role == "object" for a in found), sum(a.role == "subject" for a in found)) == (8015, 4766)
        taxonomy, verbs = wordnet(closure), frequent_verbs(found, "object", 60)
        rates: dict[str, list[tuple[float, ...]]] = {"ac": [], "bl": [], "sp": []}
        for seed in range(3):
            train, pairs = held_out(found, "object", verbs, seed, unseen=unseen)
            lexicon = Lexicon(train, taxonomy, "train")
            association = SelectionalAssociation(lexicon.statistics["object"], taxonomy)
            for method in rates:
                chosen = {}
                for verb in verbs:
                    if method == "sp":
                        chosen[verb] = association.concepts(verb, k).names
                    else:
                        quality = argument_quality(lexicon.statistics["object"], verb, method)
                        chosen[verb] = conceptualise(taxonomy, quality, k, budget=20_000).names
                rates[method].append(identify(pairs, by_concepts(taxonomy, chosen))[:3])
        return {method: np.mean(listed, axis=0) for method, listed in rates.items()}

    @pytest.mark.data
    def test_verbs_acceptance_5_identification_with_direct_pairs() -> None:
        """On pairs never read. Where occurrences are held out, false ones are .17 at k = 10: see docs/verbs.md."""
        unseen, ten, five = real(False, 10, unseen=True)["ac"], real(False, 10), real(False, 5)
        assert 0.52 <= unseen[0] <= 0.60 and unseen[2] < 0.15
        assert 0.52 <= ten["ac"][0] <= 0.60 and 0.52 <= five["ac"][0] <= 0.60
        assert five["ac"][2] < 0.15 and ten["ac"][2] < 0.18
        assert ten["ac"][0] > ten["sp"][0]

    @pytest.mark.data
    def test_verbs_acceptance_6_closure_and_food() -> None:
        """AC beats BL by .01 at k = 5. At 10, where the pilot saw .026, it is .004: see docs/verbs.md."""
        five, ten = real(True, 5), real(True, 10)
        assert five["ac"][0] >= five["bl"][0] + 0.01 and ten["ac"][0] > ten["bl"][0]
        eat = Lexicon.from_conllu(TREEBANKS, wordnet(True)).concepts("eat", "object", 10).names
        assert {"food", "nutrient", "solid food"} & set(eat)
