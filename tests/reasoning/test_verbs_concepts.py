"""Argument concepts: the search against brute force, the laws of quality and overlap, and a small taxonomy by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import entropy

from launch.errors import ConfigError, DataError
from reasoning.verbs.arguments import Argument
from reasoning.verbs.clique import best_clique, brute_force
from reasoning.verbs.concepts import SelectionalAssociation, argument_quality, conceptualise, heaviest, weighted
from reasoning.verbs.statistics import Statistics
from reasoning.verbs.taxonomy import Taxonomy, read_tsv

ONE = ("child", "NOUN", "obj", "DET", "det")
TWO = ("sibling", "NOUN", "obj", "PRON", "nsubj")


def graph(rng: np.random.Generator, n: int) -> tuple[list[float], np.ndarray]:
    """Sorted weights, about a third of them negative, and a random symmetric relation."""
    weights = sorted(rng.normal(0.5, 1, n).round(rng.integers(1, 4)).tolist(), reverse=True)
    upper = np.triu(rng.random((n, n)) < rng.uniform(0.3, 0.9), 1)
    return weights, upper | upper.T


def tree(rng: np.random.Generator, entities: int = 30, concepts: int = 12) -> tuple[Taxonomy, dict[str, float]]:
    """A random taxonomy and a random quality of its entities."""
    belongs = rng.random((entities, concepts)) < 0.25
    pairs = [(f"e{e}", f"c{c}") for e, c in np.argwhere(belongs)]
    return Taxonomy.from_pairs(pairs), {f"e{e}": float(rng.normal(0.4, 1)) for e in range(entities)}


def overlap(taxonomy: Taxonomy, a: str, b: str) -> float:
    """The slow twin of `Taxonomy.overlaps`, by sets."""
    left, right = taxonomy.entities(a), taxonomy.entities(b)
    return len(left & right) / min(len(left), len(right))


def test_verbs_acceptance_1_branch_and_bound_equals_brute_force() -> None:
    """500 weighted graphs of 4 to 12 nodes, k to 4; some optima hold the lightest node, some graphs have none."""
    rng = np.random.default_rng(0)
    with_last = without = 0
    for _ in range(500):
        n, k = int(rng.integers(4, 13)), int(rng.integers(1, 5))
        weights, compatible = graph(rng, n)
        fast, slow = best_clique(weights, compatible, k), brute_force(weights, compatible, k)
        assert fast.proven
        assert fast.weight == pytest.approx(slow.weight, abs=1e-9)
        assert fast.nodes == slow.nodes  # ties go to the same clique
        assert all(compatible[i, j] for i, j in combinations(fast.nodes, 2)) and len(fast.nodes) in (0, k)
        with_last += n - 1 in slow.nodes
        without += not slow.nodes
    assert with_last >= 20 and without >= 20


def as_printed(weights: list[float], compatible: np.ndarray, k: int) -> float:
    """The best weight by the order of the paper's pseudo-code: the end of the list is tested before the size."""
    best = 0.0

    def branch(i: int, chosen: list[int], score: float) -> None:
        nonlocal best
        if i >= len(weights):
            return
        if len(chosen) == k:
            best = max(best, score)
            return
        if all(compatible[i, j] for j in chosen):
            branch(i + 1, [*chosen, i], score + weights[i])
        branch(i + 1, chosen, score)

    branch(0, [], 0.0)
    return best


def test_the_printed_order_loses_the_last_concept_and_nothing_else() -> None:
    rng = np.random.default_rng(4)
    lost = 0
    for _ in range(300):
        weights, compatible = graph(rng, 6)
        truth, printed = best_clique(weights, compatible, 3), as_printed(weights, compatible, 3)
        if printed < truth.weight - 1e-9:
            assert 5 in truth.nodes
            lost += 1
        else:
            assert printed == pytest.approx(truth.weight)
    assert lost >= 10


