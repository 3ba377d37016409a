"""Can this be an argument of that verb? docs/results/verb_identification.json and .md.

    python -m benchmarks.verb_identification --treebanks FOLDER      # continues what is there; an hour on a shared core

FOLDER holds CoNLL-U files that you bring: the published numbers are from UD_English-EWT and -GUM (dev, test) and
UD_English-LinES (train, dev, test). Concepts of the 60 verbs with most arguments come from one of three texts, and are
asked about the treebanks' own arguments and as many false ones (an argument of another verb, never seen with this one):

    gold trees       70 % of the treebanks' arguments; the other 30 % are asked about
    unseen pairs     the same trees, but 30 % of the pairs of verb and term are held out with all their occurrences, so
                     that no pair asked about was read
    rules            70 % of the treebanks' sentences without their trees, parsed by `reasoning.verbs.shallow`; the
                     arguments of the other 30 % are asked about
    examples         WordNet's example sentences, parsed by rules; 30 % of the treebanks' arguments are asked about

A finished cell is kept under --folder; where that is empty, it starts from the cells of the results.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from launch.runfolder import git_commit
from reasoning.verbs import SelectionalAssociation, conceptualise, wordnet
from reasoning.verbs.arguments import ROLES, Argument, Role, arguments
from reasoning.verbs.concepts import Concepts, argument_quality, heaviest
from reasoning.verbs.conllu import Sentence, read_conllu
from reasoning.verbs.identify import by_concepts, frequent_verbs, held_out, identify
from reasoning.verbs.lexicon import conllu_files, example_sentences
from reasoning.verbs.shallow import parse
from reasoning.verbs.statistics import Statistics

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
TEXTS = ("gold trees", "unseen pairs", "rules", "examples")
TAXONOMIES = ("direct", "closure")
METHODS = ("ac", "bl", "sp", "heaviest", "lookup")
NAMES = {
    "ac": "AC",
    "bl": "BL",
    "sp": "SP",
    "heaviest": "AC's weights, overlap not controlled",
    "lookup": "seen together in the text",
}
VERBS = 60
BUDGET = 20_000


class Texts:
    """The arguments of every text, each read once."""

    def __init__(self, treebanks: Path) -> None:
        self.files = conllu_files(treebanks)
        self.sentences = [s for file in self.files for s in read_conllu(file)]
        self.gold = [list(arguments([s], wordnet())) for s in self.sentences]

    @cache  # noqa: B019 - one object for the whole run
    def rules(self) -> list[list[Argument]]:
        """Of every sentence, its words without its tree."""
        return [list(arguments(_trees(" ".join(t.form for t in s)), wordnet())) for s in self.sentences]

    @cache  # noqa: B019
    def examples(self) -> list[Argument]:
        """Of WordNet's example sentences."""
        return list(arguments(example_sentences(), wordnet()))

    def split(self, text: str, role: Role, seed: int) -> tuple[list[str], list[Argument], list[Any]]:
        """The verbs, the arguments to count, and the pairs to ask about."""
        every = [a for listed in self.gold for a in listed]
        verbs = frequent_verbs(every, role, VERBS)
        if text == "rules":
            order = np.random.default_rng(seed).permutation(len(self.sentences)).tolist()
            cut = round(0.3 * len(order))
            asked = [a for i in order[:cut] for a in self.gold[i]]
            _, pairs = held_out(asked, role, verbs, seed, share=1.0)
            wanted = frozenset(verbs)
            return verbs, [a for i in order[cut:] for a in self.rules()[i] if a.verb in wanted], pairs
        train, pairs = held_out(every, role, verbs, seed, unseen=text == "unseen pairs")
        if text == "examples":
            wanted = frozenset(verbs)
            train = [a for a in self.examples() if a.verb in wanted]
        return verbs, train, pairs


def _trees(text: str) -> list[Sentence]:
    tree = parse(text)
    return [tree] if tree else []


