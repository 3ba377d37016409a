"""The graph, set and place files of the real data: where each lies, its sha256, source and licence.

Paths are below ``graph/`` of the data folder ($ARBITER_DATA, by default ../shared/data beside the repository). Nothing
is downloaded, and nothing is parsed before its sha256 was compared. The Planetoid files are Python 2 pickles and are
never read: their content, re-encoded without pickles, lies in ``derived/``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from launch.errors import DataError
from tasks.graph.checked import checked

SHA256 = {
    "meta_attack/cora_meta_adj_0.05.npz": "bfb6ed914acbae726906ff0aa09b5ae70713849dcc637d8f08eeb27c0ef24c1f",
    "meta_attack/cora_meta_adj_0.1.npz": "fbb6b1485cdfa93ae23501f950b43f4dc96eb09099f5fec3d67b93a92394dbd7",
    "meta_attack/cora_meta_adj_0.15.npz": "f22e02303c239ba236acf3c214e4ff8e2539d68992737e2d909d02a96eabfc88",
    "meta_attack/cora_meta_adj_0.2.npz": "adbe44b4014bc183525d8f55f2173c091fad9cc5c97e01a08a423ee6ceea8caa",
    "meta_attack/cora_meta_adj_0.25.npz": "2e0e4eb2293a48f9a54c612bb1ac36b7ef4e643626acf4c159792b2cb6b534d8",
    "meta_attack/cora_prognn_splits.json": "40a3e7e4025c349095d425c597a9db53b2ddd2437f0d5ccf7b46417d912f1db0",
    "meta_attack/citeseer_meta_adj_0.05.npz": "8d27840b7ead85ed90260d54a6f4ff65740d869e1203017111c7fa9ef355242f",
    "meta_attack/citeseer_meta_adj_0.1.npz": "5c333f8c92267ccd6f08ec27c421e9f0a17d9dda58729c93c7c823794c7c23f3",
    "meta_attack/citeseer_meta_adj_0.15.npz": "69069c65343fc75c7b508bd97263a1a2d96212f62e72259ce34c4146f6db866d",
    "meta_attack/citeseer_meta_adj_0.2.npz": "599e1fb14330bb5451216a5cebe7987840ecfa6a2d41004088f616e8653e9f5a",
    "meta_attack/citeseer_meta_adj_0.25.npz": "63ff4f587683c93f36ff9ef987b9efad36260af5407bdf1a4175359dfb25ce91",
    "meta_attack/citeseer_prognn_splits.json": "12ab5787371b8826691d0c6f33ba7c250dff2754a0f571578bc83920594bb9a3",
    "meta_attack/polblogs_meta_adj_0.05.npz": "dc707f19ed4d3e5ad18c309de49a84ab5b2eb1491d6054bec900c8ad5bf0662c",
    "meta_attack/polblogs_meta_adj_0.1.npz": "ac9b5d6566783a9b5c28b4a9fb30174779c1e1c4c3fc9f4060c68084ef04f40c",
    "meta_attack/polblogs_meta_adj_0.15.npz": "db13407a6b283cbc2d428d598019e2dd66e09330589183c4ab34e2203ee43ad0",
    "meta_attack/polblogs_meta_adj_0.2.npz": "7b5cb695d7680ffb65f3c5af831513a47453bcdc5b99bb6618be904965497b5b",
    "meta_attack/polblogs_meta_adj_0.25.npz": "855b846a97b0b85515ab36cd4c5a6f15b5e9ec91a76a1946d157fee7b2272a78",
    "meta_attack/polblogs_prognn_splits.json": "06e04855543c9b35fc5d172d1488d12834c8f8d75350616930b9b306be4db296",
    "wiki/wiki.mat": "1b59b0b19cbf398bbc5c1c940f3c262300bcd56dae04890094666f9d220533b3",
    "sets/retail.dat": "236176f4c17ed99e36b67d6129b28f64326f7ad3a47be46b2d702b1697990226",
    "sets/mushroom.dat": "cebacc2fc2ed4de54f559e9e21df86d86e3b484f534bb32fd613bd109146fac6",
    "sets/groceries.csv": "ff1be892fd6b9b57d1a7bc50de067798963dda607619645988b21789bf23ae3b",
    "poi/nyc_osm_poi_2017.csv": "822e15acf60a336aaa8171395206ded144652f796fb994af8b130781a8a5b997",
    "derived/cora_planetoid.npz": "0c2783ce362abe35c8de5bbfa9fd815dc13ca04fc93f0c3e2f347621e19bd159",
    "derived/citeseer_planetoid.npz": "56efed10efb4f3a1eb2814e57e60fed3dc9c813ebed40826a474f7f1afd91f6e",
    "derived/cora_lcc.npz": "26d82a6d6b5e487c2e71a78aa43b229d2996cbbe80c113e252fcdd27b6059027",
    "derived/citeseer_lcc.npz": "555569712d1ec1cdfacc5faffa26e7fec7e88ccca0fdc86403cb63ab28d45619",
    "derived/polblogs_lcc.npz": "507c0990c5ce300192f8f85dcfa6bb39fc4a0ea345bd290e06990b30efa9a13b",
}


@dataclass(frozen=True)
class Source:
    """Where a data set came from."""

    repository: str
    licence: str
    content: str
    files: tuple[str, ...]


_ATTACKS = "repository ChandlerBang/Pro-GNN @ 90e11956, no licence stated"
_CITATIONS = f"MIT; attacks and splits: {_ATTACKS}"
_FIMI = "Thanh-Nam-Tran/mining-high-occupancy-itemsets @ dfbbf7bd"

SOURCES = {
    "cora": Source(
        "kimiyoung/planetoid @ af6abf46; danielzuegner/gnn-meta-attack @ 982d900d",
        _CITATIONS,
        "papers that cite each other, bags of words, seven fields",
        ("derived/cora_planetoid.npz", "derived/cora_lcc.npz"),
    ),
    "citeseer": Source(
        "kimiyoung/planetoid @ af6abf46; danielzuegner/gnn-meta-attack @ 982d900d",
        _CITATIONS,
        "papers that cite each other, bags of words, six fields; 15 planetoid nodes have neither words nor label",
        ("derived/citeseer_planetoid.npz", "derived/citeseer_lcc.npz"),
    ),
    "polblogs": Source(
        "danielzuegner/gnn-meta-attack @ 982d900d",
        _CITATIONS,
        "political blogs that link to each other, no features, two sides",
        ("derived/polblogs_lcc.npz",),
    ),
    "wiki": Source(
        "karenlatong/AGC-master @ 7425be3b",
        "none stated",
        "Wikipedia pages that link to each other, tf-idf of words, 17 subjects",
        ("wiki/wiki.mat",),
    ),
    "retail": Source(_FIMI, "none stated", "baskets of item numbers", ("sets/retail.dat",)),
    "mushroom": Source(_FIMI, "none stated", "23 attribute values of each mushroom", ("sets/mushroom.dat",)),
    "groceries": Source(
        "stedy/Machine-Learning-with-R-datasets @ ff933238",
        "none stated",
        "baskets of item names",
        ("sets/groceries.csv",),
    ),
    "nyc": Source(
        "Liyue-Chen/STContext @ 30615d4f",
        "ODbL 1.0, © OpenStreetMap contributors (attribution, share alike)",
        "places of New York City in 2017 with kind and name",
        ("poi/nyc_osm_poi_2017.csv",),
    ),
}


def graph_folder() -> Path:
    """``graph/`` of the real data."""
    root = Path(os.environ.get("ARBITER_DATA") or Path(__file__).parents[3] / "shared" / "data")
    return root / "graph"


def data_file(name: str, folder: str | Path | None = None) -> Path:
    """The file `name` of `SHA256`, its content checked.

    Args:
        name: path below the folder, e.g. "wiki/wiki.mat".
        folder: instead of `graph_folder()`.

    Raises:
        DataError: the file is missing or holds something else; names it.
    """
    return checked(Path(folder or graph_folder()) / name, SHA256[name])


def pick(name: str, known: tuple[str, ...], what: str) -> str:
    """`name` if it is one of `known`.

    Raises:
        DataError: it is not; says which are.
    """
    if name not in known:
        raise DataError(f"there is no {what} {name!r}; use one of {', '.join(known)}")
    return name
