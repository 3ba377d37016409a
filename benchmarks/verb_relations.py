"""Does naming relations by WordNet's verbs help to resolve conflicts? docs/results/verb_relations.json and .md.

    python -m benchmarks.verb_relations          # all sets; continues what is there, under --folder

The resolver finds a contradiction where a passage states one relation of one head with two ends. Told as "employs" and
"hired" the two are two relations to it. Here each set is resolved as it is, and with relations (or all verbs of the
texts) named by lemma, by the first WordNet synset, or by its hypernym. Answers are told to the resolver. Nothing is
changed in reasoning.conflict: the extractor is wrapped.

Planted verb chains: two to three links, one contradicted on the false side, told in the same form, another tense, or a
paraphrase; in both contexts people of the chain do other things to strangers, which contradicts nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from reasoning.conflict import resolve
from reasoning.conflict.balance import balance, place
from reasoning.conflict.extract import Extractor, make_extractor
from reasoning.conflict.instance import Context, Instance, build_instance
from reasoning.conflict.lengthen import choose, shuffled
from reasoning.conflict.paths import extract_paths
from reasoning.conflict.sources import conflictqa, ramdocs
from reasoning.conflict.synthetic import ENDS, FAULTS, STARTS, conflict, planted
from reasoning.verbs.relations import LEVELS, Level, NormalisedRelations, normalise_text
from tasks.benchmarks.intervals import paired, wilson

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
BASE = make_extractor("rules")

VERBS = {
    "employ": ("employs", "employed", "hired"),
    "teach": ("teaches", "taught", "instructed"),
    "help": ("helps", "helped", "assisted"),
    "lead": ("leads", "led", "guided"),
    "advise": ("advises", "advised", "counselled"),
    "defeat": ("defeats", "defeated", "vanquished"),
    "marry": ("marries", "married", "wedded"),
    "follow": ("follows", "followed", "pursued"),
    "meet": ("meets", "met", "encountered"),
    "praise": ("praises", "praised", "lauded"),
    "fund": ("funds", "funded", "financed"),
    "train": ("trains", "trained", "coached"),
}
"""Present, past, and a paraphrase chosen before WordNet was asked."""
FORMS = {"same form": 0, "other tense": 1, "paraphrase": 2}


def verb_conflict(form: str, seed: int) -> Instance:
    """A chain told in verbs against one of which a link is told twice, with another end."""
    rng = random.Random(f"verbs-{seed}")
    names = iter(rng.sample([a + b for a in STARTS for b in ENDS], 24))
    hops = rng.choice((2, 3))
    *links, aside = rng.sample(sorted(VERBS), hops + 1)
    asked = next(names)
    texts, ends = [], []
    for side in ("true", "false"):
        chain = [asked, *(next(names) for _ in range(hops))]
        told = [f"{h} {VERBS[v][0]} {t}." for h, v, t in zip(chain, links, chain[1:], strict=False)]
        told += [f"{person} {VERBS[aside][0]} {next(names)}." for person in chain[:2]]
        at = rng.randrange(hops)
        if side == "false":
            told.append(f"{chain[at]} {VERBS[links[at]][FORMS[form]]} {next(names)}.")
        else:
            told.append(f"{next(names)} saw {next(names)}.")
        rng.shuffle(told)
        texts.append(" ".join(told))
        ends.append(chain[-1])
    question = f"Who is at the end of the line, if {asked} {', who '.join(VERBS[v][0] + ' one' for v in links)}?"
    contexts = [Context(texts[0], ends[0], True), Context(texts[1], ends[1], False)]
    made = build_instance(question, contexts, [ends[0]], id=f"verbs-{form}-{seed}", source="synthetic")
    return shuffled(made, seed)


def sets(data: Path, count: int) -> dict[str, list[Instance]]:
    """What is resolved."""
    found = {f"planted verbs, {form}": [verb_conflict(form, s) for s in range(count)] for form in FORMS}
    found["planted nouns"] = [conflict(h, f, s) for f in FAULTS for h in (2, 3, 4) for s in range(count // 9)]
    documents = [i for i in ramdocs(data / "conflict/ramdocs/RAMDocs_test.jsonl.gz") if i.true_indices]
    found["RAMDocs, all documents"] = [i for i in documents if any(c.answer and not c.true for c in i.contexts)]
    found["RAMDocs, one against one"] = [c for i in documents if (c := choose(i, 2, seed=0)) is not None]
    memories = list(conflictqa(data / "conflict/conflictqa/strategyqa_gpt4.jsonl.gz"))
    found["ConflictQA gpt4, balanced"] = place(balance(memories))
    return found


Way = tuple[Extractor, Callable[[str], str]]


def ways() -> dict[str, Way]:
    """How a set is resolved: an extractor, and what is done to the texts."""

    def rewritten(level: Level) -> Callable[[str], str]:
        return lambda text: normalise_text(text, level)

    found: dict[str, Way] = {"as it is": (BASE, str)}
    found |= {f"relations by {level}": (NormalisedRelations(BASE, level), str) for level in LEVELS}
    found |= {f"all verbs by {level}": (NormalisedRelations(BASE, level), rewritten(level)) for level in LEVELS}
    return found


def measure(instances: Sequence[Instance], way: Way) -> dict[str, Any]:
    """Which contexts are followed, which of that is right, and how many contradictions were seen."""
    extractor, text = way
    followed, faults = [], 0
    for instance in instances:
        contexts = [text(c.text) for c in instance.contexts]
        got = resolve(text(instance.question), contexts, [c.answer for c in instance.contexts], extractor=extractor)
        followed.append(got["followed"])
        faults += sum(f["kind"] == "contradiction" for p in got["paths"] for f in p["faults"])
    right = [int(f in i.true_indices) for f, i in zip(followed, instances, strict=True)]
    return {"followed": followed, "right": right, "contradictions": faults}


def recovered(way: Way, count: int) -> tuple[int, int]:
    """Planted links found again, of how many, in chains of 2 to 4 links among 12 distractors."""
    extractor, text = way
    hits = links = 0
    for seed in range(count):
        case = planted(2 + seed % 3, 12, seed)
        paths = extract_paths(case.question, text(case.text), case.answer, extractor=extractor)
        edges = {frozenset(e) for e in paths.edges}
        names = [n.casefold() for n in case.chain]
        wanted = [frozenset(pair) for pair in pairwise(names)]
        hits, links = hits + sum(w in edges for w in wanted), links + len(wanted)
    return hits, links


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Relations named by WordNet's verbs, and without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--count", type=int, default=270, help="planted conflicts of each kind")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "verb_relations", help="finished cells")
    asked = parser.parse_args(arguments)
    rows, paths = [], []
    for name, way in ways().items():
        hits, links = _kept(asked.folder, f"links {name}", lambda: recovered(way, asked.count))  # noqa: B023
        paths.append({"way": name, "hits": hits, "links": links})
    for title, instances in sets(asked.data, asked.count).items():
        before = _kept(asked.folder, f"{title} as it is", lambda: measure(instances, (BASE, str)))  # noqa: B023
        for name, way in ways().items():
            got = _kept(asked.folder, f"{title} {name}", lambda: measure(instances, way))  # noqa: B023
            share = wilson(sum(got["right"]), len(instances))
            change = paired(got["right"], before["right"])
            rows.append(
                {
                    "set": title, "way": name, "n": len(instances), "right": [share.value, share.low, share.high],
                    "contradictions": got["contradictions"],
                    "changed": sum(a != b for a, b in zip(got["followed"], before["followed"], strict=True)),
                    "gain": [change.difference, change.low, change.high], "p": change.p_value,
                }
            )  # fmt: skip
            print(title, name, rows[-1]["right"][0], rows[-1]["changed"], flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    told = {
        "command": "python -m benchmarks.verb_relations", "commit": commit,
        "python": platform.python_version(), "rows": rows, "paths": paths,
    }  # fmt: skip
    RESULTS.joinpath("verb_relations.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    RESULTS.joinpath("verb_relations.md").write_text(page(told), encoding="utf-8")
    return 0


def _kept(folder: Path, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept as JSON under its name."""
    file = folder / f"{name.replace(' ', '_').replace(',', '')}.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(make()), encoding="utf-8")
        part.rename(file)
    return json.loads(file.read_text(encoding="utf-8"))


