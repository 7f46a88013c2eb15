"""Reading a run while it grows, one masked state, two runs side by side, and views as sheets."""

import csv
import io
import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sample_history import write_sample_run
from sftscope.analysis.comparison.baseline_llm import shared_probes, shared_signs
from sftscope.analysis.comparison.run_pairs import SIDES, Side, compare_steps, jaccard_over_steps, linked_step
from sftscope.analysis.run.read_run import GrowingHistory, load_history
from sftscope.analysis.run.run_history import HistoryTable, RunHistory
from sftscope.analysis.sets import views
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.one_masked_state import is_triggered, masked_state, matching
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import triggers
from sftscope.lattice.transforms import Relation, all_subsets, logical_model
from sftscope.reporting.sheets import FORMATS, SHEETS, Sheet, plain_text, sheet_csv, view_sheet
from sftscope.store import RunFolder, StepRecord
from sftscope.store.sharing.writer_progress import DEAD_AFTER, writer_progress


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=10)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


def read_all(growing: GrowingHistory) -> RunHistory | None:
    """The last history that pending files give."""
    newest = None
    while growing.pending:
        newest = growing.read(0) or newest
    return newest


# ------------------------------------------------------------------ a run that grows


def test_reading_in_slices_gives_the_run(run: Path) -> None:
    """File by file or at once: the same steps, scores, effects and losses."""
    growing = GrowingHistory(run)
    assert growing.look()
    found, whole = read_all(growing), load_history(run)
    assert found is not None
    assert found.steps.tolist() == whole.steps.tolist()
    for part, other in zip(found.probes, whole.probes, strict=True):
        assert np.array_equal(part.scores, other.scores)
        assert np.array_equal(part.effects, other.effects)
        assert np.array_equal(part.noise, other.noise)
    assert np.array_equal(found.losses["eval"], whole.losses["eval"])
    assert not growing.look()


def test_a_long_run_is_seen_whole_before_it_is_read(tmp_path: Path) -> None:
    """The first history holds a few steps, from the first to the last; the next one all of them."""
    growing = GrowingHistory(write_sample_run(tmp_path / "long", n_steps=60, n_probes=1, n=2))
    growing.look()
    early = growing.read(60)
    assert early is not None
    assert early.steps.size < 60
    assert growing.pending == 60
    later = read_all(growing)
    assert later is not None
    assert later.steps.size == 60
    assert {early.steps[0], early.steps[-1]} == {later.steps[0], later.steps[-1]}


def test_a_damaged_file_is_named_and_tried_again_when_it_changed(tmp_path: Path) -> None:
    """Half a file is left out; whole, it is part of the run; deleted, it is named as deleted."""
    path = write_sample_run(tmp_path / "run", n_steps=5, n_probes=1)
    file = RunFolder(path).step_file(5)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    growing = GrowingHistory(path)
    growing.look()
    first = read_all(growing)
    assert first is not None
    assert 5 not in first.steps
    assert "step_00000005.h5" in first.left_out[0]
    file.write_bytes(whole)
    assert growing.look()
    second = read_all(growing)
    assert second is not None
    assert 5 in second.steps
    assert second.left_out == ()
    file.unlink()
    assert growing.look()
    third = read_all(growing)
    assert third is not None
    assert third.left_out == ("step_00000005.h5: was deleted while the run was open",)


def test_a_run_without_steps_says_so(tmp_path: Path) -> None:
    """Nothing extracted, or nothing that can be read: one sentence; later steps are found."""
    path = write_sample_run(tmp_path / "run", n_steps=3, n_probes=1)
    kept = tmp_path / "kept"
    shutil.move(RunFolder(path).steps_folder, kept)
    growing = GrowingHistory(path)
    assert growing.look()
    with pytest.raises(SftscopeError, match="no extracted steps yet"):
        growing.read(0)
    shutil.copytree(kept, RunFolder(path).steps_folder)
    growing.look()
    found = read_all(growing)
    assert found is not None
    assert found.steps.size == 3


