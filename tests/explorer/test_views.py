"""The explorer's newer views, live follow, export, what it remembers, and every key at every size."""

import asyncio
import json
import os
import random
import re
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.pilot import Pilot

from explorer_pilot import app_of, opened, press, screen_text, settle, text_of
from sample_history import write_sample_run
from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.one_masked_state import masked_state
from sftscope.analysis.sets.views import Selection, trends
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Relation
from sftscope.reporting.sheets import Sheet
from sftscope.store import RunFolder
from sftscope.store.sharing.training_requests import Request, answer, listen, listening, stop_listening, take
from sftscope.store.steps.step_file import to_bytes
from sftscope_tui.app.actions import ExplorerApp
from sftscope_tui.app.exports import export_job, sheet_of
from sftscope_tui.contents.change_table import arrange, build_table
from sftscope_tui.dialogs.dialogs import ExportDialog, ExportWish, TextDialog
from sftscope_tui.drawing.numbers import plain, signed, small
from sftscope_tui.drawing.palette import CLASS_GLYPHS, HIGH_CONTRAST, ON_ANSI, inks_for
from sftscope_tui.drawing.safe_lines import ControlFilter, shown
from sftscope_tui.panes.compare import ComparePane
from sftscope_tui.panes.pane import Pane
from sftscope_tui.panes.probe import ProbePane
from sftscope_tui.panes.raw import RawPane, datasets
from sftscope_tui.panes.runs import RunsPane
from sftscope_tui.panes.trends import TrendsPane
from sftscope_tui.state.command_line import command_for
from sftscope_tui.state.keys import KEYS
from sftscope_tui.state.preferences import Remembered, recall, remember, state_folder
from sftscope_tui.state.start_options import Start
from sftscope_tui.state.view_state import BaseMode, Sort, View, ViewState, toggle_follow, with_steps

ALL_SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=8)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


# ------------------------------------------------------------------ verdict, probe, raw


async def test_the_verdict_is_always_in_sight(run: Path, evolution: Evolution) -> None:
    """Its sentence, cut at the edge, in every view; `v` has all of it, with the evidence."""
    expected = verdict_of(evolution)
    async with opened(run) as pilot:
        for key in "12345678":
            await press(pilot, key)
            line = text_of(pilot, "#steps").splitlines()[1]
            assert expected.sentence.startswith(line.strip().removesuffix("…"))
            assert line.strip().startswith(expected.headline)
        await press(pilot, "1", "v")
        assert isinstance(pilot.app.screen, TextDialog)
        assert " ".join(expected.sentence.split()[:6]) in screen_text(pilot)


async def test_boundary_key_goes_there(run: Path, evolution: Evolution) -> None:
    """`B` stands at the end of denoising."""
    async with opened(run) as pilot:
        await press(pilot, "B")
        app = app_of(pilot)
        assert app.reading is not None
        assert app.state.step == app.reading.events.sparsest.index


async def test_words_are_taken_out_and_put_back(run: Path, evolution: Evolution) -> None:
    """v and h are those of the masked state; the word is blotted; u puts all back, i swaps."""
    async with opened(run, view="probe", probe="p01", step=5) as pilot:
        app, part = app_of(pilot), evolution.history.probes[1]
        now, every = app.state.step, (1 << part.n_variables) - 1
        await press(pilot, "w", "w", "space")
        assert app.state.masked_words(1) == 1 << 2
        state = masked_state(evolution, 1, now, every & ~(1 << 2))
        text = text_of(pilot, ProbePane)
        assert f"v {signed(state.score)}" in text
        assert f"h {signed(state.model)}" in text
        assert f"{part.n_variables - 1} of {part.n_variables} words in" in text
        assert part.probe.variables[2] not in text.splitlines()[1]
        await press(pilot, "i")
        assert app.state.masked_words(1) == every & ~(1 << 2)
        out = [line.split() for line in text_of(pilot, ProbePane).splitlines() if " out " in line]
        assert out, "an interaction of absent words does not contribute"
        await press(pilot, "u")
        assert app.state.masked_words(1) == 0
        whole = masked_state(evolution, 1, now, every)
        assert f"v {signed(whole.score)}" in text_of(pilot, ProbePane)
        await press(pilot, "p")
        assert app.state.masked_words(app.state.probe or 0) == 0


