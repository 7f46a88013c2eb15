"""What leaves: nothing that moves a cursor, reorders a line or hides in it, whatever a run and its names hold.

Every command in every form, on a run that has such text in every string of every file, in the names of its files and
in its own path; then what is typed wrongly. A new way out that lets something through fails here.
"""

import io
import json
import os
import random
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hostile_run import EVIL, hostile_text, write_hostile_checkpoint, write_hostile_files, write_hostile_run
from sftscope.analysis.comparison.baseline_llm import shared_probes
from sftscope.analysis.comparison.run_pairs import compare_steps
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection
from sftscope.foundation import output
from sftscope.foundation.progress import progress, say
from sftscope.reporting.sheets import FORMATS, SHEETS, Sheet, compare_sheet, sheet_lines, view_sheet
from sftscope.store import RunFolder
from sftscope_tui import cli

ESCAPE = "\x1b]52;c;SFhR\x07\u202e\x9b2J"
Command = Callable[..., tuple[int, str, str]]


def unsafe_in(text: str) -> set[str]:
    """The characters that must not leave; by Unicode's own categories, not by what `safe_text` makes of them."""
    hidden = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u034f", "\ufe0f", "\u200b"}
    bad = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return {c for c in set(text) if c != "\n" and (c in hidden or unicodedata.category(c) in bad)}


