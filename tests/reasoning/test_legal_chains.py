"""Legal chains: published files read and rebuilt, statutes read into chains, shipped strings found in their article."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from launch.errors import DataError
from reasoning.legal.chains import (
    BASE,
    DEATH,
    LIFE,
    Chain,
    MonthRange,
    build_graph,
    month_range,
    read_chains,
    read_graph,
    write_chains,
    write_graph,
)
from reasoning.legal.charges import CHAINS, CHARGES, build, chains_of, charge_name
from reasoning.legal.circumstances import CIRCUMSTANCES, WORDS
from reasoning.legal.numerals import articles, number
from reasoning.legal.phrases import premises_of, situation_of, split_conduct
from reasoning.legal.statute import extract, faults, load_articles, runs

ARTICLES = "legal/statutes/criminal_law_articles.jsonl"
RELEASED = "legal/court_opinions/legal_chain"


def test_numerals() -> None:
    values = {
        "十": 10,
        "十五": 15,
        "三百五十": 350,
        "一百零二": 102,
        "两": 2,
        "35": 35,
        "五万": 50_000,
        "一千二百": 1200,
    }
    assert {text: number(text) for text in values} == values
    assert articles("依照第一百三十三条之一、第67条") == ["133-1", "67"]
    with pytest.raises(DataError, match="'三元' is no numeral"):
        number("三元")


def test_month_ranges() -> None:
    ranges = {
        "处三年以下有期徒刑、拘役或者管制，并处或者单处罚金": MonthRange(0, 36),
        "处三年以上十年以下有期徒刑": MonthRange(36, 120),
        "处十年以上有期徒刑、无期徒刑或者死刑": MonthRange(120, None, life=True, death=True),
        "处死刑、无期徒刑或者十年以上有期徒刑": MonthRange(120, None, life=True, death=True),
        "处十五年有期徒刑、无期徒刑或者死刑": MonthRange(180, 180, life=True, death=True),
        "处拘役，并处罚金": MonthRange(1, 6),
        "处无期徒刑或者死刑，并处没收财产": MonthRange(None, None, life=True, death=True),
    }
    assert {text: month_range(text) for text in ranges} == ranges
    assert 120 in ranges["处三年以上十年以下有期徒刑"] and 121 not in ranges["处三年以上十年以下有期徒刑"]
    only_life = ranges["处无期徒刑或者死刑，并处没收财产"]
    assert LIFE in only_life and DEATH in only_life and 240 not in only_life
    assert DEATH not in MonthRange(120, None, life=True)
    with pytest.raises(DataError, match="names no prison term"):
        month_range("并处罚金")


def test_graph_of_and_inside_or(tmp_path: Path) -> None:
    """One chain, situation (a AND b) OR c: 7 nodes; a, b into AND, AND and c into OR, premise into OR, OR out."""
    graph = build_graph([Chain("p", "a AND b OR c", "处拘役")])
    assert [(n.name, n.start, n.type) for n in graph.nodes] == [
        ("p", True, "Normal"),
        ("a", True, "Normal"),
        ("AND_0_0", False, "Logic"),
        ("b", True, "Normal"),
        ("OR_0", False, "Logic"),
        ("c", True, "Normal"),
        ("处拘役", False, "Normal"),
    ]
    assert graph.edges == ((1, 1, 2), (3, 1, 2), (2, 1, 4), (5, 1, 4), (0, 0, 4), (4, 0, 6))
    write_graph(graph, tmp_path / "nodes.json", tmp_path / "edges.txt")
    assert read_graph(tmp_path / "nodes.json", tmp_path / "edges.txt") == graph


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("robbery", 29), ("fraud", 9)])
def test_legal_acceptance_1_released_files(data_dir: Path, tmp_path: Path, name: str, count: int) -> None:
    """Triplets, rebuilt graph and ranges; the rebuilt graph is even numbered as the published one."""
    folder = data_dir / RELEASED / name
    chains = read_chains(folder / "chain.txt")
    assert len(chains) == count
    published = read_graph(folder / f"{name}_nodes.json", folder / f"{name}.txt")
    rebuilt = build_graph(chains)
    assert Counter(rebuilt.edges) == Counter(published.edges)
    assert rebuilt.nodes == published.nodes
    assert {str(c.months) for c in chains} <= {
        "0-36 months",
        "36-120 months",
        "≥120 months, life",
        "≥120 months, life, death",
    }
    write_chains(chains, tmp_path / "chain.txt")
    assert read_chains(tmp_path / "chain.txt") == chains


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chain.txt"
    path.write_text("甲 -> 乙 -> 处拘役\n\n甲 -> 乙\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"chain.txt, line 3: '甲 -> 乙' is not"):
        read_chains(path)
    assert read_chains(path, skip_broken=True) == [Chain("甲", "乙", "处拘役")]
    path.write_text("甲 -> 乙 -> 罚款\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: '罚款' names no prison term"):
        read_chains(path)
    with pytest.raises(DataError, match="no file"):
        read_chains(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("edges", "complaint"), [("0 0 1", "is not 'source"), ("0\t2\t1", "is not 'source"), ("0\t0\t9", "names a node")]
)
def test_a_broken_graph_is_named(tmp_path: Path, edges: str, complaint: str) -> None:
    write_graph(build_graph([Chain("p", "s", "处拘役")]), tmp_path / "n.json", tmp_path / "e.txt")
    (tmp_path / "e.txt").write_text(edges, encoding="utf-8")
    with pytest.raises(DataError, match=f"line 1: .*{complaint}"):
        read_graph(tmp_path / "n.json", tmp_path / "e.txt")


def test_phrases() -> None:
    assert split_conduct("诈骗公私财物，数额较大的") == ("诈骗公私财物", "数额较大")
    assert premises_of("以暴力、胁迫或者其他方法抢劫公私财物") == [
        "以暴力抢劫公私财物",
        "以胁迫抢劫公私财物",
        "以其他方法抢劫公私财物",
    ]
    assert premises_of("非法制造、买卖枪支、弹药") == ["非法制造枪支、弹药", "非法买卖枪支、弹药"]
    assert premises_of("窝藏他人") == ["窝藏他人"]
    assert (
        situation_of("数额较大、超过三个月未还的，或者进行非法活动的", "")
        == "数额较大 AND 超过三个月未还 OR 进行非法活动"
    )
    assert situation_of("致人重伤、死亡或者有其他严重情节的", "") == "致人重伤 OR 致人死亡 OR 其他严重情节"
    assert situation_of("", "") == BASE


def test_a_made_up_statute() -> None:
    """References inside and between articles, conduct before and after items; the law is invented."""
    statutes = {
        "1": "偷拿、藏匿船只的，处三年以下有期徒刑；情节严重的，处三年以上七年以下有期徒刑。\n"
        "损坏船只的，依照前款的规定处罚。\n单位犯前款罪的，处五年以下有期徒刑。",
        "1-1": "在河上行船，有下列情形之一的，处拘役：\n（一）醉酒行船的；\n（二）追逐竞驶，情节恶劣的。",
        "2": "拾得船只不还的，依照本法第一条的规定定罪处罚。",
    }
    low, high = "处三年以下有期徒刑", "处三年以上七年以下有期徒刑"
    assert [(c.premise, c.situation, c.conclusion, c.source) for c in extract("1", statutes)] == [
        ("偷拿船只", BASE, low, ""),
        ("偷拿船只", "情节严重", high, ""),
        ("藏匿船只", BASE, low, ""),
        ("藏匿船只", "情节严重", high, ""),
        ("损坏船只", BASE, low, ""),
        ("损坏船只", "情节严重", high, ""),
        ("拾得船只不还", BASE, low, "2"),
        ("拾得船只不还", "情节严重", high, "2"),
    ]
    assert [c.situation for c in extract("1-1", statutes)] == ["醉酒行船", "追逐竞驶 AND 情节恶劣"]
    assert faults(extract("1", statutes) + extract("1-1", statutes), statutes) == []
    with pytest.raises(DataError, match="article '3' is not among the 3 given"):
        extract("3", statutes)
    with pytest.raises(DataError, match="has 3 paragraphs, not 4"):
        extract("1", statutes, (4,))


def test_the_validator_finds_what_the_statute_does_not_say() -> None:
    statutes = {"1": "偷拿、藏匿船只的，处三年以下有期徒刑。"}
    assert runs("偷拿船只", statutes["1"]) == 2
    bad = [Chain("偷拿汽车", BASE, "处三年以下有期徒刑", "1"), Chain("偷拿船只", BASE, "处五年以下有期徒刑", "1")]
    assert faults(bad, statutes) == [
        "article 1: '偷拿汽车' does not stand there",
        "article 1: penalty '处五年以下有期徒刑' does not stand there",
    ]


@pytest.mark.data
def test_legal_acceptance_2_articles_263_and_266(data_dir: Path) -> None:
    statutes = load_articles(data_dir / ARTICLES)
    robbery = extract("263", statutes, references=False)
    aggravating = {c.situation for c in robbery} - {BASE}
    assert aggravating == {
        "入户抢劫",
        "在公共交通工具上抢劫",
        "抢劫银行 OR 其他金融机构",
        "多次抢劫 OR 抢劫数额巨大",
        "抢劫致人重伤 OR 抢劫致人死亡",
        "冒充军警人员抢劫",
        "持枪抢劫",
        "抢劫军用物资 OR 抢险、救灾、救济物资",
    }
    assert {c.months for c in robbery if c.situation == BASE} == {MonthRange(36, 120)}
    assert {c.months for c in robbery if c.situation != BASE} == {MonthRange(120, None, life=True, death=True)}
    fraud = extract("266", statutes, references=False)
    assert [(c.situation, c.months) for c in fraud] == [
        ("数额较大", MonthRange(0, 36)),
        ("数额巨大 OR 其他严重情节", MonthRange(36, 120)),
        ("数额特别巨大 OR 其他特别严重情节", MonthRange(120, None, life=True)),
    ]


@pytest.mark.data
def test_shipped_chains_are_those_of_the_statutes(data_dir: Path) -> None:
    statutes = load_articles(data_dir / ARTICLES)
    assert yaml.safe_load(CHAINS.read_text(encoding="utf-8")) == build(statutes)
    assert faults([c for name in CHARGES for c in chains_of(name)], statutes) == []


@pytest.mark.data
def test_every_article_that_punishes_a_person_is_read(data_dir: Path) -> None:
    """Only article 200 gives nothing: it is about units. Two chains of 177-1 borrow a verb from another item."""
    statutes = load_articles(data_dir / ARTICLES)
    read = {a: extract(a, statutes, references=False) for a in statutes}
    assert sum(bool(chains) for chains in read.values()) == 377
    wrong = faults([c for chains in read.values() for c in chains], statutes)
    assert len(wrong) <= 2 and all(line.startswith("article 177-1") for line in wrong)


@pytest.mark.data
def test_circumstances_have_the_effects_of_their_articles(data_dir: Path) -> None:
    """Each effect stands in the article that a circumstance names."""
    statutes = load_articles(data_dir / ARTICLES)
    said = {"heavier": "从重", "lighter": "从轻", "reduced": "减轻", "exempt": "免除"}
    for circumstance in CIRCUMSTANCES:
        text = statutes[circumstance.article]
        assert [e for e in circumstance.effects if said[e] not in text] == [], circumstance.name
    assert set(said) == set(WORDS)


def test_shipped_chains_carry_articles_and_ranges() -> None:
    assert len(CHARGES) == 23
    for name, charge in CHARGES.items():
        chains = chains_of(name)
        assert chains and {c.article for c in chains} == {charge.article}
        assert all(c.months and len(c.line) < 250 for c in chains)


def test_charge_names() -> None:
    assert charge_name("诈骗") == charge_name(" 诈骗罪 ") == "诈骗罪"
    assert charge_name("组织参与国(境)外赌博罪") == "组织参与国（境）外赌博罪"
    with pytest.raises(DataError, match="no legal chains for the charge '合同诈骗罪'; did you mean 诈骗罪"):
        charge_name("合同诈骗罪")