def test_the_writer_is_presumed_dead_after_a_silence(tmp_path: Path) -> None:
    """Checkpoints that are not extracted, and no file that changed: said; with nothing left to do, not."""
    path = write_sample_run(tmp_path / "run", n_steps=3, n_probes=1)
    folder = RunFolder(path)
    assert writer_progress(folder).is_complete
    assert writer_progress(folder).sentence == ""
    rows = [{"step": step, "kind": "checkpoint", "train": 1.0} for step in (0, 1, 2, 3)]
    folder.training_log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    now = folder.training_log.stat().st_mtime
    alive, dead = writer_progress(folder, now + 10), writer_progress(folder, now + DEAD_AFTER + 60)
    assert (alive.trained, alive.extracted, alive.checkpoints) == (3, 3, 4)
    assert "3 of 4 checkpoints extracted" in alive.sentence
    assert "dead" not in alive.sentence
    assert "presumed dead" in dead.sentence


# ------------------------------------------------------------------ one masked state


def test_masked_states_are_those_of_the_logical_model(evolution: Evolution) -> None:
    """h at every subset by one sum is h by the transform; v is the stored score; the bound holds."""
    part = evolution.history.probes[0]
    now = 6
    effects, omega = part.effects[now], evolution.encoded[0][now]
    everything = logical_model(part.bias[now], effects[0], effects[1])
    encoded = logical_model(part.bias[now], *np.where(omega, effects, 0.0))
    for subset in range(1 << part.n_variables):
        state = masked_state(evolution, 0, now, subset)
        assert state.model == pytest.approx(everything[subset], abs=1e-9)
        assert state.model_encoded == pytest.approx(encoded[subset], abs=1e-9)
        assert state.score == part.scores[now, subset]
        assert abs(state.model - state.score) <= state.zeta
        assert state.probability == pytest.approx(1 / (1 + np.exp(-state.score)))
    with pytest.raises(ValueError, match="expected a subset"):
        masked_state(evolution, 0, now, 1 << part.n_variables)


def test_triggering_is_subset_and_intersection() -> None:
    """AND where all words are there, OR where any is; the empty set never."""
    states, sets = all_subsets(3), all_subsets(3)[1:]
    by_and, by_or = (triggers(states, np.full(sets.size, relation), sets) for relation in Relation)
    for subset in range(8):
        for interaction in range(1, 8):
            words, there = {i for i in range(3) if interaction >> i & 1}, {i for i in range(3) if subset >> i & 1}
            every, some = by_and[subset, interaction - 1], by_or[subset, interaction - 1]
            assert every == (words <= there) == is_triggered(Relation.AND, interaction, subset)
            assert some == bool(words & there) == is_triggered(Relation.OR, interaction, subset)


def test_matching_error_is_that_of_the_trends(evolution: Evolution) -> None:
    """The mean over probes of the probes' own errors is what Trends shows."""
    expected = views.trends(evolution, Selection(0))
    found = [matching(evolution, p, 4) for p in range(len(evolution.history.probes))]
    assert np.mean([each.all for each in found]) == pytest.approx(expected.matching_error_all[4])
    assert np.mean([each.encoded for each in found]) == pytest.approx(expected.matching_error_encoded[4])


# ------------------------------------------------------------------ two runs


