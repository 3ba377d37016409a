"""The first ten minutes: votes that go in circles, three preference models, and what self-play makes of each.

    make demo            (arbiter run configs/align/demo.yaml)

In a world whose true preference game is known exactly: a small language model is trained from scratch, annotators vote
on its answers, a ranking (BT), a purely cyclic (GPM) and a mixed preference model (HRC, arXiv 2605.17342) learn from
the same votes, and from the same start each method plays T rounds of self-play against its model. Every policy is then
measured on held-out prompts against the true game (`align.demo_measure`), beside what exact play would have reached.

Each step is stored under what it was made from, so the same command continues a demo that was killed. All parts are the
ones real jobs use; only the world is small. Nothing here decides who wins: the table says what came out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from align.demo_base import BaseOptions, VoteOptions
from launch.contracts import Result, Sampling
from launch.errors import ConfigError, LaunchError
from launch.options import RunOptions, TrainOptions

if TYPE_CHECKING:
    from align.preference.config import Kind

KINDS = ("bt", "gpm", "hrc")
WIDTH = 100
"""Columns of the printed tables."""
ANCHOR = "+anchor"
UPDATES = {"sppo": 0.0, "dsppo": 1.0}
"""lambda of `align.selfplay.schedule`: SPPO plays the whole game from the start, DSPPO the ranking first."""


@dataclass
class ModelOptions:
    """The preference models; all kinds are trained alike."""

    dims: int = 4
    """Width of the cyclic embedding of gpm and hrc."""
    tau: float = 1.0
    """Temperature of the scores. At the papers' 0.1 the same weights begin ten times too sharp."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=1e-3, warmup_ratio=0.05, batch_size=16, max_steps=1600, save_steps=400
        )
    )


@dataclass
class PlayOptions:
    """Self-play, the same for all methods."""

    rounds: int = 3
    samples: int = 8
    """K, answers per prompt."""
    beta: float = 0.125
    """1/eta. The papers' 0.001 ruins a model of this size."""
    anchor: float = 0.8
    """Pull toward the start, in [0, 1), of the methods that end in +anchor; see `align.selfplay.objective`. With
    beta it sets the temperature of the equilibrium that rounds approach, anchor * beta = 0.1."""
    prompts: int = 0
    """Prompts per round, 0: all training prompts."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=1e-3, warmup_ratio=0.1, batch_size=16, epochs=4, save_steps=100
        )
    )


@dataclass
class Config:
    """A demonstration in an embedded world."""

    world: str = "styles"
    """An entry point of group ``arbiter.worlds``."""
    methods: list[str] = field(
        default_factory=lambda: [
            *("bt+sppo", "gpm+sppo", "hrc+sppo", "hrc+dsppo"),
            *("bt+sppo+anchor", "hrc+sppo+anchor", "hrc+dsppo+anchor"),
        ]
    )
    """PREFERENCE+UPDATE of bt, gpm, hrc and sppo, dsppo; and +anchor, which is ours and not the papers'."""
    base: BaseOptions = field(default_factory=BaseOptions)
    votes: VoteOptions = field(default_factory=VoteOptions)
    preference: ModelOptions = field(default_factory=ModelOptions)
    selfplay: PlayOptions = field(default_factory=PlayOptions)
    answer_tokens: int = 12
    """Longest answer, in tokens."""
    held_out: int = 0
    """Held-out prompts to measure on; 0: all."""
    held_out_answers: int = 32
    """Answers per held-out prompt and policy."""
    threads: int = 1
    """Threads of torch. Two are an eighth faster on a quiet machine, and up to seventeen times slower where another
    program wants a core: threads of so small a model mostly wait for each other, and keep their core meanwhile.
    """
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/demo"))

    def __post_init__(self) -> None:
        for method in self.methods:
            kind, _, update = method.removesuffix(ANCHOR).partition("+")
            if kind not in KINDS or update not in UPDATES:
                raise ConfigError(
                    f"{method!r} is no method; write one of {', '.join(KINDS)} + one of {', '.join(UPDATES)}, and "
                    f"{ANCHOR} behind it if the policy is to be pulled toward the start",
                    "methods",
                )
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ConfigError("name at least one method, and each once", "methods")