def cell(texts: Texts, text: str, role: Role, taxonomy_name: str, k: int, seed: int) -> list[dict[str, Any]]:
    """Every method on one split."""
    verbs, train, pairs = texts.split(text, role, seed)
    taxonomy = wordnet(taxonomy_name == "closure")
    statistics = Statistics(train, role)
    association = SelectionalAssociation(statistics, taxonomy)

    def search(method: str) -> Callable[[str], Concepts]:
        return lambda v: conceptualise(taxonomy, argument_quality(statistics, v, method), k, budget=BUDGET)

    choosers: dict[str, Callable[[str], Concepts]] = {
        "ac": search("ac"),
        "bl": search("bl"),
        "sp": lambda v: association.concepts(v, k),
        "heaviest": lambda v: heaviest(taxonomy, statistics.quality(v), k),
    }
    rows = []
    for method in METHODS:
        chosen: dict[str, Concepts] = {}
        if method == "lookup":
            result = identify(pairs, lambda v, t: statistics.counts.get(v, Counter())[t] > 0)
        else:
            chosen = {v: choosers[method](v) if v in statistics.counts else Concepts(()) for v in verbs}
            result = identify(pairs, by_concepts(taxonomy, {v: c.names for v, c in chosen.items()}))
        rows.append(
            {
                "text": text, "role": role, "taxonomy": taxonomy_name, "k": k, "seed": seed, "method": method,
                **result._asdict(), "unproven": sum(not c.proven for c in chosen.values()),
                "unsolved": sum(not c.chosen for c in chosen.values()),
                "known": float(np.mean([p.term in taxonomy for p in pairs])), "counted": statistics.total,
                "commit": (git_commit() or "unknown")[:7],
            }
        )  # fmt: skip
    return rows


def extraction(texts: Texts) -> dict[str, dict[str, float]]:
    """Precision and recall of arguments by rules against the trees, on the treebanks' test files."""
    found: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
    start = 0
    for file in texts.files:
        size = sum(1 for _ in read_conllu(file))
        if "-test" in file.name:
            for i in range(start, start + size):
                for role in ROLES:
                    gold, mine = (
                        Counter((a.verb, a.term) for a in listed if a.role == role)
                        for listed in (texts.gold[i], texts.rules()[i])
                    )
                    found[role]["both"] += sum((gold & mine).values())
                    found[role]["gold"] += sum(gold.values())
                    found[role]["mine"] += sum(mine.values())
        start += size
    return {
        role: {"precision": c["both"] / max(c["mine"], 1), "recall": c["both"] / max(c["gold"], 1), "gold": c["gold"]}
        for role, c in found.items()
    }


def main(arguments_: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Argument identification")
    parser.add_argument("--treebanks", type=Path, help="folder of *.conllu; without it only the page is written")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "verbs")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--k", type=int, nargs="*", default=[5, 10])
    asked = parser.parse_args(arguments_)
    asked.folder.mkdir(parents=True, exist_ok=True)
    if not any(asked.folder.iterdir()):
        _unpack(RESULTS / "verb_identification.json", asked.folder)
    if asked.treebanks is not None:
        texts = Texts(asked.treebanks)
        _keep(asked.folder / "extraction.json", lambda: extraction(texts))
        for seed, text, taxonomy, k, role in product(asked.seeds, TEXTS, TAXONOMIES, asked.k, ROLES):
            file = _file(asked.folder, text, role, taxonomy, k, seed)
            _keep(file, lambda: cell(texts, text, role, taxonomy, k, seed))  # noqa: B023 - called at once
            print(file.stem, flush=True)
    write(asked.folder)
    return 0


def _file(folder: Path, *cell: object) -> Path:
    return folder / ("-".join(map(str, cell)).replace(" ", "_") + ".json")


def _unpack(results: Path, folder: Path) -> None:
    """A file for each cell of published results."""
    told = json.loads(results.read_text(encoding="utf-8"))
    _keep(folder / "extraction.json", lambda: told["extraction"])
    every = [{"commit": told.get("commit"), **row} for row in told["rows"]]  # at first the file named one commit
    for key, rows in groupby(every, key=lambda r: [r[k] for k in ("text", "role", "taxonomy", "k", "seed")]):
        _keep(_file(folder, *key), lambda: list(rows))  # noqa: B023 - called at once


def _keep(file: Path, make: Callable[[], Any]) -> None:
    """Make what is not there yet."""
    if not file.is_file():
        made = make()
        part = file.with_suffix(".part")
        part.write_text(json.dumps(made), encoding="utf-8")
        part.rename(file)


