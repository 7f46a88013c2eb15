"""Whatever a reader raises becomes a line on the screen, and the explorer stays usable."""

from pathlib import Path

import pytest

from explorer_pilot import press, screen_text, settle
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import GrowingHistory
from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder
from sftscope_tui.app.actions import ExplorerApp
from sftscope_tui.contents.background import failure_of
from sftscope_tui.state.start_options import Start
from sftscope_tui.state.view_state import View

ERRORS = [
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("int too large to convert to float"),
    KeyError("\x1b]52;c;AAAA\x07"),
    MemoryError(),
    OSError(5, "Input/output error", "steps/x.h5"),
]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "run", n_steps=4, n_probes=2, n=3)


def raiser(error: Exception, calls: list[int]) -> object:
    def raises(*arguments: object, **named: object) -> object:
        calls.append(1)
        raise error

    return raises


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_run_that_cannot_be_read_is_a_notice(
    run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are listed, and the run is there as soon as it can be read."""
    app = ExplorerApp(run)
    with monkeypatch.context() as patch:
        patch.setattr(GrowingHistory, "_take", raiser(error, []))
        async with app.run_test(size=(120, 30)) as pilot:
            await settle(pilot)
            said = screen_text(pilot)
            assert "checked again automatically" in said
            assert "\x1b" not in said
            await press(pilot, "7")
            assert app.state.view is View.RUNS
            patch.undo()
            app.session.look()
            await settle(pilot)
            assert app.derived is not None
            assert len(app.state.steps) == 4


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_curves_that_cannot_be_computed_are_said_and_not_asked_for_at_every_paint(
    run: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr("sftscope.analysis.sets.views.trends", raiser(error, calls))
    monkeypatch.setattr("sftscope_tui.contents.derived.measure_sensitivity", raiser(error, calls))
    app = ExplorerApp(run, start=Start.parse(view="trends"))
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        before = len(calls)
        step = app.state.step
        await press(pilot, "left", "left", "right", "v", "T")
        assert app.state.step == step - 1
        assert len(calls) - before <= 2
        await press(pilot, "v")
        assert "cannot be computed" in screen_text(pilot)


async def test_a_step_file_that_cannot_be_read_again_is_said_in_its_view(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ExplorerApp(run)
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        monkeypatch.setattr(RunFolder, "read_step", raiser(KeyError("lengths"), []))
        await press(pilot, "8")
        assert "lengths" in screen_text(pilot)
        await press(pilot, "2")
        assert app.state.view is View.CHANGES


async def test_an_export_that_fails_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = ExplorerApp(run)
    monkeypatch.setattr("sftscope_tui.app.actions.copy_file", raiser(RecursionError("deep"), []))
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        await app.run_action("copy('view')")
        await settle(pilot)
        assert "RecursionError: deep" in screen_text(pilot)


async def test_runs_whose_headline_cannot_be_computed_are_listed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = ExplorerApp(run)
    monkeypatch.setattr("sftscope_tui.contents.open_run.load_history", raiser(OverflowError("too large"), []))
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        await press(pilot, "7")
        assert "OverflowError: too large" in screen_text(pilot)


def test_a_failure_is_one_line_that_says_what_happened() -> None:
    assert failure_of(SftscopeError("f: damaged")) == "f: damaged"
    assert failure_of(OSError(5, "Input/output error", "f")) == "f: Input/output error"
    assert failure_of(MemoryError()) == "not enough memory for this"
    assert failure_of(KeyError("x")) == "not to be read or computed: KeyError: 'x'"