def main(config: Config) -> Result:
    """Run, or finish, the demo. Raises LaunchError under several processes, which would write the same stages."""
    import torch

    from align.demo_base import base_policy, vote_groups
    from align.selfplay.inputs import find_world
    from launch import runtime
    from launch.config import resolve
    from launch.runfolder import RunFolder, write_rows

    processes = runtime.world_size()
    if processes > 1:
        raise LaunchError(f"the demo runs in one process, here are {processes}; start it by arbiter run align/demo")
    torch.set_num_threads(config.threads)
    world, seed = find_world(config.world, "world"), config.run.seed
    run = RunFolder(config.run.folder, fresh=config.run.fresh).open(resolve(config), seed)
    kinds = list(dict.fromkeys(method.split("+")[0] for method in config.methods))
    say = _Steps(2 + len(kinds) + len(config.methods))

    say(f"a language model from scratch, {config.base.train.max_steps} steps (cached in {config.base.cache})")
    with run.timing("base model"):
        base = base_policy(world, config.base, seed)
    say(f"{config.votes.annotators} annotators vote on {config.votes.lists} lists of its answers")
    stage = run.stage(
        "votes", {"base": _identity(base), "votes": asdict(config.votes), "world": repr(world), "seed": seed}
    )
    if not stage.done:
        with run.timing("votes"), stage.write() as folder:
            groups = vote_groups(world, base, config.votes, config.answer_tokens, seed)
            write_rows(folder / "groups.jsonl", groups)
    groups = stage.read_rows("groups")
    run.fingerprint_data("votes", groups)

    prompts = world.prompts("test")[: config.held_out or None]
    measured = _Measured(config, world, run, prompts)
    judges = {}
    for kind in kinds:
        say(f"{kind.upper()} learns from the votes, {config.preference.train.max_steps} steps")
        judges[kind] = preference_model(config, kind, base, groups, run)
        measured.judge(kind, judges[kind])
    start = measured.shares(base)
    rows: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    for method in config.methods:
        say(f"{method}: {config.selfplay.rounds} rounds of self-play")
        policies, histogram = play(config, method, base, judges[method.split("+")[0]], run)
        rows += measured.rows(method, policies, start)
        histograms += histogram
    run.artifact("rounds", {"rows": rows, "histograms": histograms})
    run.artifact("judges", measured.judges)
    run.artifact("truth", {"start": start.tolist(), "P": world.game().P.tolist()})
    show(rows, measured.judges)
    return Result(run.path, headline(rows))


def preference_model(config: Config, kind: str, base: Path, groups: list[dict[str, Any]], run: Any) -> Path:
    """Folder of the trained preference model of `kind`, started from the base policy."""
    from align.preference.model import PreferenceModel
    from align.preference.objective import PreferenceObjective
    from launch.trainer import fit

    o = config.preference
    model = PreferenceModel.from_backbone(
        base, kind=cast("Kind", kind), dims=o.dims, tau=o.tau, max_length=64, seed=config.run.seed
    )
    result = fit(
        model,
        PreferenceObjective(model.renderer, model.config),
        groups,
        options=o.train,
        run=run,
        name=f"preference-{kind}",
        seed=config.run.seed,
        tokenizer=model.renderer.tokenizer,
        report_to=config.run.report_to,
    )
    return result.folder


def update_of(config: Config, method: str) -> tuple[float, float]:
    """lambda and the anchor's pull of a method."""
    anchor = config.selfplay.anchor if method.endswith(ANCHOR) else 0.0
    return UPDATES[method.split("+")[1]], anchor


def play(
    config: Config, method: str, base: Path, judge: Path, run: Any
) -> tuple[list[str | Path], list[dict[str, Any]]]:
    """Self-play of one method in a run folder of its own; the policies of rounds 1 … T, and the report's histograms."""
    from align.selfplay import rounds
    from align.selfplay.mixture import PolicyMixture
    from launch.report import read_artifacts
    from launch.runfolder import RunFolder

    o = config.selfplay
    lam, anchor = update_of(config, method)
    folder = run.path / "methods" / method.replace("+", "-")
    with run.timing(f"selfplay {method}"):
        rounds.main(
            rounds.Config(
                policy=str(base),
                preference=str(judge),
                prompts=f"world:{config.world}",
                rounds=o.rounds,
                samples=o.samples,
                prompt_split="all",
                prompts_per_round=o.prompts,
                sampling=Sampling(max_new_tokens=config.answer_tokens),
                lam=lam,
                mode="all_k",
                beta=o.beta,
                anchor=anchor,
                max_length=64,
                chunk=128,
                generate_batch=64,
                reference_batch=64,
                method=method,
                train=o.train,
                run=replace(config.run, folder=str(folder)),
            )
        )
    found = read_artifacts(RunFolder(folder), "rounds")["rounds"]
    policies: list[Any] = PolicyMixture.load(folder / "mixture").policies
    return policies, found["histograms"]


