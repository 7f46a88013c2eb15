"""Every file that others can write or damage: whatever is in it, its reader gives a checked value or one line."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from mutants import mutants
from sample_history import sample_record, write_sample_run
from sftscope.attach.attach import trainer_facts
from sftscope.attach.foreign_checkpoints import (
    adapter_base,
    is_adapter,
    refuse_unreadable,
    why_not_whole,
)
from sftscope.attach.layouts import find_checkpoints
from sftscope.attach.trainer_logs import (
    as_lines,
    choose_eval_set,
    eval_sets,
    is_finished,
    log_rows,
    refuse_two_trainings,
)
from sftscope.distributed.submit import planned
from sftscope.files.hashes import array_sha256
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import json_text
from sftscope.monitor.headline import Headline, append_headline, headline_file, read_headlines
from sftscope.reporting.content import provenance
from sftscope.reporting.show import model_name
from sftscope.runs.identity import identity_fits
from sftscope.runs.pipeline import open_run
from sftscope.store import RunFolder, StepFileError
from sftscope.store.checkpoints import Checkpoint, list_checkpoints
from sftscope.store.sharing.run_status import run_status
from sftscope.store.sharing.training_requests import (
    Request,
    answer,
    ask,
    listen,
    listening,
    read_answer,
    take,
    why_not_asked,
)
from sftscope.store.sharing.worker_status import read_workers
from sftscope.store.sharing.writer_progress import writer_progress
from sftscope.store.steps import step_reader
from sftscope.store.steps.step_file import read_step_file, to_bytes
from sftscope.store.steps.step_reader import read_datasets
from sftscope.verification.verify import verify
from step_records import META, as_json, step_with

BRACKETS = b"[" * 100_000
TRAINER_STATE = {
    "global_step": 8,
    "max_steps": 8,
    "num_train_epochs": 3,
    "train_batch_size": 4,
    "log_history": [
        {"step": 4, "loss": 1.5, "learning_rate": 1e-4, "grad_norm": 0.5, "epoch": 0.5},
        {"step": 8, "eval_loss": 1.25, "eval_a_loss": 1.0},
    ],
    "stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": True}}},
}


def survives(read: Callable[[], object], what: str) -> Any:
    """The value that `read` gives, or its SftscopeError, which is one line; anything else fails the test."""
    try:
        return read()
    except SftscopeError as error:
        if not str(error).isprintable():
            raise AssertionError(f"{what}: {error!r}") from error
        return error
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def test_trainer_state(tmp_path: Path) -> None:
    """Step, plan and log of a training, by all that look at them."""
    checkpoint = Checkpoint(8, tmp_path / "checkpoint-8")
    checkpoint.path.mkdir()
    file = checkpoint.path / "trainer_state.json"

    def looked_at() -> None:
        state = checkpoint.trainer_state()
        if state is not None:
            assert all(type(row["step"]) is int for row in state.log)
            assert all(type(value) in (int, float, str) for row in state.log for value in row.values())
        for value in checkpoint.losses().values():
            assert not math.isinf(value)
        assert why_not_whole(checkpoint).isprintable()
        assert isinstance(is_finished(checkpoint), bool)
        tomli_w.dumps(trainer_facts(checkpoint))
        assert len(as_lines(log_rows([checkpoint], tmp_path)).splitlines()) <= 2
        eval_sets([checkpoint])
        choose_eval_set([checkpoint], "")
        refuse_two_trainings([checkpoint, checkpoint])
        find_checkpoints(checkpoint.path)

    for what, content in mutants(TRAINER_STATE):
        file.write_bytes(as_json(content))
        survives(looked_at, what)
    file.write_bytes(BRACKETS)
    survives(looked_at, "brackets")
    assert "nested too deep" in why_not_whole(checkpoint)
    file.write_bytes(as_json(TRAINER_STATE))
    assert checkpoint.losses() == {"eval": 1.25}
    assert trainer_facts(checkpoint)["max_steps"] == 8


def test_a_loss_of_400_digits_is_named(tmp_path: Path) -> None:
    """The checkpoint is not ready, and why is said; a value that only overflows a float is no number."""
    checkpoint = Checkpoint(8, tmp_path)
    for loss, said in (("1" * 400, "a number of 400 digits"), ("1e999", "")):
        text = json.dumps(TRAINER_STATE).replace("1.25", loss)
        (tmp_path / "trainer_state.json").write_text(text)
        assert said in why_not_whole(checkpoint)
    assert math.isnan(checkpoint.losses()["eval"])


def test_logs_of_other_trainers(tmp_path: Path) -> None:
    """LLaMA-Factory's log: a line that is none is left out, and so is a value that is no number."""
    row = {"current_steps": 4, "total_steps": 8, "loss": 1.5, "lr": 1e-4, "eval_loss": 2.0}
    for what, content in mutants(row):
        last = as_json({**row, "current_steps": 10**11})
        (tmp_path / "trainer_log.jsonl").write_bytes(as_json(content) + b"\n" + BRACKETS + b"\n" + last)
        rows = survives(lambda: log_rows([], tmp_path), what)
        assert {"step": 10**11, "train": 1.5, "eval": 2.0}.items() <= rows[-1].items(), what