def test_two_runs_are_compared_as_sets(tmp_path: Path, evolution: Evolution) -> None:
    """Counts, Jaccard, signs and effects are those of Python's sets."""
    other = Evolution(load_history(write_sample_run(tmp_path / "other", n_steps=8, seed=1)))
    pairs = shared_probes(evolution.history, other.history)
    assert pairs == [(index, index) for index in range(4)]
    diff = compare_steps(evolution, 5, other, 3, pairs)

    def members(which: Evolution, now: int) -> dict[tuple[int, int, int], float]:
        return {
            (p, int(relation), int(subset)): float(which.history.probes[p].effects[now, relation, subset])
            for p in range(4)
            for relation, subset in np.argwhere(which.encoded[p][now])
        }

    ours, theirs = members(evolution, 5), members(other, 3)
    both = ours.keys() & theirs.keys()
    assert diff.counts == {
        Side.HERE: len(ours.keys() - theirs.keys()),
        Side.BOTH: len(both),
        Side.THERE: len(theirs.keys() - ours.keys()),
    }
    assert diff.jaccard == pytest.approx(len(both) / len(ours.keys() | theirs.keys()))
    assert diff.same_sign == pytest.approx(np.mean([ours[key] * theirs[key] > 0 for key in both]))
    for at in range(diff.side.size):
        key = (int(diff.probe[at]), int(diff.relation[at]), int(diff.subset[at]))
        side = SIDES[int(diff.side[at])]
        assert (key in ours, key in theirs) == (side is not Side.THERE, side is not Side.HERE)
        assert key not in ours or diff.effect[at] == ours[key]
    strongest = np.maximum(np.abs(diff.effect), np.abs(diff.other_effect))
    assert np.all(np.diff(strongest) <= 0)


def test_a_run_beside_itself_is_the_same(evolution: Evolution) -> None:
    """Jaccard 1 at every step; runs without a common probe give an empty comparison."""
    pairs = shared_probes(evolution.history, evolution.history)
    assert jaccard_over_steps(evolution, evolution, pairs) == [1.0] * evolution.history.steps.size
    none = compare_steps(evolution, 0, evolution, 0, [])
    assert np.isnan(none.jaccard)
    assert none.side.size == 0


def test_linked_step_is_the_nearest() -> None:
    """Of two equally near steps the earlier."""
    steps = np.array([0, 4, 8])
    assert [linked_step(steps, number) for number in (0, 1, 2, 3, 6, 7, 100)] == [0, 0, 0, 1, 1, 2, 2]


# ------------------------------------------------------------------ sheets


def test_sheets_hold_the_numbers_of_the_views(run: Path, evolution: Evolution) -> None:
    """Changes and trends: the rows of the view; raw: every masked state; every form reads back."""
    selection = Selection(6)
    expected = views.changes(evolution, selection)
    sheet = view_sheet(evolution, selection, "changes")
    assert [row[5:7] for row in sheet.rows] == [(row.effect_base, row.effect_now) for row in expected.rows]
    kept = [(row.probe, row.relation, row.subset) for row in expected.rows if row.change is Change.EMERGED][::-1]
    chosen = view_sheet(evolution, selection, "changes", keep=kept)
    assert [row[4] for row in chosen.rows] == [
        " · ".join(row.words) for row in expected.rows[::-1] if row.change is Change.EMERGED
    ]
    record = RunFolder(run).read_step(int(evolution.history.steps[6]))
    raw = view_sheet(evolution, selection, "raw", record=record)
    assert [row[2] for row in raw.rows] == record.scores.tolist()
    for view in SHEETS:
        made = view_sheet(evolution, selection, view, record=record)
        assert len(list(csv.reader(io.StringIO(sheet_csv(made))))) == len(made.rows) + 1
        assert len(json.loads(FORMATS["json"](made))["rows"]) == len(made.rows)
        assert made.title.split(":")[0].split()[0] in FORMATS["txt"](made)
    with pytest.raises(SftscopeError, match="unknown view"):
        view_sheet(evolution, selection, "nothing")


def test_csv_cells_are_no_formulas() -> None:
    """Text that a spreadsheet would compute gets an apostrophe; numbers keep their sign and all digits."""
    sheet = Sheet("t", ("a", "b"), [("=cmd()", -0.1), ("@x", 1 / 3), ("+1", float("nan")), ("-2", 5)])
    rows = list(csv.reader(io.StringIO(sheet_csv(sheet))))[1:]
    assert [row[0] for row in rows] == ["'=cmd()", "'@x", "'+1", "'-2"]
    assert [row[1] for row in rows] == ["-0.1", repr(1 / 3), "", "5"]
    assert '"a;=cmd()",1' in sheet_csv(Sheet("t", ("a", "b"), [("a;=cmd()", 1)]))  # a spreadsheet splits there