def write(folder: Path) -> None:
    """The results from the finished cells."""
    rows = [r for f in sorted(folder.glob("*-*.json")) for r in json.loads(f.read_text(encoding="utf-8"))]
    told = {
        "command": "python -m benchmarks.verb_identification --treebanks FOLDER",
        "python": platform.python_version(), "rows": rows, "seeds": sorted({r["seed"] for r in rows}),
        "extraction": json.loads((folder / "extraction.json").read_text(encoding="utf-8")),
    }  # fmt: skip
    RESULTS.joinpath("verb_identification.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("verb_identification.md").write_text(page(told), encoding="utf-8")


def spread(values: Sequence[float]) -> str:
    """Mean, with the lowest and highest seed."""
    return f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def page(told: dict[str, Any]) -> str:
    """docs/results/verb_identification.md."""
    rows = told["rows"]
    read_off = ", ".join(f"`{c}`" for c in sorted({r["commit"] for r in rows}))
    out = [
        "# Argument identification",
        "",
        f"`{told['command']}`, commits {read_off}, seeds {', '.join(map(str, told['seeds']))} (mean, lowest, "
        "highest), one of two shared CPU cores. Half of the pairs are true: saying no to all scores .500. What is "
        "asked and from which text the concepts come: head of `benchmarks/verb_identification.py`. TPR and FPR are the "
        "shares of true and false pairs that are called true.",
        "",
    ]
    for text, role in product(TEXTS, reversed(ROLES)):
        mine = [r for r in rows if r["text"] == text and r["role"] == role]
        if not mine:
            continue
        counted, pairs = (round(np.mean([r[key] for r in mine])) for key in ("counted", "pairs"))
        known = np.mean([r["known"] for r in mine])
        out += [
            f"## {text.capitalize()}, {role}s ({counted:,} counted, {pairs:,} pairs, {known:.0%} of terms known)",
            "",
            "| method | pairs isA | k | accuracy | TPR | FPR | not proven, no solution (of 60) |",
            "|---|---|---|---|---|---|---|",
        ]
        for taxonomy, k, method in product(TAXONOMIES, sorted({r["k"] for r in mine}), METHODS[:-1]):
            of = [r for r in mine if (r["taxonomy"], r["k"], r["method"]) == (taxonomy, k, method)]
            if of:
                rates = [float(np.mean([r[key] for r in of])) for key in ("true_positive_rate", "false_positive_rate")]
                odd = [float(np.mean([r[key] for r in of])) for key in ("unproven", "unsolved")]
                out.append(
                    f"| {NAMES[method]} | {taxonomy} | {k} | {spread([r['accuracy'] for r in of])} | {rates[0]:.3f} | "
                    f"{rates[1]:.3f} | {odd[0]:.1f}, {odd[1]:.1f} |"
                )
        seen = [r for r in mine if r["method"] == "lookup"]
        rates = [float(np.mean([r[key] for r in seen])) for key in ("true_positive_rate", "false_positive_rate")]
        out.append(
            f"| {NAMES['lookup']} | | | {spread([r['accuracy'] for r in seen])} | {rates[0]:.3f} | {rates[1]:.3f} | |"
        )
        out.append("")
    out += ["## AC against BL, split by split", "", "| text | role | pairs isA | k | accuracy of AC less BL |"]
    out.append("|---|---|---|---|---|")
    for text, role, taxonomy, k in product(TEXTS, reversed(ROLES), TAXONOMIES, sorted({r["k"] for r in rows})):
        by = {
            (r["method"], r["seed"]): r["accuracy"]
            for r in rows
            if (r["text"], r["role"], r["taxonomy"], r["k"]) == (text, role, taxonomy, k)
        }
        gains = [by["ac", seed] - by["bl", seed] for seed in told["seeds"] if ("ac", seed) in by]
        if gains:
            out.append(f"| {text} | {role} | {taxonomy} | {k} | {spread(gains)} |")
    out += ["", "## Arguments by rules against the trees, test files", "", "| role | arguments | precision | recall |"]
    out.append("|---|---|---|---|")
    for role, e in told["extraction"].items():
        out.append(f"| {role} | {e['gold']:,.0f} | {e['precision']:.3f} | {e['recall']:.3f} |")
    return "\n".join([*out, ""])


if __name__ == "__main__":
    import sys

    sys.exit(main())