def test_training_log(tmp_path: Path) -> None:
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))
    row = {"step": 4, "kind": "checkpoint", "train": 1.5, "eval": 2.5, "accuracy": 0.5}
    for what, content in mutants(row):
        folder.training_log.write_bytes(as_json(content) + b"\n" + BRACKETS + b"\n" + as_json(row))
        rows = survives(folder.read_log, what)
        assert rows[-1] == row, what
        assert all(type(value) in (int, float, str) for each in rows for value in each.values()), what
        survives(lambda: writer_progress(folder), what)


def test_adapter_config(tmp_path: Path) -> None:
    checkpoint = Checkpoint(8, tmp_path)
    config = {"peft_type": "LORA", "init_lora_weights": True, "base_model_name_or_path": "a/b", "corda_config": None}
    header = as_json({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    (tmp_path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for what, content in mutants(config):
        (tmp_path / "adapter_config.json").write_bytes(as_json(content))
        survives(lambda: (is_adapter(tmp_path), adapter_base(checkpoint), refuse_unreadable(checkpoint)), what)


@pytest.mark.parametrize("header", [BRACKETS, b'{"a":1}', b'{"a":{"dtype":1,"shape":{},"data_offsets":"x"}}'])
def test_a_damaged_weight_file_is_no_end_of_a_command(tmp_path: Path, header: bytes) -> None:
    """Those who list checkpoints call it not ready; whoever must read it says what it is."""
    checkpoint = Checkpoint(8, tmp_path / "checkpoint-8")
    checkpoint.path.mkdir()
    (checkpoint.path / "trainer_state.json").write_bytes(as_json(TRAINER_STATE))
    (checkpoint.path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert not checkpoint.is_ready()
    assert why_not_whole(checkpoint)
    assert isinstance(survives(lambda: refuse_unreadable(checkpoint), "damaged"), SftscopeError)


def test_checkpoints_have_one_name_each(tmp_path: Path) -> None:
    """No step twice, none that is larger than a step can be, no digits of other scripts."""
    for name in ("checkpoint-8", "checkpoint-08", "checkpoint-" + "9" * 200, "checkpoint-٣"):
        (tmp_path / name).mkdir()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [8]


def run_toml() -> dict[str, Any]:
    return {
        "format": 1,
        "identity": "ab" * 32,
        "name": "a",
        "model": {"name": "tiny", "template": "plain"},
        "device": "cpu",
        "source": {"config": "c.toml", "config_folder": ".."},
        "hashes": {"probes": "", "template": "cd"},
        "collisions": {"x": ["a", "b"]},
        "versions": {"sftscope": "1"},
        "settings": {
            "model": {"path": "m"},
            "data": {"train": "t"},
            "probes": {"file": "p", "n_words": 2},
            "training": {"checkpoints": [0, 1], "max_steps": 3},
            "extraction": {"tolerance": 0.1, "target": "first"},
        },
    }


def test_run_toml(tmp_path: Path) -> None:
    """Whatever one value of it is: who opens, shows, checks or reports a run copes, or says it in one line."""
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))

    def looked_at() -> None:
        content = folder.read_run()
        assert isinstance(identity_fits(content), bool)
        model_name(content)
        provenance(content)
        json_text(provenance(content).rows)
        run_status(folder)
        open_run(folder.path)

    for what, content in mutants(run_toml()):
        try:
            text = tomli_w.dumps(content)
        except (TypeError, AttributeError, RecursionError):  # TOML has no null, and is a table
            continue
        folder.run_file.write_text(text, encoding="utf-8", errors="replace")
        survives(looked_at, what)
    for text in ("a." * 5000 + "a = 1", "a = " + "[" * 5000, f"a = {'1' * 400}", "a = 1979-05-27T07:32:00Z\nname = 2"):
        folder.run_file.write_text(text)
        assert isinstance(survives(looked_at, text[:20]), SftscopeError)


def test_settings_of_a_changed_kind_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for key, value, said in (
        ("settings", [], "settings: expected a table"),
        ("hashes", "x", "hashes: expected a table"),
        ("attached", 1, "attached: expected a table"),
        ("source", {"config_folder": 5}, "source.config_folder: expected text"),
        ("settings", {"extraction": 1}, "settings.extraction: expected a table"),
    ):
        folder.run_file.write_text(tomli_w.dumps({**run_toml(), key: value}))
        with pytest.raises(SftscopeError, match=said):
            folder.read_run()


def test_probes(tmp_path: Path) -> None:
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))
    (row,) = (json.loads(line) for line in folder.probes_file.read_text().splitlines())
    for what, content in mutants(row):
        folder.probes_file.write_bytes(as_json(content))
        survives(folder.read_probes, what)
        survives(folder.read_targets, what)
        survives(lambda: run_status(folder), what)
    folder.probes_file.write_bytes(BRACKETS)
    assert isinstance(survives(folder.read_probes, "brackets"), SftscopeError)


