"""Runs beside each other, the findings, sensitivity, and the report in every form."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from command_line import fails_with_one_line, sftscope
from histories import counted_history, history_of
from hostile_run import HOSTILE_WORDS
from placebos import planted
from sample_history import write_sample_run
from sftscope.analysis.conclusions.online_verdict import as_it_went
from sftscope.analysis.conclusions.paper_findings import Finding, Holds, measure_findings
from sftscope.analysis.conclusions.verdict import judge
from sftscope.analysis.course.events import Event, events_so_far, find_events
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection, trends
from sftscope.analysis.trust.number_course import number_course
from sftscope.analysis.trust.sensitivity import (
    ZETA_FACTORS,
    SensitivityRow,
    fewest_encoded,
    measure_sensitivity,
    what_survives,
)
from sftscope.analysis.trust.solver_residue import measure_residue
from sftscope.analysis.trust.zeta_sensitivity import with_other_zeta, with_range_zeta, with_reversed_ties
from sftscope.decomposition import decompose
from sftscope.decomposition.rivals.subgradient_descent import decompose_by_descent
from sftscope.foundation.errors import SftscopeError
from sftscope.reporting import figures
from sftscope.reporting.forms import FORMATS, make_report, write_report
from sftscope.reporting.run_comparison import compare, compare_text
from sftscope.reporting.tables import as_text, markdown_cell, number_table, sensitivity_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=14, n_probes=5, n=4)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


# Compare.


def test_runs_that_train_other_ends_of_an_answer_are_told_apart(evolution: Evolution) -> None:
    """Their losses are means over other tokens."""
    history = evolution.history
    settings = history.run["settings"]
    whole = {**history.run, "settings": {**settings, "training": {"trained_end": "template"}}}
    attached, measured = ({**history.run, "attached": each} for each in ({}, {"trained_end": "template"}))
    runs = {"a": history.run, "b": whole, "c": attached, "d": measured}
    rows = [replace(history, name=name, run=run) for name, run in runs.items()]
    same = compare([evolution, evolution])
    assert {row.trained_end for row in same.runs} == {"token"}
    assert "not comparable" not in compare_text(same)
    other = compare([Evolution(each) for each in rows])
    assert {row.name: row.trained_end for row in other.runs} == {
        "a": "token",
        "b": "template",
        "c": None,
        "d": "template",
    }
    said = compare_text(other)
    assert "Losses are not comparable" in said
    for part in ("a token", "b template", "c not known, others trained it"):
        assert part in said


def test_a_run_compared_with_itself_is_itself(run: Path, evolution: Evolution) -> None:
    found = compare([evolution, Evolution(load_history(run))])
    assert [row.name for row in found.runs] == ["sample (1)", "sample (2)"]
    assert [pair.step for pair in found.pairs] == [*evolution.history.steps.tolist(), None]
    assert all(pair.jaccard == 1 and pair.first_only == pair.second_only == 0 for pair in found.pairs)
    assert all(row.ratio[change] == 1 for row in found.generalizable for change in (Change.PRESERVED, Change.EMERGED))
    assert len(found.generalizable) == 2


def test_pairs_by_hand() -> None:
    """Counts 3 and 2 of the same first interactions: 2 in both, 1 in one only; Jaccard 2/3."""
    first, second = counted_history([[3, 3]]), replace(counted_history([[2, 2]]), name="second")
    pair = compare([Evolution(first), Evolution(second)]).pairs[-1]
    assert (pair.first_only, pair.both, pair.second_only) == (1, 2, 0)
    assert pair.jaccard == pytest.approx(2 / 3)


def test_runs_are_ranked_by_held_out_loss_and_those_without_come_last() -> None:
    histories = [replace(counted_history([[3] * 6]), name=name) for name in "abc"]
    losses = [{"eval": np.full(6, 2.0)}, {}, {"eval": np.array([3, 2, 1, np.nan, 2, 2.0])}]
    runs = [Evolution(replace(run, losses=loss)) for run, loss in zip(histories, losses, strict=True)]
    assert [(row.name, row.best_step) for row in compare(runs).runs] == [("c", 2), ("a", 0), ("b", None)]
    assert compare_text(compare(runs)).isascii() is False


def test_the_command_compares_and_says_what_does_not_fit(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    result = sftscope("compare", run, other, "--json")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["schema"], content["version"]) == ("sftscope-compare", 3)
    assert "Jaccard" in sftscope("compare", run, other).stdout
    foreign = write_sample_run(tmp_path / "foreign", n_steps=3, n_probes=5, n=3)
    assert "the chosen words of probe 'p00' differ" in fails_with_one_line("compare", run, foreign)
    assert "expected two runs or more" in fails_with_one_line("compare", run)
    assert "not a run folder" in fails_with_one_line("compare", run, tmp_path / "none")
    assert "chosen words" in fails_with_one_line("report", run, "--out", tmp_path / "o", "--baseline", foreign)


# Findings and sensitivity.


def staged(probes: int = 12) -> Evolution:
    """Removed: cancelling, order 3; preserved: positive singletons; late: cancelling, order 2 and 3."""
    effects = []
    for p in range(probes):
        part = np.zeros((14, 2, 16))
        part[:, 0, [1, 2]] = 1 + 0.05 * p
        for i, subset in enumerate((7, 11, 13, 14)):
            part[: 1 + i, 0, subset] = 1 if i % 2 else -1
        part[5:, 0, 4] = 0.9
        for i, subset in enumerate((3, 5, 6, 9, 10, 12, 15)):
            part[6 + i :, 1, subset] = 1.1 if i % 2 else -1.0
        effects.append(part)
    return Evolution(history_of(effects))


def test_a_planted_run_shows_the_findings() -> None:
    evolution = staged()
    found = {part.number: part for part in measure_findings(evolution, find_events(evolution.history).sparsest)}
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert [found[n].holds for n in (1, 3, 4, 5)] == [Holds.YES] * 4
    assert (
        "order of removed 3.00 against 1.00 (preserved; n = 12); z of preserved 1.41 against 0.00 (removed; n = 12)"
        in found[4].numbers
    )
    for number in (1, 3):
        assert "nearly true by construction" in found[number].numbers
        assert "holds in 20 of 20 draws" in found[number].numbers


def test_with_one_probe_or_without_two_stages_the_findings_are_undecided() -> None:
    for probes in (1, 5):
        few = staged(probes)
        assert {part.holds for part in measure_findings(few, find_events(few.history).sparsest)} == {Holds.UNDECIDED}
    flat = Evolution(counted_history([[4] * 8] * 4))
    found = measure_findings(flat, find_events(flat.history).sparsest)
    assert [part.holds for part in found[:3]] == [Holds.UNDECIDED] * 3
    assert "never falls" in found[0].numbers


def test_what_survives_says_no_more_than_every_row(evolution: Evolution) -> None:
    report = make_report(evolution)
    rows = report.sensitivity
    for i, part in enumerate(report.findings):
        agreed = all(row.findings[i] is part.holds for row in rows) and part.holds is not Holds.UNDECIDED
        assert (f"finding {part.number} {part.holds}" in report.survives) is agreed
    assert report.survives.endswith("no placebo was extracted.")


def test_a_noisy_placebo_does_not_survive(tmp_path: Path) -> None:
    for noise, word in ((0.0, "are beyond the placebo"), (0.3, "are not beyond the placebo")):
        path = planted(tmp_path / f"run{noise}", step=3, noise=noise).path
        assert word in make_report(Evolution(load_history(path))).survives


def test_other_zeta_are_decomposed_from_the_stored_scores(evolution: Evolution) -> None:
    part = evolution.history.probes[0]
    alone = replace(evolution.history, probes=(part,))
    other = with_other_zeta(alone, 0.5).probes[0]
    result = decompose(part.scores, 0.5 * part.zeta, names=[part.probe.variables] * len(part.zeta))
    np.testing.assert_array_equal(other.effects[:, 0], result.and_effects)
    np.testing.assert_array_equal(other.effects[:, 1], result.or_effects)
    np.testing.assert_array_equal(other.zeta, 0.5 * part.zeta)
    assert other.mismatch.largest.max() <= 0.5 * part.zeta.max() * (1 + 1e-9)
    assert part.mismatch.largest.max() > 0.6 * part.zeta.max()


def test_the_headline_under_other_zeta_is_that_of_such_a_run(evolution: Evolution) -> None:
    small = Evolution(replace(evolution.history, probes=evolution.history.probes[:2]), evolution.rule)
    rows = measure_sensitivity(small, zeta=True)
    assert [row.zeta for row in rows if row.tried] == [*ZETA_FACTORS, None, None, 1.0]
    assert rows[:-5] == measure_sensitivity(small)
    others = [with_other_zeta(small.history, factor) for factor in ZETA_FACTORS]
    others += [with_range_zeta(small.history), with_range_zeta(small.history, not_below_base=True)]
    others += [with_reversed_ties(small.history)]
    for row, history in zip(rows[-5:], others, strict=True):
        other = Evolution(history, small.rule)
        assert row.number == number_course(history)
        assert row.fewest == fewest_encoded(other)
        assert row.rule == str(small.rule)
        last = [other.partition(p, small.history.steps.size - 1, 0) for p in range(2)]
        assert row.at_last == {change: np.mean([sets[change].sum() for sets in last]) for change in Change}
    report = make_report(small, zeta=True)
    assert report.survives.startswith("Conclusions that hold under every τ rule, value and ζ tried: ")
    assert "ζ × 0.5" in as_text(sensitivity_table(report.sensitivity))
    assert as_text(number_table(report.sensitivity)).count("\n") == 1 + len(others)
    assert [part.carried for part in report.carried] == [False] * 3  # of 2 probes nothing is stated


def test_what_an_unfinished_descent_would_encode_besides(evolution: Evolution) -> None:
    small = Evolution(replace(evolution.history, probes=evolution.history.probes[:2]), evolution.rule)
    rows = measure_residue(small, [0, 5], iterations=300)
    for row, step in zip(rows, (0, 5), strict=True):
        sizes = []
        for p, part in enumerate(small.history.probes):
            result = decompose_by_descent(part.scores[step], part.zeta[step], iterations=300)
            effects = np.stack([result.and_effects[0], result.or_effects[0]])
            theirs = set(np.flatnonzero(np.abs(effects) > np.maximum(small.tau[p][step], small.floor[p])).tolist())
            ours = set(np.flatnonzero(small.omega(p, step)).tolist())
            sizes.append([len(ours), len(theirs), len(theirs - ours), len(ours - theirs)])
        assert [row.encoded, row.by_descent, row.residue, row.missed] == np.mean(sizes, axis=0).tolist()
        assert row.residue > 0
        assert row.excess > 0
    assert row.step == small.history.steps[5]
    report = make_report(small, descent=True)
    assert [part.step for part in report.residue] == [small.history.steps[i] for i in report.chosen]


def test_without_scipy_other_zeta_are_one_line(evolution: Evolution, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftscope.analysis.trust.zeta_sensitivity.find_spec", lambda name: None)
    with pytest.raises(SftscopeError, match=r"need scipy.*pip install"):
        measure_sensitivity(evolution, zeta=True)


def test_the_line_of_what_survives_by_hand() -> None:
    evolution = Evolution(counted_history([[4] * 8] * 4))
    sparsest = find_events(evolution.history).sparsest
    line = what_survives(sparsest, [], measure_sensitivity(evolution), [])
    assert line.startswith("Conclusions that hold under every τ rule and value tried: there is no sparsest step")


def test_what_holds_under_most_rules_is_told_apart_from_what_holds_under_all() -> None:
    sparsest = Event(2, 16, 8, 24, "made for a test")
    rules = [replace(sparsest, step=step) for step in (16, 24, 8, 40, None)]
    held = [[Holds.YES, Holds.YES, Holds.NO], [Holds.YES, Holds.YES, Holds.UNDECIDED], [Holds.YES, Holds.YES, Holds.NO]]
    held += [[Holds.YES, Holds.NO, Holds.YES], [Holds.YES, Holds.YES, Holds.YES]]
    rows = [
        SensitivityRow("r", 1.0, i == 0, rule, {}, {}, signs)
        for i, (rule, signs) in enumerate(zip(rules, held, strict=True))
    ]
    findings = [Finding(i + 1, "a claim", sign, "") for i, sign in enumerate(held[0])]
    assert what_survives(sparsest, findings, rows, []) == (
        "Conclusions that hold under every τ rule and value tried: finding 1 holds; "
        "under most: the fewest interactions lie within steps 8–24 (3 of 5), finding 2 holds (4 of 5); "
        "no placebo was extracted."
    )


# The report's forms.


class _Page(HTMLParser):
    """Open tags, ids, addresses and text of a page; `broken` where tags do not match."""

    void = frozenset(["meta", "br", "path", "use", "rect", "line", "circle"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.broken = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.void:
            return
        self.broken |= not self.open or self.open.pop() != tag


@pytest.mark.campaign
def test_every_form_is_equal_bytes_when_made_twice(run: Path, tmp_path: Path) -> None:
    formats = [name for name in FORMATS if name != "figures"]
    first = write_report(run, tmp_path / "a", formats)
    second = write_report(run, tmp_path / "b", formats)
    assert [path.name for path in first] == [path.name for path in second]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    drawing = figures.figures(make_report(Evolution(load_history(run))))["figure_5_matching"][1]
    for kind, magic in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF-")):
        picture = figures.draw("figure_5_matching", drawing, kind)
        assert picture.startswith(magic)
        assert figures.draw("figure_5_matching", drawing, kind) == picture


def test_the_page_fetches_nothing_and_hostile_text_stays_text(tmp_path: Path) -> None:
    path = write_sample_run(
        tmp_path / "r<un", n_steps=14, n_probes=2, n=6, words=["$x$", "<svg/onload=1>", *HOSTILE_WORDS]
    )
    (page,) = write_report(path, tmp_path / "out", ["html"])
    text = page.read_text(encoding="utf-8")
    parser = _Page()
    parser.feed(text)
    assert not parser.broken
    assert not parser.open
    assert len(set(parser.ids)) == len(parser.ids)
    assert all(address.startswith("#") and address[1:] in parser.ids for address in parser.addresses)
    assert "script" not in parser.tags
    assert not re.search(r"@import|url\((?!#)|onload=1>", text)
    assert "\x1b" not in text
    assert "‮" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert parser.tags >= {"figure", "figcaption", "svg", "table"}
    assert text.count("<figure>") == 8


def test_the_report_says_when_the_end_could_first_be_determined(evolution: Evolution) -> None:
    said = make_report(evolution).online
    step = int(re.search(r"first be determined at step (\d+): it lies at step (\d+)", said)[1])
    assert 8 < step <= 128
    still = make_report(Evolution(counted_history([[4] * 8] * 4)))
    assert "could not be determined at any step" in still.online


def test_as_it_went_each_step_is_judged_by_its_past_alone(evolution: Evolution, tmp_path: Path) -> None:
    history = evolution.history
    accuracy = np.linspace(0.1, 0.6, history.steps.size)
    measured = Evolution(replace(history, losses={**history.losses, "accuracy": accuracy}, measured={}), evolution.rule)
    said = as_it_went(measured)
    assert [part.step for part in said] == history.steps.tolist()
    for last in (4, 8, history.steps.size - 1):
        past = Evolution(measured.history.until(last), evolution.rule)
        assert said[last].events == events_so_far(past.history)
        seen = trends(past, Selection(last), events=events_so_far(past.history))
        assert said[last].verdict == judge(seen, looks=True)
        assert said[last].accuracy == accuracy[last]
    write_report(measured, tmp_path, ["md", "json"])
    table = (tmp_path / "report.md").read_text().split("## What could be said at each checkpoint")[1].split("\n## ")[0]
    assert all(markdown_cell(part.verdict.sentence) in table for part in said)
    assert "accuracy" in table
    rows = json.loads((tmp_path / "report.json").read_text())["as_it_went"]
    assert [row["verdict"]["agreement"] for row in rows] == [part.verdict.agreement for part in said]


def test_the_page_answers_first(run: Path, tmp_path: Path) -> None:
    text = write_report(run, tmp_path, ["html"])[0].read_text(encoding="utf-8")
    start = text.index('class="answer"')
    answer = text[start : text.index("<h2>", start)]
    for part in ("Stop by step 32: ", "Sparsest: step ", "early stopping would have ended the training at step "):
        assert part in answer


def test_without_matplotlib_the_page_is_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    for wanted in ("html", "figures"):
        with pytest.raises(SftscopeError, match=r"need matplotlib.*sftscope\[figures\]"):
            write_report(run, tmp_path / "out", [wanted])
    assert not (tmp_path / "out").exists()
    assert write_report(run, tmp_path / "out", ["md"])


def test_the_csv_has_every_encoded_interaction(evolution: Evolution, tmp_path: Path) -> None:
    tables = {
        path.name: list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        for path in write_report(evolution, tmp_path, ["csv"])
    }
    rows = tables["interactions.csv"]
    steps, probes = range(evolution.history.steps.size), range(len(evolution.history.probes))
    sets = [evolution.partition(p, t) for p in probes for t in steps]
    assert len(rows) == sum(part[Change.PRESERVED].sum() + part[Change.EMERGED].sum() for part in sets)
    for row in rows[::37]:
        p, t = evolution.history.probe_index(row["probe"]), evolution.history.index_of(int(row["step"]))
        series = evolution.history.probes[p].table.series(["AND", "OR"].index(row["relation"]), int(row["subset"]))
        assert float(row["effect"]) == series[t]
        assert abs(series[t]) > (0.5 if row["change"] == "preserved" else 1) * float(row["tau"])
        same = "same" if series[0] * series[t] > 0 else "flipped"
        assert row["sign"] == (same if row["change"] == "preserved" else "")
    emerged = sum(row["change"] == "emerged" and row["step"] == "128" for row in rows)
    assert emerged == sum(evolution.partition(p, 13)[Change.EMERGED].sum() for p in range(5))
    trends_rows = tables["trends.csv"]
    assert [int(row["step"]) for row in trends_rows] == evolution.history.steps.tolist()
    assert {"preserved by chance", "preserved with the same sign by chance", "turnover"} <= trends_rows[0].keys()
    words = tables["word_values.csv"]
    part = evolution.history.probes[0]
    first = [float(row["shapley"]) for row in words if row["probe"] == "p00" and row["step"] == "0"]
    assert sum(first) == pytest.approx(part.output[0] - part.bias[0])


def test_a_cell_never_begins_a_formula(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=3, n_probes=1, n=2, words=["=1+1", "@x"])
    for written in write_report(path, tmp_path / "out", ["csv"]):
        cells = [cell for row in csv.reader(io.StringIO(written.read_text())) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "@")]


@pytest.mark.parametrize(("n_steps", "n_probes", "n"), [(1, 1, 1), (6, 1, 2)])
def test_the_smallest_runs_have_every_form(n_steps: int, n_probes: int, n: int, tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=n_steps, n_probes=n_probes, n=n)
    formats = FORMATS if n_steps == 1 else ["html", "md", "csv"]
    written = write_report(path, tmp_path / "out", formats)
    assert all(file.stat().st_size for file in written)
    assert n_steps > 1 or len(written) == 7 + 1 + 8 * 3


def test_losses_that_are_not_finite_and_empty_sets_have_a_page(tmp_path: Path) -> None:
    history = load_history(write_sample_run(tmp_path / "run", n_steps=6, n_probes=2, n=3))
    empty = tuple(replace(part, table=type(part.table).of_dense(0 * part.effects)) for part in history.probes)
    lost = replace(history, losses={"eval": np.full(6, np.nan), "train": np.full(6, np.nan)}, probes=empty)
    text = write_report(Evolution(lost), tmp_path / "out", ["html"])[0].read_text()
    assert "Not enough evidence" in text
    assert "nan" not in text.replace("ratio nan", "").lower().split("<svg")[0]


def test_the_report_against_a_baseline_shows_the_generalizable_ratio(run: Path, tmp_path: Path) -> None:
    report = make_report(Evolution(load_history(run)), reference=Evolution(load_history(run)))
    assert report.trends.classes[Change.PRESERVED].generalizable_mean[Selection(13).now] == 1
    written = write_report(run, tmp_path, ["json"], reference=Evolution(load_history(run)))
    assert json.loads(written[0].read_text())["baseline_llm"] == "sample"