def test_bound_saves_work_and_the_budget_is_told() -> None:
    rng = np.random.default_rng(1)
    weights, compatible = graph(rng, 24)
    whole = best_clique(weights, compatible, 5)
    assert whole.proven and whole.visited < math.comb(24, 5) / 20
    cut = best_clique(weights, compatible, 5, budget=6)
    assert not cut.proven and cut.visited <= 6 and cut.weight <= whole.weight
    assert best_clique(weights, compatible, 5, budget=whole.visited + 1) == whole


def test_a_clique_may_need_a_negative_node_even_where_positive_ones_would_do() -> None:
    """10 goes with -1 alone: 9 beats 1 + 1. So leaving negative ones out is not exact."""
    compatible = np.zeros((4, 4), dtype=bool)
    compatible[0, 3] = compatible[3, 0] = compatible[1, 2] = compatible[2, 1] = True
    assert best_clique([10.0, 1.0, 1.0, -1.0], compatible, 2).nodes == (0, 3)
    assert best_clique([10.0, 1.0, 1.0], compatible[:3, :3], 2).nodes == (1, 2)


@pytest.mark.parametrize(
    ("weights", "k", "complaint"), [([1.0, 2.0], 1, "do not descend"), ([2.0, 1.0], 0, "0 nodes"), ([1.0], 1, "matrix")]
)
def test_a_search_that_makes_no_sense_is_refused(weights: list[float], k: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        best_clique(weights, np.ones((2, 2), dtype=bool), k)


def test_verbs_acceptance_2_overlap_invariant() -> None:
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(40):
        taxonomy, quality = tree(rng)
        before = math.inf
        for tau in (1.0, 0.6, 0.4, 0.2, 0.0):
            got = conceptualise(taxonomy, quality, 3, tau=tau, budget=None)
            pairs = [overlap(taxonomy, a, b) for a, b in combinations(got.names, 2)]
            assert all(o <= tau for o in pairs)
            assert got.weight <= before + 1e-9
            if got.chosen:
                before, found = got.weight, found + (tau == 0)
        top = [(c, w) for c, w in weighted(taxonomy, quality) if w > 0][:3]
        all_ = conceptualise(taxonomy, quality, 3, tau=1.0)
        assert all_.weight == pytest.approx(sum(w for _, w in top)) or len(top) < 3
    assert found >= 5


def test_overlaps_are_those_of_sets() -> None:
    taxonomy, _ = tree(np.random.default_rng(3))
    concepts = [c for c in taxonomy.terms if c.startswith("c")]
    got = taxonomy.overlaps([taxonomy.ids[c] for c in concepts])
    for (i, a), (j, b) in combinations(enumerate(concepts), 2):
        assert got[i, j] == got[j, i] == overlap(taxonomy, a, b)


def seen(verb: str, term: str, *patterns: tuple[str, str, str, str, str]) -> Argument:
    return Argument(verb, "object", term, patterns)


def test_verbs_acceptance_3_signs_of_quality() -> None:
    """`thing` is seen once with each of three verbs, as independence would have it; `pie` only with eat."""
    found = [seen(v, "thing", ONE, TWO) for v in ("eat", "see", "buy")]
    found += [seen(v, t, ONE, TWO) for v, t in (("eat", "pie"), ("see", "film"), ("buy", "car"))]
    statistics = Statistics(found, "object")
    assert statistics.total == 6
    # p(v, e) = 1/6 = p(v) p(e) = 1/3 * 1/2: nothing is learnt, the sign is -1. For pie 1/6 > 1/3 * 1/6.
    assert statistics.information("eat", "thing") == -1 and statistics.information("eat", "pie") == 1
    assert statistics.quality("eat") == {"thing": pytest.approx(-math.log(2)), "pie": pytest.approx(math.log(2))}
    taxonomy = Taxonomy.from_pairs([("thing", "entity"), ("pie", "entity"), ("pie", "food")])
    with_thing = taxonomy.weigh(statistics.quality("eat"))[taxonomy.ids["entity"]]
    without = taxonomy.weigh({"pie": statistics.quality("eat")["pie"]})[taxonomy.ids["entity"]]
    assert with_thing == pytest.approx(without - math.log(2))
    one_pattern = Statistics([seen("eat", "pie", ONE), seen("eat", "pie", ONE), seen("see", "film", TWO)], "object")
    assert one_pattern.quality("eat") == {"pie": 0.0}
    assert weighted(taxonomy, one_pattern.quality("eat")) == []


def test_entropy_by_hand() -> None:
    """Patterns 2, 1, 1 of 4: 1/2 ln 2 + 2 * 1/4 ln 4 = 3/2 ln 2."""
    three = ("child", "NOUN", "obj", "ADJ", "amod")
    statistics = Statistics([seen("eat", "pie", ONE, TWO), seen("eat", "pie", ONE, three)], "object")
    assert statistics.entropy("eat", "pie") == pytest.approx(1.5 * math.log(2))


def test_signs_depend_on_the_verbs_counted() -> None:
    """Water is drunk as often as bought; next to one verb more that never takes it, it speaks for buying."""
    found = [seen("buy", "water", ONE, TWO), seen("drink", "water", ONE, TWO)]
    found += [seen("see", "film", ONE, TWO)]
    assert Statistics(found, "object", ["buy", "drink"]).information("buy", "water") == -1
    assert Statistics(found, "object").information("buy", "water") == 1


FOOD = ["apple", "pear", "plum", "bread", "soup", "cheese", "rice", "cake"]
FRUIT = ["apple", "pear", "plum", "fig"]
MEAL = ["lunch", "dinner"]
THINGS = ["car", "stone", "chair", "lamp", "book", "shoe"]
GROUPS = {
    "food": FOOD,
    "fruit": FRUIT,
    "meal": MEAL,
    "dish": ["soup", "cake", "stew"],
    "artifact": THINGS,
    "drink": ["tea", "milk"],
}
"""20 entities and 6 concepts; 3 of the 4 fruits are food, 2 of the 3 dishes as well."""


def test_verbs_acceptance_4_food_and_fruit() -> None:
    taxonomy = Taxonomy.from_pairs((entity, concept) for concept, listed in GROUPS.items() for entity in listed)
    assert len(GROUPS) == 6 and len(taxonomy) == 26
    found = [seen("eat", term, ONE, TWO) for term in [*FOOD, *FRUIT, *MEAL, "stew", "tea"]]
    found += [seen("buy", term, ONE, TWO) for term in [*THINGS, "tea", "milk"]]
    statistics = Statistics(found, "object")
    for method in ("ac", "bl"):
        plain = heaviest(taxonomy, argument_quality(statistics, "eat", method), 2).names
        assert plain == ("food", "fruit") and overlap(taxonomy, *plain) == 0.75
    chosen = conceptualise(taxonomy, argument_quality(statistics, "eat"), 2)
    assert chosen.names == ("food", "meal") and overlap(taxonomy, *chosen.names) == 0
    # 8 foods and 2 meals, each ln 2; tea is bought as readily as eaten and counts for neither.
    assert chosen.weight == pytest.approx(10 * math.log(2))


def test_nothing_fits_together() -> None:
    """Two concepts that share all their entities are never chosen together: no solution, which is told as such."""
    taxonomy = Taxonomy.from_pairs([(e, c) for e in ("a", "b") for c in ("x", "y")])
    got = conceptualise(taxonomy, {"a": 1.0, "b": 1.0}, 2)
    assert (got.chosen, got.weight, got.proven) == ((), 0.0, True)
    assert conceptualise(taxonomy, {"a": 1.0, "b": 1.0}, 1).names == ("x",)
    with pytest.raises(ConfigError, match="k 0"):
        conceptualise(taxonomy, {"a": 1.0}, 0)
    with pytest.raises(ConfigError, match="tau 2"):
        conceptualise(taxonomy, {"a": 1.0}, 1, tau=2)


def test_negative_concepts_complete_a_clique_only_where_they_may() -> None:
    taxonomy = Taxonomy.from_pairs([("a", "x"), ("b", "y")])
    quality = {"a": 2.0, "b": -1.0}
    assert conceptualise(taxonomy, quality, 2).chosen == ()
    assert conceptualise(taxonomy, quality, 2, allow_nonpositive=True).chosen == (("x", 2.0), ("y", -1.0))


def test_verbs_acceptance_7_selectional_association_sums_to_the_divergence() -> None:
    rng = np.random.default_rng(7)
    taxonomy, _ = tree(rng)
    verbs = ["eat", "see", "buy"]
    found = [seen(str(rng.choice(verbs)), f"e{rng.integers(35)}", ONE) for _ in range(400)]  # e30 to e34 are unknown
    association = SelectionalAssociation(Statistics(found, "object"), taxonomy)
    for verb in verbs:
        own, prior = association.distributions(verb)
        assert own.sum() == pytest.approx(1) and prior.sum() == pytest.approx(1)
        assert sum(association.scores(verb).values()) == pytest.approx(entropy(own, prior), abs=1e-9)
        names = association.concepts(verb, 3).names
        assert names == tuple(sorted(association.scores(verb), key=lambda c: -association.scores(verb)[c])[:3])


def test_a_count_is_spread_over_its_concepts() -> None:
    """pie, seen twice, is a food and a dish: one each. P(c|v) of food is 1/2, over all verbs 1/3."""
    taxonomy = Taxonomy.from_pairs([("pie", "food"), ("pie", "dish"), ("film", "show")])
    found = [seen("eat", "pie"), seen("eat", "pie"), seen("see", "film")]
    scores = SelectionalAssociation(Statistics(found, "object"), taxonomy).scores("eat")
    assert scores == {"food": pytest.approx(0.5 * math.log(1.5)), "dish": pytest.approx(0.5 * math.log(1.5))}


def test_a_concept_falls_under_itself_and_unknown_terms_under_nothing() -> None:
    taxonomy = Taxonomy.from_pairs([("pie", "food"), ("pie", "food"), ("food", "food"), ("food", "thing")])
    assert taxonomy.pairs == 2 and taxonomy.concepts("food") == ["thing"]
    assert taxonomy.falls_under("food", "food") and not taxonomy.falls_under("pie", "pie")
    assert taxonomy.falls_under("pie", "food") and not taxonomy.falls_under("pie", "thing")
    assert not taxonomy.falls_under("stone", "food") and not taxonomy.falls_under("pie", "nothing")
    assert taxonomy.weigh({"pie": 1.0, "food": 0.5, "stone": 9.0})[taxonomy.ids["food"]] == 1.5


def test_large_concepts_are_left_out_by_the_cap() -> None:
    taxonomy = Taxonomy.from_pairs([*((f"e{i}", "all") for i in range(9)), ("e0", "few")], cap=8)
    assert taxonomy.concepts("e0") == ["few"] and taxonomy.sizes[taxonomy.ids["all"]] == 0


def test_an_own_taxonomy_is_read(tmp_path) -> None:
    file = tmp_path / "isa.tsv"
    file.write_text("Food\tPie\t12\n\nfood\tsoup\t3\nmeal\tlunch\n")
    assert read_tsv(file).entities("food") == {"pie", "soup"}
    assert read_tsv(file, min_count=10).entities("food") == {"pie"}
    assert read_tsv(file, min_count=10).entities("meal") == {"lunch"}  # without a count it stays


@pytest.mark.parametrize("line", ["food", "food\tpie\tmany", "food\tpie\t1\t2", "food\t"])
def test_a_broken_taxonomy_names_its_line(tmp_path, line: str) -> None:
    file = tmp_path / "isa.tsv"
    file.write_text(f"food\tpie\n{line}\n")
    with pytest.raises(DataError, match=r"isa\.tsv, line 2: .*concept TAB entity"):
        read_tsv(file)
    with pytest.raises(DataError, match="no file"):
        read_tsv(tmp_path / "none.tsv")
    file.write_bytes("caf\xe9\tlatte\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_tsv(file)
    file.write_text("food\tpie\t1\n")
    with pytest.raises(DataError, match="no pair seen at least 5"):
        read_tsv(file, min_count=5)


def test_a_verb_that_was_never_seen_is_named() -> None:
    with pytest.raises(DataError, match=r"'fly' has no object.*most frequent there: eat"):
        Statistics([seen("eat", "pie")], "object").quality("fly")