def test_precision(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    content = {"identity": "ab", "asked": "auto", "taken": "float32", "candidates": [{"precision": "tf32"}]}
    for what, mutant in mutants(content):
        folder.precision_file.write_bytes(as_json(mutant))
        survives(folder.read_precision, what)


def test_workers(tmp_path: Path) -> None:
    """`status` counts and divides: a worker is one that a worker could have written, or none."""
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))
    folder.workers_folder.mkdir()
    content = {"name": "h-1", "state": "working", "task": "step 8", "probes": 3, "seconds": 2.0, "failure": ""}
    for what, mutant in mutants(content):
        (folder.workers_folder / "h-1.json").write_bytes(as_json(mutant)[:4096])
        for worker in survives(lambda: read_workers(folder.workers_folder), what):
            assert [type(value) for value in astuple(worker)] == [str, str, str, int, float, str], what
        status = survives(lambda: run_status(folder), what)
        assert status.as_text(), what
        json_text(status.as_dict())
        survives(lambda: writer_progress(folder).sentence, what)


def test_headlines(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    headline = Headline(8, 40.0, 0.9, 0.3, 5.0, 1.0, 2.0, 3.0, 4, 6, "agree", "It is over.")
    for what, mutant in mutants(asdict(headline)):
        headline_file(folder).write_bytes(as_json(mutant) + b"\n" + BRACKETS + b"\n")
        append_headline(folder, headline)
        found = survives(lambda: read_headlines(folder, 0)[0], what)
        assert found[-1] == headline
        assert all(math.isfinite(value) for each in found for value in each.as_logs().values()), what


def test_requests_and_answers(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    listen(folder)
    ask(folder, Request.STOP, "why")
    answer(folder, Request.STOP, 8)
    files = {name: folder.path / f"{name}.json" for name in ("listening", "answer", "request")}
    contents = {name: json.loads(file.read_text()) for name, file in files.items()}
    for name, file in files.items():
        for what, mutant in mutants(contents[name]):
            file.unlink(missing_ok=True)
            file.write_bytes(as_json(mutant))
            file.chmod(0o600)
            for read in (listening, read_answer, why_not_asked, take):
                survives(lambda read=read: read(folder), f"{name}: {what}")


def test_plan(tmp_path: Path) -> None:
    content = {
        "seconds": {"scoring": 1.0, "decomposition": 2.0, "loading": 3.0},
        "memory_gb": {"host": 5.0, "device": 0.0},
    }
    for what, mutant in mutants(content):
        (tmp_path / "plan.json").write_bytes(as_json(mutant))
        survives(lambda: planned(tmp_path / "plan.json", 2), what)


def test_meta_of_a_step_file() -> None:
    """Refused, or such that a step file can be written with it again, as repairing one does."""
    record = read_datasets(step_with(META), source="f")
    assert record.losses == {"train": 1.5}
    for what, mutant in mutants(META):
        meta = survives(lambda mutant=mutant: step_reader._checked_meta(as_json(mutant), "f"), what)
        if isinstance(meta, SftscopeError):
            assert isinstance(meta, StepFileError)
            continue
        losses = {name: step_reader._loss(value) for name, value in meta["losses"].items()}
        assert to_bytes(replace(record, losses=losses, provenance=meta["provenance"])), what


@pytest.mark.parametrize("name", ["\x1b]52;c;AAAA\x07", "\x1b[2J", "a b", "\u202eeval", "", "x" * 65, "=1+1"])
def test_a_loss_has_a_plain_name(tmp_path: Path, name: str) -> None:
    """It becomes the head of a column in tables, CSV and the explorer."""
    (tmp_path / "f.h5").write_bytes(step_with({**META, "losses": {name: 1.0}}))
    with pytest.raises(StepFileError, match="losses") as caught:
        read_step_file(tmp_path / "f.h5")
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="losses"):
        to_bytes(sample_record(8, [np.zeros((2, 4))], np.random.default_rng(0), losses={name: 1.0}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16,
        b"\x93NUMPY\x02\x00" + (70_000).to_bytes(4, "little") + b"[" * 70_000,
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }\n",
        b"\x93NUMPY\x01\x00\x46\x00{'descr': 'O', 'fortran_order': False, 'shape': (1,), }               \n",
        b"PK\x03\x04",
    ],
)
def test_baseline_vector(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.npy").write_bytes(data)
    assert isinstance(survives(lambda: array_sha256(tmp_path / "v.npy"), repr(data[:20])), SftscopeError)


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    """Of a run whose every file is brackets: no traceback, and each of them is damaged."""
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))
    names = ("probes.jsonl", "precision.json", "baseline_vector.npy")
    for name in names:
        (folder.path / name).write_bytes(BRACKETS)
    (folder.steps_folder / "step_00000009.h5").write_bytes(step_with(BRACKETS))
    found = verify(folder.path)
    assert {*names, "steps/step_00000009.h5"} <= set(found.damaged)


@pytest.mark.parametrize("value", ["1979-05-27T07:32:00Z", "1979-05-27", "07:32:00"])
def test_a_date_in_run_toml_is_text(tmp_path: Path, value: str) -> None:
    """JSON has none: a report would end with a traceback."""
    folder = RunFolder(tmp_path)
    folder.run_file.write_text(f"when = {value}\n")
    assert json.loads(json_text(folder.read_run()))["when"].startswith(value[:8])


def test_a_whole_number_in_run_toml_has_64_bits(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.run_file.write_text(f"a = [{2**63 - 1}, {-(2**63)}]\n")
    assert folder.read_run()["a"] == [2**63 - 1, -(2**63)]
    folder.run_file.write_text(f"a = {2**63}\n")
    with pytest.raises(SftscopeError, match="64 bits"):
        folder.read_run()