async def test_probe_view_follows_the_interaction_under_the_cursor(run: Path) -> None:
    """From all probes, 5 shows the probe of that interaction, with its words lit and its life line."""
    async with opened(run, view="changes", step=5) as pilot:
        await press(pilot, "j", "j", "j")
        app = app_of(pilot)
        assert app.derived is not None
        assert app.reading is not None
        identity = app.derived.under_cursor(app.reading, app.state)
        assert identity is not None
        await press(pilot, "5")
        assert app.state.probe == identity[0]
        assert app.derived.under_cursor(app.reading, app.state) == identity
        words = app.reading.evolution.history.probes[identity[0]].words_of(identity[2])
        assert f"life line {Relation(identity[1]).name} {' · '.join(words)}" in text_of(pilot, ProbePane)
        await press(pilot, "a")
        assert (app.state.probe, app.state.view) == (None, View.CHANGES)


async def test_raw_shows_every_dataset_of_the_file(run: Path) -> None:
    """All names; the values of the chosen one, with what a row stands for; a deleted file is explained."""
    async with opened(run, view="raw", step=5) as pilot:
        record = RunFolder(run).read_step(5)
        seen = []
        for _ in datasets(False):
            text = text_of(pilot, RawPane)
            seen.append(datasets(False)[app_of(pilot).state.dataset])
            if seen[-1] == "scores":
                assert f"{record.scores[3]:.16g}" in text
                assert "p00" in text
            await press(pilot, "w")
        assert tuple(seen) == datasets(False)
        await press(pilot, "b", "pagedown")
        assert app_of(pilot).state.row_of(View.RAW) > 0


# ------------------------------------------------------------------ runs and comparison


async def test_runs_are_listed_opened_and_compared(tmp_path: Path) -> None:
    """The runs of the folder with their headlines; space compares, enter opens; a broken one says why."""
    first = write_sample_run(tmp_path / "a-run", n_steps=6, n_probes=2)
    write_sample_run(tmp_path / "b-run", n_steps=4, n_probes=2, seed=1)
    broken = write_sample_run(tmp_path / "c-run", n_steps=3, n_probes=1)
    for file in RunFolder(broken).steps_folder.iterdir():
        file.write_bytes(b"no")
    async with opened(first) as pilot:
        await press(pilot, "6")
        assert "no second run yet" in text_of(pilot, ComparePane)
        await press(pilot, "7")
        text = text_of(pilot, RunsPane)
        assert "* a-run" in text
        assert "6 steps, 2 probes." in text
        assert "no extracted steps yet" in text
        app = app_of(pilot)
        await press(pilot, *["j"] * app.run_paths.index(tmp_path / "b-run"), "space")
        assert "x b-run" in text_of(pilot, RunsPane)
        await press(pilot, "6")
        assert app.other is not None
        assert app.other.reading is not None
        compared = text_of(pilot, ComparePane)
        assert "b-run" in compared
        assert "2 shared probes" in compared
        assert "Jaccard over the steps, from 0 to 1" in compared
        await press(pilot, "g")
        assert "step 0 and b-run at step 0 (linked)" in text_of(pilot, ComparePane)
        await press(pilot, "x", "G")
        assert "and b-run at step 0 (held" in text_of(pilot, ComparePane)
        await press(pilot, "7", "enter")
        await press(pilot, "1")
        assert app.session.name == "b-run"
        assert len(app.state.steps) == 4


async def test_the_generalizable_ratio_stands_where_a_second_run_is_given(run: Path, tmp_path: Path) -> None:
    """In Trends and in Compare the numbers of the analysis; without a second run nothing of it."""
    second = write_sample_run(tmp_path / "baseline", n_steps=5, seed=1)
    async with opened(run, step=5) as pilot:
        assert "ρ" not in text_of(pilot, TrendsPane)
    first = Evolution(load_history(run))
    signs = reference_signs(first.history, Evolution(load_history(second)))
    expected = trends(first, Selection(0), references=signs)
    app = ExplorerApp(run, second, start=Start.parse(step=5))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        shares = {change: part.generalizable_mean[app.state.step] for change, part in expected.classes.items()}
        kept = {**shares, Change.PRESERVED: expected.same_sign.generalizable_mean[app.state.step]}
        text = text_of(pilot, TrendsPane)
        assert "ρ in baseline" in text
        for change, share in kept.items():
            assert re.search(rf"{re.escape(CLASS_GLYPHS[change])} ρ(, same sign)? {plain(share)}", text)
        await press(pilot, "6")
        compared = text_of(pilot, ComparePane)
        assert all(f"{CLASS_GLYPHS[change]} {plain(share)}" in compared for change, share in shares.items())
        assert "encoded there too at its last step 5" in compared


