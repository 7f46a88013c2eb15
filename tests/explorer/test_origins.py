"""The key K: the training rows behind the row under the cursor, and what one of them carries."""

import json
from pathlib import Path

import pytest

from explorer_pilot import app_of, opened, press, screen_text
from sample_history import write_sample_run
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import carried_by
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, changes
from sftscope.training.data.shapes import Row
from sftscope_tui.contents.change_table import build_table
from sftscope_tui.contents.row_tracing import Origins, RowTracing, trace_job
from sftscope_tui.dialogs.origins import OriginsDialog

WORDS = ("salt", "river", "moon")
TEXTS = [
    "salt and the moon",
    "salt of the river, the moon",
    "\x1b[2J\u202esalt, a river \N{ZERO WIDTH SPACE}and the moon",
]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "run", n_steps=4, n_probes=2, n=3, words=WORDS)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    answers = ("good", "bad", "bad")
    rows = ({"instruction": "q", "input": text, "output": answer} for text, answer in zip(TEXTS, answers, strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_the_rows_open_and_one_of_them_shows_what_it_carries(run: Path, train: Path) -> None:
    async with opened(run, train=str(train), filter="AND salt moon order:2", size=(100, 40)) as pilot:
        await press(pilot, "end", "2", "K")
        text = screen_text(pilot)
        assert "3 of 3 training rows have all of these words" in text
        assert "2 of them answer 'bad' (by chance 2" in text
        places = [text.index(f"row {number} ") for number in (2, 3, 1)]
        assert places == sorted(places)  # those with the probe's answer first
        assert "\x1b" not in text
        assert "\u202e" not in text
        await press(pilot, "j", "j", "j", "enter")
        text = screen_text(pilot)
        assert "training row 1 " in text
        assert "newly emerged interactions, step 0" in text
        await press(pilot, "escape", "K")
        assert not isinstance(app_of(pilot).screen, OriginsDialog)


async def test_rows_that_are_not_known_are_one_line_and_a_late_answer_opens_nothing(run: Path, train: Path) -> None:
    async with opened(run) as pilot:
        await press(pilot, "end", "2", "K")
        assert "does not say which training rows it had; name them with --train" in screen_text(pilot)
        scene = app_of(pilot).scene()
        assert scene is not None
        job = trace_job(run, scene.derived, scene.reading, scene.state)
        assert job is not None
        table = scene.derived.table(scene.reading, scene.state)
        found = RowTracing(run, str(train)).behind(table, job.identity)
        await press(pilot, "j")
        app_of(pilot).show_origins(job, found)
        assert not isinstance(app_of(pilot).screen, OriginsDialog)
        await press(pilot, "k")
        app_of(pilot).show_origins(job, found)
        assert isinstance(app_of(pilot).screen, OriginsDialog)


def test_what_a_row_carries_is_what_the_command_says(run: Path, train: Path) -> None:
    evolution, selection = Evolution(load_history(run)), Selection(3)
    table = build_table(evolution, selection)
    index = RowIndex.of([Row("q", text, "bad") for text in TEXTS])
    rows = carried_by(index, 0, changes(evolution, selection).rows)
    expected = {(row.probe, row.relation, row.subset) for row in rows}
    found = RowTracing(run, str(train)).behind(table, (0, 0, 1))
    assert isinstance(found, Origins)
    carries = next(origin.carries for origin in found.rows if origin.number == 1).tolist()
    strengths = [abs(float(table.effect_now[at])) for at in carries]
    assert strengths == sorted(strengths, reverse=True)
    named = ((table.probes[p].probe.id, ("AND", "OR")[r], s) for p, r, s in map(table.identity, carries))
    assert set(named) == expected
    assert expected