def page(told: dict[str, Any]) -> str:
    """docs/results/verb_relations.md."""
    out = [
        "# Relations named by WordNet's verbs: does the conflict resolver gain?",
        "",
        f"`{told['command']}`, commit `{told['commit']}`, on one of two shared CPU "
        "cores; seeds 0 to n - 1 of the planted sets, seed 0 of the others. Answers are told. Share of right decisions "
        "with Wilson's 95 % interval; gain over *as it is* with a paired bootstrap interval and the sign test's p. At "
        "a tie the first context is followed: chance is .50 where two contexts stand against each other. What was "
        "named how: [verbs](../verbs.md#relations-in-conflict-graphs).",
        "",
    ]
    for title in dict.fromkeys(row["set"] for row in told["rows"]):
        mine = [row for row in told["rows"] if row["set"] == title]
        out += [
            f"## {title} (n = {mine[0]['n']})",
            "",
            "| relations | right | gain | p | decisions changed | contradictions seen |",
            "|---|---|---|---|---|---|",
        ]
        for row in mine:
            value, low, high = row["right"]
            gain = (
                "" if row["way"] == "as it is" else "{:+.3f} [{:+.3f}, {:+.3f}] | {:.3f}".format(*row["gain"], row["p"])
            )
            out.append(
                f"| {row['way']} | {value:.3f} [{low:.3f}, {high:.3f}] | {gain or ' | '} | {row['changed']} | "
                f"{row['contradictions']} |"
            )
        out.append("")
    out += ["## Planted links found again", "", "| relations | links |", "|---|---|"]
    out += [f"| {row['way']} | {row['hits']} of {row['links']} |" for row in told["paths"]]
    return "\n".join([*out, ""])


if __name__ == "__main__":
    import sys

    sys.exit(main())
