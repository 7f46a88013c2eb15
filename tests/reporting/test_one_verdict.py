"""One run has one verdict: every surface has its sentence word for word, and in JSON its fields as they are."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sftscope import api
from sftscope.analysis.conclusions.online_verdict import as_it_went
from sftscope.analysis.conclusions.verdict import Decision, Verdict, judge, verdict_of
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, as_plain, trends
from sftscope.foundation.safe_text import markdown_prose
from sftscope.monitor import headline, watching
from sftscope.reporting.answer import endings
from sftscope.reporting.answer.run_answer import answer_of
from sftscope.reporting.content import make_report
from sftscope.reporting.document import markdown
from sftscope.reporting.forms import as_json
from sftscope.reporting.outline import outline
from sftscope.reporting.run_comparison import compare, compare_json, compare_text
from sftscope.reporting.sheets import plain_text
from sftscope.reporting.show import show_json, show_text
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import RunStatus
from sftscope_tui.contents import open_run
from sftscope_tui.dialogs.texts import verdict_text
from sftscope_tui.drawing.palette import ON_DARK
from sftscope_tui.widgets.step_bar import StepBarContent, verdict_pieces
from simulated_histories import simulated_history

SAMPLES = [Path(__file__).parents[2] / "sample_runs" / name for name in ("smollm2", "gemma3")]
N_SIMULATED = 200
STATUS = RunStatus(9, 9, 4, 36, None, ())


@pytest.fixture(scope="module")
def simulated() -> list[Evolution]:
    return [Evolution(simulated_history(seed)) for seed in range(N_SIMULATED)]


@pytest.fixture(scope="module")
def samples() -> list[Evolution]:
    return [Evolution(load_history(run)) for run in SAMPLES]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes what reads a run folder read an evolution that is in memory."""

    def store(evolution: Evolution) -> Path:
        for module in (api, endings, headline, open_run, watching):
            monkeypatch.setattr(module, "load_history", lambda path: evolution.history)
            monkeypatch.setattr(module, "Evolution", lambda history, *rule: evolution)
        return Path("run")

    return store


def texts_of(evolution: Evolution, path: Path) -> Iterator[tuple[str, str]]:
    """By surface, the text in which the sentence stands."""
    last = Selection(evolution.history.steps.size - 1)
    over_time = trends(evolution, Selection(0))
    expected = judge(over_time, evolution.history.held_out)  # as the explorer does
    bar = StepBarContent(over_time.steps, 0, None, over_time.events, expected)
    yield "verdict", answer_of(path, evolution).as_text()
    yield "show", show_text(evolution, last, view="orders")
    yield "show --plain", plain_text(evolution, last, view="orders")
    yield "status", endings.status_text(path, STATUS)
    yield "the end of run and attach", "\n".join(endings.closing_lines(path))
    yield "the explorer's line", "".join(text for text, _ in verdict_pieces(bar, ON_DARK))
    yield "the explorer's dialog", verdict_text(expected, ON_DARK).plain
    yield "the explorer's runs", open_run.headline_of(path, evolution.rule, evolution.hysteresis).text
    yield "Python", api.open_run(path).verdict().sentence


def fields_of(evolution: Evolution, path: Path) -> Iterator[tuple[str, Any]]:
    """By surface, the verdict in its JSON."""
    yield "verdict", answer_of(path, evolution).as_dict()["verdict"]
    yield "show", show_json(evolution, Selection(0))["verdict"]
    yield "status", endings.status_json(path, STATUS)["verdict"]
    yield "Python", as_plain(api.open_run(path).verdict())


def check(evolution: Evolution, path: Path) -> Verdict:
    verdict = verdict_of(evolution)
    for surface, text in texts_of(evolution, path):
        assert verdict.sentence in " ".join(text.split()), surface
    for surface, fields in fields_of(evolution, path):
        assert fields == as_plain(verdict), surface
    return verdict


