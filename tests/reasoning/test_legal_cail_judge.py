"""CAIL2018's own judge beside our scores, where a user has put its file."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from reasoning.legal.chains import DEATH, LIFE
from reasoning.legal.metrics import cail_labels, sentencing
from tests.conftest import DATA

OFFICIAL_JUDGE = DATA / "legal/cail2018_judger/judger.py"
"""judger/judger.py of thunlp/CAIL2018, where a user has put it; not part of the data folder."""

if OFFICIAL_JUDGE.is_file():

    @pytest.mark.data
    def test_the_official_cail_judge_itself_scores_random_predictions_as_we_do(data_dir: Path, tmp_path: Path) -> None:
        """Its own `test` and `get_score` over files of 2,000 random cases: charges, articles and terms."""
        judge = runpy.run_path(str(OFFICIAL_JUDGE))["Judger"](
            *(str(data_dir / f"legal/cail2018_labels/{name}.txt") for name in ("accu", "law"))
        )
        charges, articles = list(judge.accu_dic), list(judge.law_dic)
        rng = np.random.default_rng(3)
        true: tuple[list[set[str]], list[set[str]], list[int]] = ([], [], [])
        said: tuple[list[set[str]], list[set[str]], list[int]] = ([], [], [])
        for name in ("truth", "output"):
            (tmp_path / name).mkdir()
        with (tmp_path / "truth/cases.json").open("w") as t, (tmp_path / "output/cases.json").open("w") as o:
            for _ in range(2000):
                few = [rng.choice(40, rng.integers(1, 4), replace=False).tolist() for _ in range(4)]
                term = int(rng.choice([LIFE, DEATH, rng.integers(0, 301)], p=[0.05, 0.05, 0.9]))
                guess = term if rng.random() < 0.1 else int(rng.choice([LIFE, DEATH, rng.integers(0, 301)]))
                length = {"death_penalty": term == DEATH, "life_imprisonment": term == LIFE, "imprisonment": term}
                named = {"accusation": [charges[i] for i in few[0]], "relevant_articles": [articles[i] for i in few[1]]}
                t.write(json.dumps({"meta": {**named, "term_of_imprisonment": length}}) + "\n")
                numbers = [[i + 1 for i in few[n]] for n in (2, 3)]
                o.write(json.dumps({"accusation": numbers[0], "articles": numbers[1], "imprisonment": guess}) + "\n")
                for held, (a, b, months) in ((true, (few[0], few[1], term)), (said, (few[2], few[3], guess))):
                    held[0].append({charges[i] for i in a})
                    held[1].append({str(articles[i]) for i in b})
                    held[2].append(months)
        official = judge.get_score(judge.test(str(tmp_path / "truth"), str(tmp_path / "output")))
        labels = (charges, [str(a) for a in articles])
        ours = [cail_labels(true[n], said[n], labels[n]) for n in (0, 1)]
        assert [*ours, sentencing(true[2], said[2])["cail"].value] == pytest.approx(official, abs=1e-12)
        assert 0.1 < official[2] < 0.9 and all(0.3 < score < 0.95 for score in official[:2])
