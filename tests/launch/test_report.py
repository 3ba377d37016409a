"""Reports: every number is on the page, all text is escaped, nothing is fetched, broken input still gives a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from launch import plots
from launch.errors import DataError
from launch.report import build, natural, table
from launch.runfolder import RunFolder

EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Text, tags and addresses of a page; complains about tags that are closed in the wrong order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data


def page_of(run: RunFolder) -> Page:
    page = Page(build(run.path).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run with everything the core page shows."""
    run = RunFolder(tmp_path / f"run {EVIL[:8]}").open({"recipe": "toy", "note": EVIL, "train": {"lr": 1e-6}}, seed=41)
    for stage, factor in (("bt", 1.0), ("hrc", 0.5)):
        for step in range(5):
            run.log({"stage": stage, "step": step, "loss": factor / (step + 1), "accuracy": 0.5 + 0.1 * step})
    run.log({"stage": "hrc", "step": 2, "warning": f"3 rows cut {EVIL}"})
    for name in ("generate", "train"):
        with run.timing(name):
            pass
    run.samples("round10", [{"prompt": "2+2=", "response": "after four"}])
    run.samples("round0", [{"prompt": "2+2=", "response": f"before {EVIL}"}])
    run.samples("other", [{"a": 1.5, "b": [{"role": "user", "content": "hi there"}]}])
    run.fingerprint_data("votes", [{"x": 1}])
    run.artifact("headline", {"right_rate": 0.8741, "tokens": 12345678})
    return run


def test_every_part_of_a_run_is_on_its_page(run):
    page = page_of(run)
    for expected in (
        "0.8741",
        "12.35M",
        "seed 41",
        "recipe toy",
        "generate",
        "before",
        "after four",
        "hi there",
        "1.5",
    ):
        assert expected in page.text, expected
    for expected in ("Warnings", "Learning curves", "Samples", "Resolved config", "Data fingerprints", "lr: 1.0e-06"):
        assert expected in page.text, expected
    assert json.loads((run.path / "data.json").read_text())["votes"] in page.text
    for row in run.metrics():
        if "loss" in row:
            assert plots.number(row["loss"]) in page.text
    assert page.text.index("round0") < page.text.index("round10")


def test_the_page_fetches_nothing_and_runs_nothing(run):
    page = page_of(run)
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert all(address.startswith("#") for address in page.addresses)
    html = (run.path / "report.html").read_text()
    assert "@import" not in html and "url(" not in html
    assert page.text.count(EVIL) >= 3  # config, warning and sample, each as text
    assert f"run {EVIL[:8]}" in page.text


def test_a_truncated_log_and_an_unfinished_run_still_give_a_page(run):
    """A kill cuts the last metric short and leaves no headline: the page says so and shows the rest."""
    (run.path / "artifacts/headline.json").unlink()
    file = run.path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"stage": "hrc", "step": 9, "lo')
    text = page_of(run).text
    assert "1 broken line left out" in text and "hrc: loss" in text


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    assert "no metrics yet" in page_of(RunFolder(tmp_path)).text


def test_no_folder_and_broken_artifacts_are_named(run, tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        build(tmp_path / "none")
    (run.path / "artifacts/headline.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"headline\.json: broken JSON"):
        build(run.path)


def test_not_finite_numbers_are_warned_of_and_leave_a_gap(tmp_path):
    run = RunFolder(tmp_path)
    for step, loss in enumerate((1.0, float("nan"), float("inf"), 0.5)):
        run.log({"stage": "s", "step": step, "loss": loss})
    text = page_of(run).text
    assert "s, step 1: loss not finite" in text and "s, step 2: loss not finite" in text


def test_a_section_of_another_package_is_shown_and_its_error_is_a_warning(run, tmp_path, monkeypatch):
    """Entry points of a real distribution folder: one gives a section, one cannot read its artifact."""
    folder = tmp_path / "site" / "extras-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    points = "[arbiter.report_sections]\ngood = extra_sections:good\nwrong = extra_sections:wrong\n"
    (folder / "entry_points.txt").write_text(points)
    (tmp_path / "site" / "extra_sections.py").write_text(
        "from launch.errors import DataError\nfrom launch.report import Section\n"
        "def good(run):\n    return [Section('Extra part', f'<p>rows {len(run.metrics())}</p>')]\n"
        "def wrong(run):\n    raise DataError('artifacts/x.json has no S')\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    text = page_of(run).text
    assert "Extra part" in text and "rows 11" in text
    assert "the section 'wrong' is left out: artifacts/x.json has no S" in text


def test_building_twice_gives_the_same_page(run):
    assert build(run.path).read_bytes() == build(run.path).read_bytes()


# ---------------------------------------------------------------- charts


def test_ticks_are_round_and_inside():
    """From 0 to 1 in about four: 0, .25, .5, .75, 1. From -37 to 410: hundreds."""
    assert plots.ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert plots.ticks(-37, 410) == [0, 200, 400]
    assert plots.ticks(1e-7, 5e-7, 4) == pytest.approx([1e-7, 2e-7, 3e-7, 4e-7, 5e-7])


def test_numbers_as_the_report_writes_them():
    said = [plots.number(x) for x in (0, 3, 0.25, 1 / 3, 1e-6, 9999, 12345, 2.5e9, None, float("nan"))]
    assert said == ["0", "3", "0.25", "0.3333", "1.00e-06", "9999", "12.35k", "2.5G", "–", "nan"]


def test_a_long_curve_is_thinned_to_bucket_means_and_keeps_its_end():
    """1,000 points with y = x: buckets of 4, so the first drawn point is the mean of 0..3; the last stays 999."""
    points = plots._thin([(float(i), float(i)) for i in range(1000)])
    assert len(points) == 250 and points[0] == (1.5, 1.5) and points[-1] == (999.0, 999.0)


def test_heat_map_writes_every_value_with_its_sign_and_strength():
    """Scale 2: the value 2 is drawn at full strength .94, the value -1 at half, .49, and 0 at .04."""
    svg = plots.heat_map([[0, 2], [-1, 0]], ["a", "b"], 2.0, "S")
    assert "a against b: 2" in svg and "b against a: -1" in svg
    assert 'class="pos"' in svg and svg.count('fill-opacity="0.94"') == 1 and svg.count('fill-opacity="0.49"') == 1
    assert svg.count('fill-opacity="0.04"') == 2


def test_line_charts_of_nothing_one_point_and_a_constant():
    assert "no finite value" in plots.line_chart({"a": [(0, float("nan"))]}, "x", "y")
    assert "circle" in plots.line_chart({"a": [(3, 5.0)]}, "x", "y")
    assert "nan" not in plots.line_chart({"a": [(0, 2.0), (1, 2.0)]}, "x", "y")


def test_tables_escape_text_and_set_numbers_apart():
    html = table(["name", "value"], [[EVIL, 0.5], ["b", None]])
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert '<td class="n">0.5</td>' in html and '<td class="n">–</td>' in html


def test_natural_order():
    assert natural(["round10", "round2", "a", "round1b"]) == ["a", "round1b", "round2", "round10"]