def test_simulated_runs_have_one_verdict_on_all_surfaces(simulated: list[Evolution], stored: Any) -> None:
    found = Counter(check(each, stored(each)).decision for each in simulated)
    assert min(found[decision] for decision in Decision) >= 2, found


def test_sample_runs_have_one_verdict_on_all_surfaces(samples: list[Evolution], stored: Any) -> None:
    for evolution in samples:
        check(evolution, stored(evolution))


def test_the_report_begins_with_the_verdict(simulated: list[Evolution]) -> None:
    """Those of the sample runs are made, and compared, in other tests."""
    for evolution in simulated[:4]:
        verdict, report = verdict_of(evolution), make_report(evolution)
        assert f"**{markdown_prose(verdict.sentence)}**" in markdown(outline(report))
        assert json.loads(as_json(report))["verdict"] == as_plain(verdict)


def test_a_comparison_has_the_verdict_of_each_run(simulated: list[Evolution], samples: list[Evolution]) -> None:
    for pair in [samples, *(simulated[i : i + 2] for i in range(0, 20, 2))]:
        comparison = compare(pair)
        text, rows = compare_text(comparison), {row["name"]: row for row in compare_json(comparison)["runs"]}
        for evolution in pair:
            verdict = verdict_of(evolution)
            assert f"{evolution.history.name}: {verdict.sentence}\n" in text
            assert verdict.headline in text.partition("\n\n")[2].partition("\n\n")[0]  # the table
            assert rows[evolution.history.name]["verdict"] == as_plain(verdict)


def test_a_run_that_is_watched_has_one_verdict_too(simulated: list[Evolution], stored: Any) -> None:
    """With the tests for a run that is looked at after every checkpoint: callback, watch, as it went."""
    for evolution in simulated[::4]:
        verdict, path = verdict_of(evolution, looks=True), stored(evolution)
        seen = headline.make_headline(RunFolder(path))
        assert (seen.words, seen.stop_by, seen.agreement) == (verdict.sentence, verdict.stop_by, verdict.agreement)
        answer = answer_of(path, evolution, looks=True)
        line = watching.checkpoint_line(trends(evolution, Selection(0)), seen.step, answer)
        assert line.endswith(f"; {verdict.sentence}")
    evolution = simulated[0]
    assert as_it_went(evolution)[-1].verdict == verdict_of(evolution, looks=True)


def test_every_number_of_a_sentence_is_that_of_its_step(simulated: list[Evolution]) -> None:
    """Of "0.687 at 48" the run has measured 0.687 at step 48; and a rise rises, from the step that is named."""
    seen = 0
    for evolution in simulated:
        history, verdict = evolution.history, verdict_of(evolution)
        for value, step in re.findall(r"(\d\.\d{3}) at (\d+)", verdict.sentence):
            at = history.steps.tolist().index(int(step))
            assert value in {f"{curve[at]:.3f}" for curve in history.losses.values()}, verdict.sentence
            seen += 1
        for start, end in re.findall(r"rises[^(]*\((\d\.\d{3}) at \d+ → (\d\.\d{3})", verdict.sentence):
            assert float(start) < float(end)
        if verdict.decision in (Decision.STOP_AT, Decision.STOP_BY):
            assert verdict.headline.endswith(f" {verdict.stop_by}")
            assert verdict.past_stop is bool(history.steps[-1] > verdict.stop_by)
        else:
            assert (verdict.stop_by, verdict.past_stop) == (None, False)
    assert seen > 100


def test_the_verdict_asks_for_all_probes_and_the_first_step(samples: list[Evolution]) -> None:
    """Whatever part of a run is shown."""
    shown = [show_json(samples[0], selection)["verdict"] for selection in (Selection(3), Selection(9, 5, probe=2))]
    assert all(first == second for first, second in pairwise([*shown, as_plain(verdict_of(samples[0]))]))


def test_a_verdict_is_found_once_for_each_way_of_looking(samples: list[Evolution]) -> None:
    evolution = replace(samples[0])
    assert verdict_of(evolution) is verdict_of(evolution)
    assert verdict_of(evolution, looks=True) is not verdict_of(evolution)
