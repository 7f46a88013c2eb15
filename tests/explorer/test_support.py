"""What the explorer says of the rows on request: support; and how sets are made: hysteresis, trajectory."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from explorer_pilot import app_of, opened, press, text_of
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection, changes
from sftscope.analysis.soft.soft_orders import soft_orders
from sftscope.analysis.trust.noise_support import with_noise_support
from sftscope.foundation.errors import SftscopeError
from sftscope.reporting.run_csv import as_csv, soft_orders_csv
from sftscope.reporting.sheets import sheet_csv
from sftscope_tui.app.exports import sheet_of
from sftscope_tui.drawing.numbers import plain
from sftscope_tui.panes.changes import ChangesPane
from sftscope_tui.panes.orders import OrdersPane
from sftscope_tui.panes.probe import ProbePane
from sftscope_tui.state.command_line import command_for
from sftscope_tui.state.start_options import Start


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=3, n_probes=2, n=3)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


async def test_support_comes_on_request_and_is_that_of_the_report(run: Path, evolution: Evolution) -> None:
    selection = Selection(2)
    expected = {
        (row.probe, row.relation, row.subset): row.support
        for row in with_noise_support(evolution, selection, changes(evolution, selection)).rows
    }
    async with opened(run) as pilot:
        await press(pilot, "2")
        assert "of 8" not in text_of(pilot, ChangesPane)
        await press(pilot, "r")
        assert "of 8" in text_of(pilot, ChangesPane).splitlines()[1]
        scene = app_of(pilot).scene()
        assert scene is not None
        rows = list(csv.DictReader(sheet_csv(sheet_of(scene)()).splitlines()))
        table = scene.derived.table(scene.reading, scene.state)
        found = {
            (table.probes[p].probe.id, ("AND", "OR")[relation], subset): int(table.support[row])
            for row in range(table.subset.size)
            for p, relation, subset in [table.identity(row)]
        }
        assert found == expected
        assert sorted(int(row["support"]) for row in rows) == sorted(expected.values())
        assert "--support" in command_for(app_of(pilot).state, run)
        few = sum(count < 8 for count in found.values())
        await press(pilot, "/", *"rep:0-7", "enter")
        assert text_of(pilot, ChangesPane).splitlines()[1].split()[3:5] == [str(few), "of"]
        await press(pilot, "5")
        assert "of 8" in text_of(pilot, ProbePane)
        await press(pilot, "r")
        assert "of 8" not in text_of(pilot, ProbePane)


async def test_sets_are_made_as_the_options_say(run: Path) -> None:
    exact = Evolution(load_history(run), hysteresis=1.0)
    counts = changes(exact, Selection(2, trajectory=True)).counts
    assert counts != changes(replace(exact, hysteresis=0.5), Selection(2)).counts
    async with opened(run, hysteresis=1.0, trajectory=True) as pilot:
        await press(pilot, "2")
        title = text_of(pilot, ChangesPane).splitlines()[0]
        assert all(f"{glyph} {counts[change]}" in title for glyph, change in zip("−=+", Change, strict=True))
        assert "h 1 trajectory" in text_of(pilot, "#header").splitlines()[0]
        assert "--hysteresis 1.0 --trajectory" in command_for(app_of(pilot).state, run)
    with pytest.raises(SftscopeError, match="hysteresis: expected a factor above 0 and at most 1"):
        Start.parse(hysteresis=0.0)


async def test_orders_show_the_soft_classes_which_trends_sum_up(run: Path, evolution: Evolution) -> None:
    tables = [part.table for part in evolution.history.probes]
    expected = soft_orders(tables, 2)
    async with opened(run) as pilot:
        await press(pilot, "3", "o", "o")
        text = text_of(pilot, OrdersPane)
        assert "strengths, shares of step 0, no τ" in text
        for row in expected.emerged:
            assert row.positive_mean == 0 or plain(row.positive_mean) in text
        scene = app_of(pilot).scene()
        assert scene is not None
        trends = scene.derived.trends(scene.reading, scene.state)
        assert trends is not None
        whole = sum(row.positive_mean - row.negative_mean for row in expected.emerged)
        assert whole == pytest.approx(trends.soft.emerged_mean[2])


def test_csv_has_support_where_it_was_asked_for_and_the_soft_orders(evolution: Evolution) -> None:
    plain_rows = list(csv.DictReader(as_csv(evolution).splitlines()))
    rows = list(csv.DictReader(as_csv(evolution, support=True).splitlines()))
    assert [{name: row[name] for name in plain_rows[0]} for row in rows] == plain_rows
    selection = Selection(1)
    expected = {
        (row.probe, row.relation, row.subset): row.support
        for row in with_noise_support(evolution, selection, changes(evolution, selection)).rows
        if row.change is not Change.REMOVED and row.effect_now != 0
    }
    step = str(evolution.history.steps[1])
    found = {
        (row["probe"], row["relation"], int(row["subset"])): int(row["support"]) for row in rows if row["step"] == step
    }
    assert found == expected
    soft = [row for row in csv.DictReader(soft_orders_csv(evolution).splitlines()) if row["step"] == step]
    first = [float(row["share"]) for row in soft if row["probe"] == "p00" and row["class"] != "emerged"]
    assert sum(first) == pytest.approx(1.0)  # removed + preserved = ‖I_0‖₁