async def test_runs_without_a_common_probe_say_so(tmp_path: Path) -> None:
    """A comparison needs equal prompts with equal words."""
    first = write_sample_run(tmp_path / "a", n_steps=3, n_probes=1)
    second = write_sample_run(tmp_path / "b", n_steps=3, n_probes=1, n=3, words=("x", "y", "z"))
    app = ExplorerApp(first, second, start=Start.parse(view="compare"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "share no probe" in text_of(pilot, ComparePane)


# ------------------------------------------------------------------ a run that is still written


async def look_again(pilot: object, app: ExplorerApp) -> None:
    """What the timer does every two seconds."""
    app.session.look()
    await settle(pilot)  # type: ignore[arg-type]


async def test_new_steps_appear_and_are_followed(tmp_path: Path) -> None:
    """While the user is elsewhere they are counted; with `f` the newest is shown; scrubbing pauses."""
    path = write_sample_run(tmp_path / "live", n_steps=6, n_probes=2)
    folder, later = RunFolder(path), {}
    for step in (8, 3):
        later[step] = folder.step_file(step).read_bytes()
        folder.step_file(step).unlink()
    async with opened(path, step=1) as pilot:
        app = app_of(pilot)
        assert app.state.steps == (0, 1, 2, 5)
        folder.step_file(3).write_bytes(later[3])
        await look_again(pilot, app)
        assert 3 in app.state.steps
        assert app.state.step_number == 1
        assert "+1 new" in text_of(pilot, "#header")
        await press(pilot, "f")
        assert "new" not in text_of(pilot, "#header")
        folder.step_file(8).write_bytes(later[8])
        await look_again(pilot, app)
        assert app.state.step_number == 8
        assert "follow" in text_of(pilot, "#header")
        await press(pilot, "left")
        assert not app.state.follow


@pytest.mark.campaign
async def test_two_explorers_on_a_run_that_is_written_and_damaged(tmp_path: Path) -> None:
    """Each sees every step and names the damage, whatever the other does; neither changes a file of the run."""
    path = write_sample_run(tmp_path / "live", n_steps=8, n_probes=2)
    folder = RunFolder(path)
    whole = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    later = [folder.step_file(step) for step in (5, 8, 12, 16)]
    for file in later:
        file.unlink()
    both = asyncio.Barrier(2)

    async def explore(*keys: str) -> tuple[int, ...]:
        async with opened(path, (120, 40)) as pilot:
            app = app_of(pilot)
            for file in later:
                if await both.wait() == 0:
                    file.write_bytes(whole[file][:-1] if file == later[-1] else whole[file])
                await both.wait()
                app.session.look()
                await pilot.press(*keys)  # while it reads
                await settle(pilot)
            assert "1 step file is left out: step_00000016.h5" in text_of(pilot, "#alert")
            if await both.wait() == 0:
                later[-1].write_bytes(whole[later[-1]])
            await both.wait()
            await look_again(pilot, app)
            assert text_of(pilot, "#alert") == ""
            return app.state.steps

    seen = await asyncio.gather(explore("right", "2", "s", "left"), explore("f", "5", "space", "k", "1"))
    assert seen[0] == seen[1] == folder.steps() == (0, 1, 2, 3, 5, 8, 12, 16)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == whole


@pytest.mark.parametrize("harm", ["half", "damage", "delete"])
async def test_harm_to_the_newest_file_is_named(tmp_path: Path, harm: str) -> None:
    """Half-written, damaged or deleted while the app is open: named, left out, and the app stays."""
    path = write_sample_run(tmp_path / "live", n_steps=5, n_probes=2)
    file = RunFolder(path).step_file(5)
    async with opened(path) as pilot:
        app = app_of(pilot)
        assert app.state.step_number == 5
        whole = file.read_bytes()
        if harm == "delete":
            file.unlink()
        else:
            file.write_bytes(whole[: len(whole) // 2] if harm == "half" else whole[:-1] + bytes([whole[-1] ^ 1]))
        await look_again(pilot, app)
        assert 5 not in app.state.steps
        assert app.state.step_number == 3
        assert "1 step file is left out: step_00000005.h5" in text_of(pilot, "#alert")
        file.write_bytes(whole)
        await look_again(pilot, app)
        assert 5 in app.state.steps
        assert text_of(pilot, "#alert") == ""


async def test_an_empty_run_is_explained_and_then_found(tmp_path: Path) -> None:
    """No step yet: a sentence with what to do; 7 lists runs; the first step shows by itself."""
    path = write_sample_run(tmp_path / "empty", n_steps=1, n_probes=1)
    file = RunFolder(path).step_file(0)
    whole = file.read_bytes()
    file.unlink()
    async with opened(path) as pilot:
        text = " ".join(screen_text(pilot).split())
        assert "no extracted steps yet" in text
        await press(pilot, "7")
        assert "empty" in text_of(pilot, RunsPane)
        file.write_bytes(whole)
        await look_again(pilot, app_of(pilot))
        await press(pilot, "1")
        assert "[0]" in text_of(pilot, "#steps")


def test_growing_keeps_the_place() -> None:
    """Step and pin stay what they are by number; a pin that is gone is out; following goes to the end."""
    state = ViewState(steps=(0, 4, 8), probes=("a",), step=1, pinned=2, base_mode=BaseMode.PINNED)
    grown = with_steps(state, (0, 2, 4, 8, 16), ("a",))
    assert (grown.step_number, grown.steps[grown.base]) == (4, 8)
    shrunk = with_steps(state, (0, 4), ("a",))
    assert (shrunk.pinned, shrunk.base_mode) == (None, BaseMode.FIRST)
    assert with_steps(toggle_follow(state), (0, 4, 8, 16), ("a",)).step_number == 16


# ------------------------------------------------------------------ export, copy, command line


async def test_export_writes_what_is_listed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filtered rows as CSV; the report by the report's own code; a folder that cannot be written is told."""
    monkeypatch.chdir(tmp_path)
    async with opened(run, view="changes", filter="+ AND", step=5) as pilot:
        app = app_of(pilot)
        await press(pilot, "e")
        assert isinstance(pilot.app.screen, ExportDialog)
        await press(pilot, "down", "enter")
        assert "written: sample-changes-step5.csv" in text_of(pilot, "#footer")
        lines = (tmp_path / "sample-changes-step5.csv").read_text().splitlines()
        assert app.derived is not None
        assert app.reading is not None
        assert len(lines) - 1 == app.derived.arrangement(app.reading, app.state).size
        assert all(line.startswith('"emerged","AND",') for line in lines[1:])
        await press(pilot, "e", "up", "enter")
        assert (tmp_path / "sample-report" / "report.md").is_file()
        (tmp_path / "sample-changes-step5.json").mkdir()
        await press(pilot, "e", "down", "down", "enter")
        assert "is there already; choose another name" in text_of(pilot, "#footer")


def test_a_report_tells_how_far_it_is(evolution: Evolution, tmp_path: Path) -> None:
    """Percentages that only grow, to the end; the last word is where it lies."""
    told: list[str] = []
    wish = ExportWish("report", tmp_path / "out")
    job = export_job(wish, evolution, lambda: Sheet("", (), []), lambda: "No rows.", told.append)
    assert job().startswith(f"written: {tmp_path / 'out'}")
    shares = [int(found[1]) for text in told if (found := re.search(r": (\d+) % \(", text))]
    assert len(shares) == len(told) > 3
    assert shares == sorted(set(shares))
    assert shares[-1] == 100


@pytest.mark.parametrize("form", ["txt", "csv", "json"])
def test_an_export_never_replaces_a_file(form: str, evolution: Evolution, tmp_path: Path) -> None:
    """Nor is anything computed for it."""
    file = tmp_path / "mine"
    file.write_text("kept")
    computed = partial(pytest.fail, "it was computed")
    job = export_job(ExportWish(form, file), evolution, computed, computed, print)
    with pytest.raises(SftscopeError, match="is there already; choose another name"):
        job()
    assert file.read_text() == "kept"


async def test_accuracy_stands_beside_the_losses(tmp_path: Path) -> None:
    """In the frame and in Trends, at the present step; NaN is a dash; a run without it has no such chart."""
    path = write_sample_run(tmp_path / "run", n_steps=5, n_probes=1, accuracy=True)
    folder = RunFolder(path)
    record = folder.read_step(1)
    losses = {name: value for name, value in record.losses.items() if name != "accuracy"}
    folder.step_file(1).write_bytes(to_bytes(replace(record, losses=losses)))
    async with opened(path, (160, 40), step=2) as pilot:
        value = small(folder.read_step(2).losses["accuracy"])
        assert re.search(rf"acc(uracy|\.) {value}", text_of(pilot, TrendsPane))
        assert f"accuracy {value}" in text_of(pilot, "#tabs")
        await press(pilot, "left")
        assert "accuracy –" in text_of(pilot, "#tabs")
    async with opened(write_sample_run(tmp_path / "without", n_steps=3, n_probes=1), (160, 40)) as pilot:
        assert "accuracy" not in screen_text(pilot)


@pytest.mark.parametrize("view", [view for view in View if view is not View.COMPARE])
async def test_every_view_has_a_sheet(run: Path, view: View) -> None:
    """Rows under headers, as many as headers."""
    async with opened(run, view=view.value.lower()) as pilot:
        scene = app_of(pilot).scene()
        assert scene is not None
        sheet = sheet_of(scene)()
        assert sheet.rows
        assert all(len(row) == len(sheet.headers) for row in sheet.rows)


async def test_a_comparison_without_a_second_run_is_refused(run: Path) -> None:
    """One sentence, no file."""
    async with opened(run, view="compare") as pilot:
        scene = app_of(pilot).scene()
        assert scene is not None
        with pytest.raises(SftscopeError, match="no second run"):
            sheet_of(scene)


async def test_copying_goes_to_the_clipboard_and_a_file(run: Path) -> None:
    """The view as text, the command as a line; the path of the file is told."""
    async with opened(run, step=3, view="orders") as pilot:
        await press(pilot, "Y")
        told = text_of(pilot, "#footer")
        assert "copied; also in " in told
        stored = (state_folder() / "copied.txt").read_text()
        assert stored.startswith("sftscope explore ")
        assert pilot.app.clipboard == stored
        await press(pilot, "y")
        assert "3 Orders: step 0 → 3" in (state_folder() / "copied.txt").read_text()


def test_the_command_line_brings_the_view_back() -> None:
    """What `Y` copies is parsed to the same start."""
    state = ViewState(
        steps=(0, 4, 8),
        probes=("a b", "c"),
        step=1,
        probe=0,
        view=View.CHANGES,
        filter="order:2 it's",
        sort=Sort.DELTA,
        pinned=2,
        base_mode=BaseMode.PINNED,
    )
    line = command_for(state, Path("my run"))
    assert line == (
        "sftscope explore 'my run' --step 4 --base 8 --probe 'a b' --tau max-step:0.05 --view changes "
        "--filter 'order:2 it'\"'\"'s' --sort delta"
    )
    start = Start.parse(step=4, base="8", probe="a b", tau="max-step:0.05", view="changes", sort="delta")
    assert (start.view, start.sort, start.rule) == (state.view, state.sort, state.rule)
    for wrong in ({"view": "x"}, {"sort": "x"}, {"base": "-1"}, {"glyphs": "x"}, {"tau": "x"}):
        with pytest.raises(SftscopeError):
            Start.parse(**wrong)  # type: ignore[arg-type]


async def test_start_options_are_obeyed(run: Path) -> None:
    """Step, base, probe, τ, view, filter and order are those of the command line."""
    async with opened(run, step=5, base="2", probe="p02", tau="top-k:7", view="changes", sort="order") as pilot:
        state = app_of(pilot).state
        assert (state.step_number, state.steps[state.base], state.probe) == (5, 2, 2)
        assert (str(state.rule), state.view, state.sort) == ("top-k:7", View.CHANGES, Sort.ORDER)


# ------------------------------------------------------------------ comfort


def test_what_is_remembered_survives_and_damage_does_not_matter(tmp_path: Path) -> None:
    """Written and read back; a torn file, another type or a wrong folder is as good as none."""
    values = Remembered("high-contrast", "ascii", "order", "counts", True)
    assert remember(tmp_path, values)
    assert recall(tmp_path) == values
    file = tmp_path / "explorer.json"
    for damage in ('{"theme": "nor', "[]", '{"theme": 3, "glyphs": null}', "\x00"):
        file.write_text(damage)
        assert recall(tmp_path) == Remembered()
    file.write_text(json.dumps({"theme": "nord", "unknown": 1}))
    assert recall(tmp_path).theme == "nord"
    (tmp_path / "file").write_text("")
    assert not remember(tmp_path / "file", values)


async def test_hint_on_the_first_start_only(run: Path) -> None:
    """A new user reads what to press; at the second start the keys stand there."""
    async with opened(run) as pilot:
        assert "? all keys" in text_of(pilot, "#footer")
    async with opened(run) as pilot:
        assert "quit" in text_of(pilot, "#footer")


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "high-contrast"])
async def test_themes_draw_every_view(run: Path, theme: str) -> None:
    """Each theme has inks of its own kind, is remembered, and changes no text."""
    async with opened(run) as pilot:
        before = screen_text(pilot)
        pilot.app.theme = theme
        await settle(pilot)
        assert screen_text(pilot).splitlines()[1:-1] == before.splitlines()[1:-1]
        expected = {"ansi-dark": ON_ANSI, "high-contrast": HIGH_CONTRAST}
        assert inks_for(pilot.app.current_theme) is expected.get(theme, inks_for(pilot.app.current_theme))
    assert recall(state_folder()).theme == theme


async def test_sensitivity_is_one_key_away(run: Path) -> None:
    """`T` lists the headline under every rule; it opens by itself once it is computed."""
    async with opened(run) as pilot:
        await press(pilot, "T")
        await settle(pilot)
        assert isinstance(pilot.app.screen, TextDialog)
        text = screen_text(pilot)
        for rule in ("max-step:0.05 (chosen)", "max-run", "top-k:20", "absolute:0.1"):
            assert rule in text
        assert "N_eff, which no rule changes:" in text


@pytest.mark.parametrize("size", ALL_SIZES)
async def test_every_key(run: Path, size: tuple[int, int]) -> None:
    """No key crashes: all of them in one view, those that mean something else elsewhere in the others too."""
    keys = [row.keys.split(",")[0] for row in KEYS if row.action not in ("app.quit", "app.command_palette")]
    others = ["j", "k", "space", "w", "b", "i", "u", "x", "enter", "s", "y"]
    work = [(view, others) for view in "678"] if size == (80, 24) else []
    async with opened(run, size) as pilot:
        for view, pressed in [("5", keys), *work]:
            await pilot.press(view)
            for key in pressed:
                await pilot.press(key)
                if len(pilot.app.screen_stack) > 1 or app_of(pilot).focused is not None:
                    await pilot.press("escape")
        await settle(pilot)
        assert len(pilot.app.screen_stack) == 1
        for strip in pilot.app.screen._compositor.render_strips():
            assert strip.cell_length == size[0]


async def test_zoom_and_tab(run: Path) -> None:
    """`+` leaves the pane with the focus alone; tab brings the others back."""
    async with opened(run, (160, 48)) as pilot:
        await press(pilot, "tab", "plus")
        shown_panes = [pane.view for pane in pilot.app.screen.query(Pane) if pane.display]
        assert shown_panes == [app_of(pilot).state.focus]
        await press(pilot, "tab")
        assert not app_of(pilot).state.zoom


async def test_random_resizes(run: Path) -> None:
    """Sizes from a thumbnail to a wall, in every view: no crash, and the last one is drawn whole."""
    rng = random.Random(0)
    async with opened(run) as pilot:
        for index in range(25):
            if index % 5 == 0:
                await pilot.press(rng.choice("12345678"))
            await pilot.resize_terminal(rng.randint(10, 220), rng.randint(3, 60))
        await pilot.resize_terminal(90, 30)
        await pilot.press("1")
        await settle(pilot)
        assert "1 Trends: against step 0" in screen_text(pilot)


def test_ten_thousand_hostile_strings() -> None:
    """Through both gates: no control byte, no zero width, one line, and the width that it is counted to have."""
    rng = random.Random(0)
    alphabet = [chr(code) for code in (*range(0xA0), 0x200B, 0x202E, 0x2066, 0xFEFF, 0xFE0F, 0x1F600, 0x4E2D, 0xD800)]
    alphabet += ["\x1b[2J", "\x1b]52;c;AAAA\x07", "[/]", "[@click=app.quit]", "\x9b31m"]
    gate = ControlFilter()
    for _ in range(10_000):
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        first = shown(text)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", first)
        assert cell_len(first) >= 0
        second = gate.apply([Segment(text)], Color(0, 0, 0))[0].text
        assert not re.search("[\x00-\x1f\x7f-\x9f]", second)


async def test_hostile_text_in_every_new_view(tmp_path: Path) -> None:
    """Words, probe ids, run names and step files with escape sequences and markup stay text."""
    words = ("\x1b]52;c;AAAA\x07", "[/]", "[@click=app.quit]q[/]", "\u202eevil", "房间🙂")
    path = write_sample_run(tmp_path / "hostile[/]\x1b[2J", words=words, n=5, n_steps=4, n_probes=2)
    async with opened(path) as pilot:
        for keys in (("5",), ("space",), ("w", "i"), ("6",), ("7",), ("space",), ("6",), ("8",), ("w", "w"), ("v",)):
            await press(pilot, *keys)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", screen_text(pilot))
            for strip in pilot.app.screen._compositor.render_strips():
                assert strip.cell_length == 80


# ------------------------------------------------------------------ looks


@pytest.mark.parametrize("view", [view.value.lower() for view in View])
async def test_views_look_as_they_did(tmp_path: Path, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pane at 80 columns is the stored text; SFTSCOPE_UPDATE_SNAPSHOTS=1 rewrites it, to be looked at."""
    monkeypatch.setattr("sftscope_tui.contents.find_runs.sample_runs", list)
    n_steps = 4 if view in ("trends", "backbone", "runs") else 6  # of 4 none is marked as the end of a stage
    first = write_sample_run(tmp_path / "here", n_steps=n_steps, n_probes=2, n=4)
    second = write_sample_run(tmp_path / "there", n_steps=n_steps, n_probes=2, n=4, seed=3)
    app = ExplorerApp(first, second, start=Start.parse(view=view, step=5, probe="p01", glyphs="block"))
    async with app.run_test(size=(80, 17)) as pilot:  # too low for the life line, whose marks depend on the stages
        await settle(pilot)
        kinds = {pane.view.value.lower(): pane.text for pane in pilot.app.screen.query(Pane) if pane.display}
    kinds[view] = "\n".join(line for line in kinds[view].split("\n") if not line.startswith(f"  {tmp_path}"))
    stored = Path(__file__).parent / "snapshots" / f"{view}.txt"
    if os.environ.get("SFTSCOPE_UPDATE_SNAPSHOTS"):
        stored.parent.mkdir(exist_ok=True)
        stored.write_text(kinds[view] + "\n", encoding="utf-8")
    assert kinds[view] + "\n" == stored.read_text(encoding="utf-8")


async def test_the_footer_has_the_keys_of_the_view(run: Path) -> None:
    """What one came for stands first: words in Probe, opening in Runs, linking in Compare."""
    remember(state_folder(), Remembered(hint_seen=True))
    async with opened(run) as pilot:
        for key, words in (("5", "word out"), ("7", "open"), ("6", "link"), ("8", "next dataset"), ("3", "counts")):
            await press(pilot, key)
            assert words in text_of(pilot, "#footer")


# ------------------------------------------------------------------ filters and sorts of Changes


def test_new_filter_terms(evolution: Evolution) -> None:
    """A range of orders, a probe, a negation: what Python's own filter gives."""
    table = build_table(evolution, Selection(6))
    for term, keeps in (
        ("order:2-3", lambda row: 2 <= table.order[row] <= 3),
        ("order:4", lambda row: table.order[row] == 4),
        ("probe:P01", lambda row: table.probe[row] == 1),
        ("sign:flipped", lambda row: table.flips(row)),
        ("sign:same", lambda row: table.change[row] == 1 and not table.flips(row)),
        ("!AND", lambda row: table.relation[row] != 0),
        ("!probe:p01 >0", lambda row: table.probe[row] != 1 and _standing(table, row) > 0),
    ):
        found = set(arrange(table, Sort.STRENGTH, term).tolist())
        assert found == {row for row in range(table.subset.size) if keeps(row)}, term
    strongest_now = table.effect_now[arrange(table, Sort.NOW, "")]
    assert (abs(strongest_now[:-1]) >= abs(strongest_now[1:])).all()
    by_words = arrange(table, Sort.WORDS, "")
    found_words = [(int(table.probe[row]), int(table.subset[row])) for row in by_words]
    assert found_words == sorted(found_words)


def _standing(table: object, row: int) -> float:
    effects = table.effect_base if table.change[row] == 0 else table.effect_now  # type: ignore[attr-defined]
    return float(effects[row])


def test_numbers_stay_short() -> None:
    """The columns of the new views are wide enough for what they hold."""
    for value in (0.0, -0.004, 3.14159, -99.99, 1234.5, float("nan"), float("inf")):
        assert max(len(plain(value)), len(signed(value)), len(small(value))) <= 8


async def test_a_new_reading_keeps_the_curves(run: Path) -> None:
    """Another τ: the old curves stand until the new ones are computed; nothing says computing at the end."""
    async with opened(run) as pilot:
        app = app_of(pilot)
        app.become(replace(app.state, rule=replace(app.state.rule, value=0.2)))
        await settle(pilot)
        assert "computing" not in screen_text(pilot)
        assert "τ max-step 0.2" in text_of(pilot, "#header")


# ------------------------------------------------------------------ asking the training


async def looked_again(pilot: Pilot[None]) -> None:
    """The run is looked at once more, without waiting for the timer."""
    app_of(pilot).session.look()
    await settle(pilot)


async def test_the_training_is_asked_only_where_one_listens_and_only_when_asked_twice(run: Path) -> None:
    """`S` says why not; with a training it asks after the second enter, and not after another choice in between."""
    folder = RunFolder(run)
    async with opened(run) as pilot:
        await press(pilot, "S")
        assert "no training listens" in text_of(pilot, "#footer")
        listen(folder)
        try:
            await press(pilot, "S")  # the dialog comes when it is known that a training listens
            await press(pilot, "enter", "escape")
            assert take(folder) is None
            await press(pilot, "S")
            await press(pilot, "enter", "down", "enter")
            assert take(folder) is None
            await press(pilot, "enter")
            asked = take(folder)
            assert asked is not None
            assert asked.request is Request.STOP
            assert "asked for: stop" in text_of(pilot, "#footer")
            await looked_again(pilot)
            assert "asked for: stop" in text_of(pilot, "#footer")  # it waits
            answer(folder, asked.request, 12)
            await looked_again(pilot)
            assert "the training answers: stopping at step 12" in text_of(pilot, "#footer")
            app_of(pilot).tell("")
            await looked_again(pilot)
            assert "answers" not in text_of(pilot, "#footer")  # once
        finally:
            stop_listening(folder)


async def test_a_pipe_in_place_of_what_the_explorer_reads_keeps_it_waiting_for_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`listening.json` and the user's preferences; no file is opened by the thread that draws."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "sftscope").mkdir()
    os.mkfifo(tmp_path / "sftscope" / "explorer.json")
    os.mkfifo(run / "listening.json")
    drawing, opening = threading.get_ident(), []
    monkeypatch.setattr(
        sys.modules["sftscope.store.sharing.training_requests"],
        "_read",
        lambda path: opening.append(threading.get_ident()),
    )
    try:
        async with opened(run) as pilot:
            await press(pilot, "S")
            assert "no training listens" in text_of(pilot, "#footer")
        assert opening
        assert drawing not in opening
        monkeypatch.undo()
        assert listening(RunFolder(run)) is None
    finally:
        (run / "listening.json").unlink()