def assert_safe(text: str, what: str) -> None:
    found = unsafe_in(text)
    lines = [line for line in text.split("\n") if unsafe_in(line)]
    assert not found, f"{what}: {sorted(found)!r} in {lines[:3]!r}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("hostile")
    path = write_hostile_run(folder / f"a{''.join(EVIL).replace('/', '')}", rng, n_probes=3, n=4)
    write_hostile_files(path, rng)
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command(*words)` is (exit code, stdout, stderr), both checked; an error is one line."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back after the test
    monkeypatch.setattr(cli, "set_thread_defaults", lambda _: None)
    monkeypatch.setattr("sftscope.cli.options._QUIET", {})
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sftscope", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        assert_safe(shown.out, f"stdout of {words[0]!r}")
        assert_safe(shown.err, f"stderr of {words[0]!r}")
        errors = [line for line in shown.err.splitlines() if line.startswith("sftscope: ")]
        assert len(errors) == (left.value.code == 1), shown.err
        return int(left.value.code or 0), shown.out, shown.err

    return call


def test_the_run_is_hostile(run: Path) -> None:
    """It is read, so that what it holds can leave: in the path, the probes, the workers and the provenance."""
    history = load_history(run)
    assert unsafe_in(str(run)) >= {"\x1b", "\x07", "\u202e", "\u200b", "\x7f"}
    assert unsafe_in(history.probes[0].probe.id)
    assert unsafe_in(json.dumps(history.run, ensure_ascii=False))
    assert unsafe_in("".join(history.run))
    record = RunFolder(run).read_step(int(history.steps[0]))
    assert unsafe_in("".join(record.provenance))
    assert history.left_out


@pytest.mark.parametrize("view", ["all", "trends", "changes", "orders", "backbone"])
def test_show(run: Path, command: Command, view: str) -> None:
    code, out, _ = command("show", run, "--view", view)
    assert code == 0
    assert "HXQ" in out


@pytest.mark.parametrize("view", ["all", *SHEETS])
def test_show_plain(run: Path, command: Command, view: str) -> None:
    assert command("show", run, "--plain", "--view", view)[0] == 0


def test_show_as_json_holds_the_text(run: Path, command: Command) -> None:
    code, out, _ = command("show", run, "--json")
    assert code == 0
    assert out.isascii()
    ids = [part.probe.id for part in load_history(run).probes]
    assert json.loads(out)["probes"] == ids


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("name", ["status", "verify"])
def test_status_and_verify(run: Path, command: Command, name: str, form: tuple[str, ...]) -> None:
    code, out, _ = command(name, run, *form)
    assert code == (name == "verify")
    assert "HXQ" in out
    if form:
        json.loads(out)


def test_verdict_and_watch(run: Path, command: Command) -> None:
    for words in (("verdict", run), ("verdict", run, "--json"), ("watch", run, "--idle", "0", "--every", "0.1")):
        code, out, _ = command(*words)
        assert (code, bool(out)) == (0, True)


def test_compare(run: Path, command: Command) -> None:
    twin = run.with_name(f"b{ESCAPE}")
    shutil.copytree(run, twin, dirs_exist_ok=True)
    for form in ((), ("--json",)):
        code, out, _ = command("compare", run, twin, *form)
        assert code == 0
        assert "HXQ" in out or not form
    assert command("compare", run, run.with_name(ESCAPE))[0] == 1


def test_report(run: Path, command: Command, tmp_path: Path) -> None:
    """Every file of it: Markdown, JSON, CSV, HTML with its figures; its folder is named like an escape sequence."""
    pytest.importorskip("matplotlib")
    out = tmp_path / ESCAPE
    code, said, _ = command("report", run, "--out", out, "--format", "md,json,csv,html,shapiq")
    assert code == 0
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len([file for file in files if file.name != "made_by_sftscope.json"]) == len(said.splitlines()) > 6
    for file in files:
        assert_safe(file.read_text(encoding="utf-8"), file.name)
    assert "HXQ" in (out / "report.md").read_text(encoding="utf-8")
    assert json.loads((out / "report.json").read_text())["provenance"]["device"] == load_history(run).run["device"]


def test_sheets_that_the_explorer_exports(run: Path) -> None:
    evolution = Evolution(load_history(run))
    last = evolution.history.steps.size - 1
    record = RunFolder(run).read_step(int(evolution.history.steps[last]))
    pairs = shared_probes(evolution.history, evolution.history)
    diff = compare_steps(evolution, last, evolution, 0, pairs)
    sheets = [view_sheet(evolution, Selection(last), name, record=record) for name in SHEETS]
    sheets += [compare_sheet(evolution, diff, ESCAPE), Sheet(ESCAPE, (ESCAPE,), [(ESCAPE,)], (ESCAPE,))]
    for sheet in sheets:
        for name, form in {**FORMATS, "plain": sheet_lines}.items():
            assert_safe(form(sheet), f"{sheet.title!r} as {name}")


def test_a_name_of_a_loss_is_no_way_out(run: Path, command: Command, tmp_path: Path) -> None:
    """A step file that calls a loss by an escape sequence is left out and named."""
    from step_records import META, step_with

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "steps" / "step_00000008.h5").write_bytes(step_with({**META, "losses": {ESCAPE: 1.0}}))
    code, out, _ = command("show", copy)
    assert code == 0
    assert "step_00000008.h5: meta: expected losses as numbers by name" in out


@pytest.mark.parametrize(
    "words",
    [
        ("show", ESCAPE),
        ("show", "RUN", "--step", ESCAPE),
        ("show", "RUN", "--view", ESCAPE),
        ("show", "RUN", "--probe", ESCAPE),
        ("show", "RUN", "--tau", ESCAPE),
        ("show", "RUN", f"--{ESCAPE}"),
        (ESCAPE,),
        ("report", "RUN", "--out", "OUT", "--format", ESCAPE),
        ("explore", ESCAPE),
        ("explore", "RUN", "--step", ESCAPE),
        ("status", ESCAPE, "--json"),
        ("verify", ESCAPE),
        ("verdict", ESCAPE),
        ("verdict", "RUN", "--fail-on", ESCAPE),
        ("watch", "RUN", "--on-verdict", ESCAPE),
        ("decompose", ESCAPE),
        ("decompose", "RUN", "--zeta", ESCAPE),
        ("extract", "RUN", "--steps", ESCAPE),
        ("extract", "RUN", "--cluster", ESCAPE),
        ("extract", "RUN", "--shard", ESCAPE),
        ("bench", "--words", ESCAPE),
        ("run", ESCAPE, "--out", ESCAPE),
        ("plan", ESCAPE),
        ("inspect", ESCAPE),
    ],
)
def test_what_is_typed_wrongly(run: Path, command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Also in the words of the command line's own library, which repeats a bad value as it is."""
    names = {"RUN": run, "OUT": tmp_path / "out"}
    code, out, err = command(*(names.get(word, word) for word in words))
    assert code in (1, 2)
    assert not out
    assert err


@pytest.mark.campaign
def test_commands_that_open_a_run_to_work_on_it(run: Path, command: Command) -> None:
    """Its settings are hostile: one line."""
    for name in ("plan", "extract", "verify"):
        assert command(name, run, *(("--repair",) if name == "verify" else ()))[0] == 1


def test_configs(command: Command, tmp_path: Path) -> None:
    """Tables, fields and values of a config file."""
    for text in (
        f"[{json.dumps(ESCAPE)}]\n",
        f"[model]\n{json.dumps(ESCAPE)} = 1\n",
        f"[model]\npath = {json.dumps(ESCAPE)}\n[data]\ntrain = {json.dumps(ESCAPE)}\n",
        f"[model]\npath = 'a'\ndevice = {json.dumps(ESCAPE)}\n",
        f"a = {ESCAPE}\n",
    ):
        (tmp_path / f"c{ESCAPE}.toml").write_text(text)
        for name in ("plan", "inspect"):
            assert command(name, tmp_path / f"c{ESCAPE}.toml")[0] == 1


@pytest.mark.parametrize("eval_set", ["", ESCAPE])
def test_attach(command: Command, tmp_path: Path, eval_set: str) -> None:
    source = tmp_path / f"out{ESCAPE}"
    write_hostile_checkpoint(source / "checkpoint-4", lambda: hostile_text(random.Random(1)))
    words = ("attach", source, "--model", ESCAPE, "--probes", ESCAPE, "--out", tmp_path / ESCAPE)
    assert command(*words, "--eval-set", eval_set)[0] == 1


def test_inspect(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows, probes, and the tokens of a tokenizer."""
    from run_configs import write_config

    config = write_config(tmp_path)
    word = "\x1b[2J\u202e"
    tokenizer = tmp_path / "toy" / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[word] = vocabulary.pop("calm", None) or vocabulary.pop(next(reversed(vocabulary)))
    tokenizer.write_text(json.dumps(content))
    text = f"{word} a b c d"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": text, "output": word}))
    (tmp_path / "probes.jsonl").write_text(json.dumps({"id": word, "instruction": text, "response": f"sad {word}"}))
    capsys.readouterr()
    for form in ((), ("--json",)):
        assert command("inspect", config, *form)[0] == 0


def test_decompose(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / f"{ESCAPE}.npy", np.arange(4.0))
    for form in ((), ("--json",)):
        assert command("decompose", tmp_path / f"{ESCAPE}.npy", *form)[0] == 0
    np.savez(tmp_path / "a.npz", **{ESCAPE: np.arange(4.0)})
    assert command("decompose", tmp_path / "a.npz")[0] == 1


def test_an_error_of_the_program_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Its traceback is kept, and what a file put into it does nothing."""
    try:
        raise ValueError(f"invalid literal: {ESCAPE}")
    except ValueError as error:
        output.put_traceback(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert_safe(shown, "traceback")
    assert "Traceback" in shown
    assert "test_gate.py" in shown


def test_names_that_are_no_unicode(command: Command, tmp_path: Path) -> None:
    """A file system may hold any bytes: printing them must not fail either."""
    name = os.fsdecode(b"r\xff\x1b")
    (tmp_path / name).mkdir()
    assert command("show", tmp_path / name)[0] == 1


def test_what_is_said_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    say(ESCAPE)
    with progress(ESCAPE) as report:
        report(1, 2, ESCAPE)
        report(2, 2, ESCAPE)
    output.put(ESCAPE)
    output.put_error(ESCAPE)
    output.put_usage(ESCAPE)
    shown = capsys.readouterr()
    assert_safe(shown.out + shown.err, "diagnostics")


def test_lists_of_runs(run: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """`explore` without a terminal and without a run."""
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, out, _ = command("explore")
    assert code == 0
    assert "sftscope explore" in out


@pytest.mark.campaign
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"step": 1, "loss": ' + b"1" * 400 + b"}",
        b'{"step": 1e999, "taken": 1, "log_history": 5}',
        b"1",
    ],
    ids=["brackets", "digits", "kinds", "number"],
)
def test_damaged_files_end_no_command(run: Path, command: Command, tmp_path: Path, content: bytes) -> None:
    """Exit code 0 or 1 and one line, never a traceback: each file that a run needs, and all others at once."""
    last = RunFolder(run).steps()[-1]
    others = ("precision.json", "training_log.jsonl", "headlines.jsonl", "listening.json", f"steps/step_{last:08d}.h5")
    checkpoint = ("trainer_state.json", "adapter_model.safetensors", "adapter_config.json")
    all_others = (*others, *(f"checkpoints/checkpoint-4/{name}" for name in checkpoint))
    for number, names in enumerate((all_others, ("run.toml",), ("probes.jsonl",))):
        copy = tmp_path / str(number)
        shutil.copytree(run, copy)
        for name in names:
            (copy / name).write_bytes(content)
        for words in (("status", copy), ("verify", copy), ("show", copy), ("compare", copy, run), ("plan", copy)):
            assert command(*words)[0] in (0, 1), (names, words[0])
        assert command("report", copy, "--out", copy / "report", "--format", "md,json,csv")[0] in (0, 1)