def test_plain_text_names_every_value(run: Path, evolution: Evolution) -> None:
    """All views, no control character, no aligned columns."""
    record = RunFolder(run).read_step(int(evolution.history.steps[6]))
    text = plain_text(evolution, Selection(6), record=record)
    for word in ("Trends", "Changes", "Orders", "Backbone", "Probe p00", "step file of step"):
        assert word in text
    assert "; removed count " in text
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "  " not in text.replace("\n\n", "\n")


def test_hostile_words_pass_no_sheet(tmp_path: Path) -> None:
    """Escape sequences and line breaks in words, ids and names stay text in every form."""
    words = ("\x1b]52;c;AAAA\x07", "=1+1", "\u202eevil", "a\nb", "[/]")
    path = write_sample_run(tmp_path / "hostile", words=words, n=5, n_steps=4, n_probes=1)
    evolution = Evolution(load_history(path), ThresholdRule("absolute", 0.0))
    rng = random.Random(0)
    for view in ("changes", "probe"):
        sheet = view_sheet(evolution, Selection(rng.randrange(4)), view)
        for form in FORMATS.values():
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", form(sheet))


def test_probes_of_two_runs_go_by_content_and_among_equals_by_id(evolution: Evolution) -> None:
    """Another id does not matter, another text does; a probe that is there twice meets its namesake."""
    history = evolution.history
    renamed = [replace(part, probe=replace(part.probe, id=f"x{index}")) for index, part in enumerate(history.probes)]
    renamed[1] = replace(renamed[1], probe=replace(renamed[1].probe, instruction="else"))
    other = replace(history, probes=tuple(renamed))
    assert shared_probes(history, other) == [(0, 0), (2, 2), (3, 3)]
    twice = [replace(history.probes[0], probe=replace(history.probes[0].probe, id=name)) for name in ("a", "b")]
    pair = replace(history, probes=tuple(twice))
    assert shared_probes(pair, replace(pair, probes=tuple(twice[::-1]))) == [(0, 1), (1, 0)]
    signs = shared_signs(history, Evolution(other))
    assert [part is None for part in signs] == [False, True, False, False]


def test_a_history_holds_what_the_files_do(tmp_path: Path) -> None:
    """Every effect of every step, where the steps differ much in how many there are."""
    path = write_sample_run(tmp_path / "run", n_steps=9, n_probes=3, n=[2, 5, 4])
    history, folder = load_history(path), RunFolder(path)
    for now, step in enumerate(history.steps.tolist()):
        record = folder.read_step(step)
        assert record.effects is not None
        for index, part in enumerate(history.probes):
            where = record.probe_slice(index)
            both = [record.effects.and_effects[where], record.effects.or_effects[where]]
            assert np.array_equal(part.table.at(now), both)
            assert np.array_equal(part.scores[now], record.scores[where])


def test_a_step_at_other_masked_states_is_left_out_and_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is read a little at a time: it is never just missing."""
    put, third = HistoryTable.put, RunFolder(run).steps()[2]

    def refusing(table: HistoryTable, row: int, record: StepRecord) -> None:
        if record.step == third:
            raise SftscopeError(f"step {third}: was made at other masked states than the steps before it")
        put(table, row, record)

    monkeypatch.setattr(HistoryTable, "put", refusing)
    growing = GrowingHistory(run)
    growing.look()
    for history in (load_history(run), read_all(growing)):
        assert history is not None
        assert third not in history.steps
        assert [f"step {third}: was made" in why for why in history.left_out] == [True]


def test_a_command_that_is_advised_is_safe_to_paste(tmp_path: Path) -> None:
    """Whoever made the folder chose its name."""
    run = RunFolder(write_sample_run(tmp_path / "r;touch PWNED;#", n_steps=1, n_probes=1))
    for step in run.steps():
        run.step_file(step).unlink()
    with pytest.raises(SftscopeError, match=r"run: sftscope extract '.*r;touch PWNED;#'"):
        load_history(run.path)
