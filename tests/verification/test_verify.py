"""sftscope verify: what is damaged is named, with what to do; --repair brings back the same bytes; readers go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import sftscope
from damage import damage_scores, flip
from sftscope.analysis.run.read_run import load_history
from sftscope.reporting.forms import write_report
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.store.steps.step_file import USER_BLOCK, to_bytes
from sftscope.verification.repair import repair
from sftscope.verification.verify import verify

SAMPLE = Path(__file__).parents[2] / "sample_runs" / "gemma3"


@pytest.fixture(scope="module")
def made(toy_run) -> tuple[Path, RunFolder]:
    """(config, folder) of a run of our own with everything a run can have: checkpoints and a placebo too."""
    config, run = toy_run(extracted=True)
    pipeline.placebo(run)
    return config, RunFolder(run)


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    """A copy to be damaged, beside its config as the original is."""
    shutil.copytree(made[0].parent, tmp_path / "copy")
    return RunFolder(tmp_path / "copy" / "run")


@pytest.mark.parametrize("path", [SAMPLE], ids=lambda path: path.name)
def test_a_run_that_ships_is_whole(path: Path) -> None:
    found = verify(path)
    assert not found.findings
    assert found.whole == sum(file.is_file() for file in path.rglob("*"))


def test_a_run_of_ours_is_whole(made) -> None:
    found = verify(made[1].path)
    assert not found.findings
    assert not found.repairable


def rewrite_step(run: RunFolder, **change) -> None:
    run.write_step(replace(run.read_step(2), **change))


def other_effects(run: RunFolder) -> None:
    record = run.read_step(2)
    effects = record.effects.and_effects.copy()
    effects[3] += 0.5
    rewrite_step(run, effects=replace(record.effects, and_effects=effects))


def other_zeta(run: RunFolder) -> None:
    record = run.read_step(2)
    rewrite_step(run, effects=replace(record.effects, zeta=record.effects.zeta * 1.5))


def large_gap(run: RunFolder) -> None:
    record = run.read_step(2)
    rewrite_step(run, effects=replace(record.effects, gap=record.effects.gap + 0.1))


def edit(name: str, old: str, new: str):
    def change(run: RunFolder) -> None:
        file = run.path / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    return change


STEP = "steps/step_00000002.h5"
# what is done to a run, the file that is named, what is said of it
DAMAGES = {
    "cut step": (lambda run: run.step_file(2).write_bytes(run.step_file(2).read_bytes()[:-9]), STEP, "hash"),
    "empty step": (lambda run: run.step_file(2).write_bytes(b""), STEP, "not a step file"),
    "step that is another file": (lambda run: run.step_file(2).write_bytes(b"GIF89a" * 500), STEP, "not a step file"),
    "step of another number": (lambda run: shutil.copy(run.step_file(4), run.step_file(2)), STEP, "results of step 2"),
    "step of another run": (
        lambda run: rewrite_step(run, provenance={**run.read_step(2).provenance, "identity": "ab" * 32}),
        STEP,
        "belongs to another run",
    ),
    "step with other probes": (
        lambda run: run.step_file(2).write_bytes(to_bytes(_without_last_probe(run))),
        STEP,
        "not the probes of this run",
    ),
    "step with another target": (
        lambda run: rewrite_step(run, target=run.read_step(2).target + 1),
        STEP,
        "another target token",
    ),
    "effects that are not those of the scores": (other_effects, STEP, "miss its scores by 0.4"),
    "another ζ": (other_zeta, STEP, "ζ is not that of step 0"),
    "uncertified": (large_gap, STEP, "gap 1.0e-01 is above the tolerance"),
    "newer step": (
        lambda run: run.step_file(2).write_bytes(
            run.step_file(2).read_bytes().replace(b"sftscope-step 1", b"sftscope-step 7", 1)
        ),
        STEP,
        "version 7 is newer than the 2",
    ),
    "damaged placebo": (lambda run: flip(run.placebo_file(6), -30), "placebo/step_00000006.h5", "hash"),
    "changed setting": (edit("run.toml", "learning_rate = 0.01", "learning_rate = 0.02"), "run.toml", "changed"),
    "cut run.toml": (lambda run: run.run_file.write_text("format = "), "run.toml", "not valid TOML"),
    "newer run": (edit("run.toml", "format = 1", "format = 2"), "run.toml", "run format 2, made by sftscope 0."),
    "changed word": (edit("probes.jsonl", "glad", "good"), "probes.jsonl", "not those that run.toml names"),
    "cut probes": (lambda run: run.probes_file.write_bytes(b'{"id": '), "probes.jsonl", "not valid JSON"),
    "no probes": (lambda run: run.probes_file.unlink(), "probes.jsonl", "no such file"),
    "changed baseline vector": (lambda run: flip(run.baseline_file, -1), "baseline_vector.npy", "sha256"),
    "cut baseline vector": (lambda run: run.baseline_file.write_bytes(b"\x93NUMPY"), "baseline_vector.npy", "npy"),
    "precision is no JSON": (lambda run: run.precision_file.write_text("{"), "precision.json", "cannot be read"),
    "changed loss": (edit("training_log.jsonl", '"train": ', '"train": 1'), "training_log.jsonl", "train loss 1"),
    "changed loss of a row": (
        edit("held_out.jsonl", '"loss":[', '"loss":[1'),
        "held_out.jsonl",
        "step 0: its rows have an eval loss of",
    ),
    "no tokens of a row": (edit("held_out.jsonl", '"tokens":[2', '"tokens":[0'), "held_out.jsonl", "1 or more"),
    "changed adapter": (
        lambda run: flip(run.checkpoints / "checkpoint-2" / "adapter_model.safetensors", -1),
        "checkpoints/checkpoint-2",
        "not the one that step 2 was extracted from",
    ),
    "cut adapter": (
        lambda run: (run.checkpoints / "checkpoint-2" / "adapter_model.safetensors").write_bytes(b"\x10"),
        "checkpoints/checkpoint-2",
        "not written to its end",
    ),
    "damaged draft": (lambda run: run.draft_file(4).write_bytes(b"x"), "steps/step_00000004.scores.h5", "not a step"),
}


def _without_last_probe(run: RunFolder):
    record = run.read_step(2)
    end = record.offsets[-2]
    effects = record.effects
    columns = {name: getattr(effects, name)[:end] for name in ("and_effects", "or_effects")}
    per_probe = {name: getattr(effects, name)[:-1] for name in ("zeta", "gap", "objective")}
    return replace(
        record,
        n_variables=record.n_variables[:-1],
        target=record.target[:-1],
        noise=record.noise[:-1],
        scores=record.scores[:end],
        effects=replace(effects, **columns, **per_probe),
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named(name: str, run: RunFolder) -> None:
    """The file, and no other; and what to do about it. Nothing is written."""
    change, file, says = DAMAGES[name]
    change(run)
    before = {each: each.stat().st_mtime_ns for each in run.path.rglob("*")}
    found = verify(run.path)
    assert found.damaged == (file,), found.as_text()
    (finding, *_) = [each for each in found.findings if each.file == file]
    assert says in finding.what, finding
    assert finding.remedy or "move it away" in finding.what
    assert found.as_text().replace("\n", "").isprintable()
    assert before == {each: each.stat().st_mtime_ns for each in run.path.rglob("*")}


@pytest.mark.parametrize("name", [name for name, (_, file, _) in DAMAGES.items() if file.startswith(("steps", "pla"))])
def test_a_damaged_file_takes_no_reader_down(name: str, run: RunFolder, tmp_path: Path) -> None:
    """History and report have the other steps, and name what was left out, if they left it out."""
    DAMAGES[name][0](run)
    history = load_history(run.path)
    assert set(history.steps) >= {0, 1, 4, 6}
    assert 2 in history.steps or "step_00000002.h5" in history.left_out[0]
    write_report(run.path, tmp_path / "report", ("md", "json", "csv"))


def test_the_command_prints_names_and_exits_1(run: RunFolder) -> None:
    assert sftscope("verify", run.path).returncode == 0
    flip(run.step_file(2), -30)
    failed = sftscope("verify", run.path)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [f"sftscope: {run.path}: 1 damaged: steps/step_00000002.h5"]
    assert STEP in failed.stdout
    content = json.loads(sftscope("verify", run.path, "--json").stdout)
    assert content["findings"][0]["file"] == STEP
    assert sftscope("verify", run.path / "none").returncode == 1


def test_effects_are_made_again_from_whole_scores_byte_for_byte(run: RunFolder) -> None:
    """A flip in the hash or in the effects: repaired without the model to the very file; other files untouched."""
    good = {step: run.step_file(step).read_bytes() for step in run.steps()}
    effects = run.read_step(4).effects.and_effects.tobytes()
    flip(run.step_file(1), 60)
    flip(run.step_file(4), good[4].index(effects[:200][-64:]))
    assert verify(run.path).repairable == (1, 4)
    shutil.rmtree(run.checkpoints)
    assert not repair(run.path).damaged
    assert {step: run.step_file(step).read_bytes() for step in run.steps()} == good


def test_what_cannot_be_repaired_is_scored_again(run: RunFolder, made) -> None:
    """Scores that are damaged: the command that is named brings the same bytes."""
    damage_scores(run.step_file(2))
    found = verify(run.path)
    assert not found.repairable
    assert found.findings[0].remedy == f"sftscope extract {run.path} --steps 2 scores this step again"
    pipeline.extract(run.path, steps=[2])
    assert run.step_file(2).read_bytes() == made[1].step_file(2).read_bytes()
    shutil.rmtree(run.checkpoints)
    damage_scores(run.step_file(2))
    assert "its checkpoint is gone" in verify(run.path).findings[0].remedy


def test_without_a_whole_step_the_scores_are_kept_as_drafts(run: RunFolder, made) -> None:
    """ζ is not known then; extraction goes on from the drafts and scores nothing again."""
    for step in run.steps():
        flip(run.step_file(step), 60)
    repair(run.path)
    assert run.steps() == ()
    assert run.read_draft(2).scores.tolist() == made[1].read_step(2).scores.tolist()
    pipeline.extract(run.path)
    for step in made[1].steps():
        assert run.step_file(step).read_bytes() == made[1].step_file(step).read_bytes()


@pytest.mark.parametrize("name", ["changed word", "changed setting"])
def test_nothing_is_repaired_with_other_probes_or_settings(name: str, run: RunFolder) -> None:
    DAMAGES[name][0](run)
    flip(run.step_file(1), 60)
    if name == "changed word":
        assert not verify(run.path).repairable
    run.run_file.write_text(run.run_file.read_text().replace(run.read_run()["identity"], "0" * 64))
    assert not verify(run.path).repairable


def test_what_is_not_ours_is_noted_and_left_alone(run: RunFolder) -> None:
    """Strangers, orphans and hostile names: notes, exit 0, nothing unsafe on the screen."""
    (run.path / "notes\x1b[2J.txt").touch()
    (run.steps_folder / ".sftscope-tmp-00000000-1-aa-step_00000002.h5").touch()
    (run.steps_folder / "step_2.h5").mkdir()
    found = verify(run.path)
    assert not found.damaged
    assert len(found.findings) == 3
    assert "\x1b" not in found.as_text()


def test_every_flip_in_a_step_file_is_found(run: RunFolder) -> None:
    """The whole-file hash, seen from verify: no flipped bit passes as whole."""
    good, rng = run.step_file(2).read_bytes(), np.random.default_rng(0)
    for position in [0, 20, USER_BLOCK - 1, USER_BLOCK, len(good) - 1, *rng.integers(0, len(good), 15).tolist()]:
        run.step_file(2).write_bytes(good)
        flip(run.step_file(2), position)
        assert verify(run.path).damaged == (STEP,)