class _Measured:
    """Everything the table needs, each policy sampled once and kept."""

    def __init__(self, config: Config, world: Any, run: Any, prompts: Sequence[str]) -> None:
        self.config, self.world, self.run, self.prompts = config, world, run, list(prompts)
        self.judges: dict[str, dict[str, float]] = {}
        self._parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def shares(self, policy: str | Path) -> np.ndarray:
        """Type distribution of a policy on the held-out prompts."""
        from align.demo_base import sample
        from align.demo_measure import type_shares
        from launch.generate.sampling import stable_hash
        from launch.runfolder import write_json

        c = self.config
        key = {"policy": _identity(policy), "prompts": self.prompts, "n": c.held_out_answers, "seed": c.run.seed}
        stage = self.run.stage("held-out", key)
        if not stage.done:
            seed = stable_hash(c.run.seed, "held-out")
            with self.run.timing("held-out answers"), stage.write() as folder:
                answers = sample(policy, self.prompts, c.held_out_answers, c.answer_tokens, seed)
                write_json(folder / "shares.json", type_shares(self.world, self.prompts, answers).tolist())
                write_json(folder / "answers.json", answers[:12])
        return np.array(stage.read_json("shares"))

    def judge(self, kind: str, folder: Path) -> None:
        """Measure a preference model, and keep its mean table and one game for the report."""
        from align.demo_measure import judge_quality, mean_parts
        from align.preference.model import PreferenceModel

        model = PreferenceModel.from_pretrained(folder).eval()
        self._parts[kind] = mean_parts(self.world, model, self.prompts)
        self.judges[kind] = judge_quality(self.world, *self._parts[kind])
        prompt = self.prompts[0]
        answers = self.world.examples(prompt)
        scores = {
            **model.score(prompt, answers).to_dict(),
            "prompt": prompt,
            "responses": answers,
            "model": kind.upper(),
        }
        self.run.artifact(f"scores-{kind}", scores)

    def rows(self, method: str, policies: Sequence[str | Path], start: np.ndarray) -> list[dict[str, Any]]:
        """The method's rows 0 … T of ``artifacts/rounds.json``."""
        from align.demo_measure import prediction, worth

        o, (lam, anchor) = self.config.selfplay, update_of(self.config, method)
        predicted = prediction(
            self.world, *self._parts[method.split("+")[0]], start, rounds=o.rounds, eta=1 / o.beta, k=o.samples,
            lam=lam, gamma=anchor,
        )  # fmt: skip
        shares = [start, *(self.shares(policy) for policy in policies)]
        out = []
        for t, expected in enumerate(predicted):
            numbers = worth(self.world, shares[min(1, t) : t + 1], start)
            out.append({"method": method, "seed": self.config.run.seed, "round": t, **numbers, "tabular": expected})
        return out


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The last round of every method, and round 0's gap."""
    out = {"gap_start": float(rows[0]["gap_last"])}
    last = max(row["round"] for row in rows)
    for row in rows:
        if row["round"] == last:
            for name in ("right", "gap_last", "gap_average"):
                out[f"{row['method']} {name}"] = float(row[name])
    return out


def show(rows: Sequence[dict[str, Any]], judges: dict[str, dict[str, float]]) -> None:
    """Print both tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if console.width < WIDTH:  # a log file counts as 80 columns, and would lose the predictions
        console = Console(width=WIDTH)
    names = {"correctness": "right>wrong", "style": "style", "mixed": "mixed", "error": "error of P", "right_C": "leak"}
    quality = Table(title="Preference models: held-out pairs judged as the true game does", box=box.SIMPLE)
    for name in ("model", *names.values()):
        quality.add_column(name, justify="right")
    for kind, numbers in judges.items():
        quality.add_row(kind.upper(), *(f"{numbers[name]:.2f}" for name in names))
    console.print(quality)
    table = Table(title="Policies on held-out prompts (exact play)", box=box.SIMPLE, padding=(0, 1, 0, 0))
    styles = list(rows[0]["styles"])
    for name in ("method", "t", "right", "styles %", "win", "gap", "avg gap", "malf"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        expected = row["tabular"]
        both = [f"{row[key]:.2f} ({expected[key]:.2f})" for key in ("right", "gap_last", "gap_average")]
        mix = "/".join(f"{100 * row['styles'][style]:.0f}" for style in styles)
        end = row["round"] == max(r["round"] for r in rows)
        win = f"{row['win_vs_start']:.2f}"
        cells = (row["method"], str(row["round"]), both[0], mix, win, *both[1:], f"{row['malformed']:.3f}")
        table.add_row(*cells, end_section=end)
    console.print(table)
    console.print(
        f"styles: {', '.join(styles)}. win: against round 0. gap: what the best reply wins, 0 at equilibrium."
    )
    console.print("avg gap: of rounds 1 to t mixed. leak: logits of right over wrong in the cyclic head.")


class _Steps:
    """Says which of the demo's steps begins."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    def __call__(self, text: str) -> None:
        from rich.console import Console

        self.number += 1
        Console(stderr=True).print(f"[bold]{self.number}/{self.total}[/bold] {text}", highlight=False)


def _identity(policy: str | Path) -> str:
    from align.selfplay.inputs import policy_identity

    return policy_identity(policy)
