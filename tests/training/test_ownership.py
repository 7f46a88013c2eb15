"""Nothing of the user's is removed or written over: whose a checkpoint is, is known before anything happens to it."""

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file
from torch import zeros

from attached_runs import attached
from checkpoints import write_checkpoint
from foreign_training import WORDS, make_trainer, train, write_inputs
from run_configs import write_config
from sftscope.attach import copies
from sftscope.attach.attach import Choices, attach
from sftscope.attach.copies import copy_checkpoint, refuse_if_disk_is_short
from sftscope.files import opening
from sftscope.files.atomic import sweep_orphans
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.monitor import SftscopeCallback
from sftscope.runs import pipeline
from sftscope.store import RunFolder, ownership
from sftscope.store.checkpoints import Checkpoint
from sftscope.training import sft
from sftscope.verification.verify import verify

WEIGHTS, STATE = "adapter_model.safetensors", "trainer_state.json"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """`toy`, `probes.jsonl`, and `full`, the output of a training of all weights."""
    folder = tmp_path_factory.mktemp("ownership")
    write_inputs(folder)
    train(make_trainer(folder, adapter=False, out="full", max_steps=4))
    return folder


@pytest.fixture(scope="module")
def full_run(inputs, tmp_path_factory):
    """An attached run of whole models: the weights of its copies were removed after extraction."""
    return attached(inputs, inputs / "full", tmp_path_factory.mktemp("run") / "run")


def foreign(folder: Path, *steps: int, half: int = 0) -> Path:
    """The output of someone's training; `half` has no state yet, as the one that is being saved."""
    for step in (*steps, *([half] if half else ())):
        checkpoint = write_checkpoint(folder, step)
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "target_modules": ["layer"]}')
        layer = "base_model.model.layer"
        save_file({f"{layer}.lora_A.weight": zeros(2, 4), f"{layer}.lora_B.weight": zeros(4, 2)}, checkpoint / WEIGHTS)
        for file in checkpoint.iterdir():
            os.utime(file, (1e9, 1e9))
        if step == half:
            (checkpoint / STATE).unlink()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(source: Path, out: Path) -> str:
    """The line that `attach` ends with; it comes before any model or probe is read."""
    choices = Choices(settings={"model": {"path": "none"}})
    with pytest.raises(SftscopeError) as caught:
        attach(source, out, out / "none.jsonl", choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def output_in_checkpoints(tmp_path):
    return tmp_path / "x" / "checkpoints", tmp_path / "x"


def linked_checkpoints(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoints").symlink_to(tmp_path / "out")
    return tmp_path / "out", tmp_path / "x"


def linked_source(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "x" / "checkpoints")
    return tmp_path / "x" / "checkpoints", tmp_path / "x"


def the_output_itself(tmp_path):
    return tmp_path / "out", tmp_path / "out"


def in_a_checkpoint(tmp_path):
    return tmp_path / "out", tmp_path / "out" / "checkpoint-2" / "run"


def copies_in_a_checkpoint(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "checkpoints").symlink_to(tmp_path / "out" / "checkpoint-2" / "more")
    return tmp_path / "out", tmp_path / "x"


def output_in_a_folder_of_the_run(tmp_path):
    return tmp_path / "x" / "steps" / "out", tmp_path / "x"


PLACES = [
    *(output_in_checkpoints, linked_checkpoints, linked_source, the_output_itself),
    *(in_a_checkpoint, copies_in_a_checkpoint, output_in_a_folder_of_the_run),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("half", [0, 6])
def test_a_run_among_the_checkpoints_of_the_training_is_refused_and_all_of_them_stay(tmp_path, place, half):
    source, out = place(tmp_path)
    foreign(source, 2, 4, half=half)
    before = contents(tmp_path)
    given = tmp_path / "link" if (tmp_path / "link").exists() else source
    assert "choose another --out folder" in refused(given, out)
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=str(given)), model=None)
    with pytest.raises(SftscopeError, match="choose another --out folder"):
        SftscopeCallback(trainer, probes="none", out=out)
    assert contents(tmp_path) == before


def test_a_run_in_a_folder_of_its_own_within_the_output_is_fine(tmp_path):
    foreign(tmp_path / "out", 2)
    for out in (tmp_path / "out" / "run", tmp_path / "run", tmp_path):
        ownership.refuse_same_place(tmp_path / "out", RunFolder(out))


def test_a_link_that_is_made_while_the_training_runs_costs_no_checkpoint(inputs, tmp_path, caplog):
    trainer = make_trainer(inputs, out=str(tmp_path / "out"), max_steps=4)
    options = {"probes": inputs / "probes.jsonl", "out": tmp_path / "run", "words": WORDS}
    callback = SftscopeCallback(trainer, where="in-process", keep=False, **options)
    trainer.add_callback(callback)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "out")
    train(trainer)
    assert "its checkpoints are the output folder of the training" in caplog.text
    assert all(Checkpoint(step, tmp_path / "out" / f"checkpoint-{step}").is_ready() for step in (2, 4))


def test_one_checkpoint_that_is_a_link_to_the_original_is_refused(tmp_path):
    foreign(tmp_path / "out", 2)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "checkpoint-2").symlink_to(tmp_path / "out" / "checkpoint-2")
    with pytest.raises(SftscopeError, match=r"is the training's own .* by a link"):
        copy_checkpoint(Checkpoint(2, tmp_path / "out" / "checkpoint-2"), tmp_path / "copies")


@pytest.fixture
def copied(tmp_path):
    """A marked folder `checkpoints` with a signed copy of step 2."""
    foreign(tmp_path / "out", 2)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert ownership.begin_checkpoints(checkpoints)
    assert copy_checkpoint(Checkpoint(2, tmp_path / "out" / "checkpoint-2"), checkpoints) == ""
    return checkpoints / "checkpoint-2"


def test_the_weights_of_our_copy_go_and_the_record_says_so(copied):
    assert ownership.drop_weights(copied)
    assert ownership.were_dropped(copied)
    assert sorted(file.name for file in copied.iterdir()) == ["adapter_config.json", "source.json", STATE]
    assert ownership.drop_weights(copied)  # again: as it was
    ownership.remove_copy(copied)
    assert not copied.exists()


def another_record(copied):
    record = json.loads((copied / "source.json").read_text())
    (copied / "source.json").write_text(json.dumps({**record, "weights": [*record["weights"], STATE]}))


def of_another_step(copied):
    shutil.copytree(copied, copied.with_name("checkpoint-3"))
    shutil.rmtree(copied)
    return copied.with_name("checkpoint-3")


def in_another_run(copied):
    other = copied.parents[2] / "other" / "checkpoints"
    ownership.begin_checkpoints(other)
    return shutil.copytree(copied, other / "checkpoint-2")


def behind_a_link(copied):
    copied.rename(copied.parents[2] / "elsewhere")
    copied.symlink_to(copied.parents[2] / "elsewhere")


def in_a_linked_folder(copied):
    copied.parent.rename(copied.parents[2] / "elsewhere")
    copied.parent.symlink_to(copied.parents[2] / "elsewhere")


NOT_OURS = {
    "no record": lambda copied: (copied / "source.json").unlink(),
    "record of an earlier release": lambda copied: (copied / "source.json").write_text('{"files": {}, "sha256": {}}'),
    "changed record": another_record,
    "no mark": lambda copied: (copied.parent / ownership._MARK).unlink(),
    "another step": of_another_step,
    "another run": in_another_run,
    "link": behind_a_link,
    "linked folder": in_a_linked_folder,
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_is_not_signed_for_this_place_stays(copied, tmp_path, name):
    moved = NOT_OURS[name](copied)
    copied = moved if isinstance(moved, Path) else copied
    before = contents(tmp_path)
    assert not ownership.drop_weights(copied)
    assert not ownership.were_dropped(copied)
    assert contents(tmp_path) == before
    (copied / STATE).unlink()
    before = contents(tmp_path)
    with pytest.raises(SftscopeError, match="not a copy that this run made; move it away"):
        ownership.remove_copy(copied)
    assert contents(tmp_path) == before


def test_a_copy_that_holds_something_of_the_user_or_is_complete_stays(copied):
    with pytest.raises(SftscopeError, match="is complete; nothing was removed"):
        ownership.remove_copy(copied)
    ownership.drop_weights(copied)
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(SftscopeError, match=r"holds notes\.txt, which this program did not write; move that away"):
        ownership.remove_copy(copied)
    assert (copied / "notes.txt").read_text() == "mine"


def fails_to_open(monkeypatch, name, number=errno.EIO):
    """Every file of this name is on a disk that cannot be read."""
    real = os.open

    def fails(path, *rest, **options):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(opening.os, "open", fails)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", [WEIGHTS, STATE, "source.json", ownership._MARK])
def test_a_disk_that_cannot_be_read_costs_nothing(copied, tmp_path, monkeypatch, name, number):
    shutil.copytree(copied, copied.with_name("checkpoint-4"))
    (copied.with_name("checkpoint-4") / STATE).write_text("{")  # definitely not whole
    ownership.will_save(copied.parent, 2)
    before = contents(tmp_path)
    fails_to_open(monkeypatch, name, number)
    for act in (
        lambda: ownership.remove_copy(copied),
        lambda: ownership.drop_unfinished(copied.parent),
        lambda: ownership.drop_weights(copied) if name in ("source.json", ownership._MARK) else None,
    ):
        with suppress(SftscopeError):
            act()
    if name in (WEIGHTS, STATE):
        with pytest.raises(NotReadError):
            Checkpoint(2, copied).is_ready()
    monkeypatch.undo()
    assert contents(tmp_path) == before


def test_half_written_checkpoints_of_our_own_training_are_removed_and_no_others(tmp_path):
    own, others = tmp_path / "own", tmp_path / "others"
    assert ownership.begin_checkpoints(own)
    ownership.will_save(own, 4)
    foreign(own, 2, half=4)
    ownership.drop_unfinished(own)
    assert [each.name for each in own.glob("checkpoint-*")] == ["checkpoint-2"]
    foreign(own, half=6)  # of nobody that we know
    foreign(others, 2, half=4)
    assert not ownership.begin_checkpoints(others)
    (tmp_path / "linked").symlink_to(own)
    for folder in (own, others, tmp_path / "linked"):
        before = contents(folder)
        with pytest.raises(SftscopeError, match=r"checkpoint-[46]: not written to its end, .* move it away"):
            ownership.drop_unfinished(folder)
        assert contents(folder) == before


def test_a_checkpoint_that_is_a_link_is_never_removed_through(tmp_path):
    own = tmp_path / "own"
    ownership.begin_checkpoints(own)
    ownership.will_save(own, 4)
    foreign(tmp_path / "elsewhere", half=4)
    (own / "checkpoint-4").symlink_to(tmp_path / "elsewhere" / "checkpoint-4")
    with pytest.raises(SftscopeError, match="move it away"):
        ownership.drop_unfinished(own)
    ownership.drop_file(own / "checkpoint-4", WEIGHTS)
    assert (own / "checkpoint-4" / WEIGHTS).exists()


def test_only_optimizers_of_our_own_training_are_removed(tmp_path):
    own, others = tmp_path / "own", tmp_path / "others"
    ownership.begin_checkpoints(own)
    ownership.will_save(own, 2)
    for folder in (own, others):
        foreign(folder, 2, 4)
        for step in (2, 4):
            (folder / f"checkpoint-{step}" / "optimizer.pt").touch()
    settings = SimpleNamespace(method="full")
    state = SimpleNamespace(is_world_process_zero=True, global_step=6)
    for folder in (own, others):
        run = SimpleNamespace(checkpoints=folder, training_log=folder / "log")
        sft._Grid((6,), settings, run, None).on_save(None, state, None)
    assert not (own / "checkpoint-2" / "optimizer.pt").exists()
    for kept in (own / "checkpoint-4", others / "checkpoint-2", others / "checkpoint-4"):
        assert (kept / "optimizer.pt").exists()


def test_a_run_that_is_resumed_removes_what_its_kill_left_and_no_checkpoint_of_others(toy_run):
    config, run = toy_run()
    last = RunFolder(run).checkpoints / "checkpoint-6"
    (last / STATE).unlink()
    pipeline.train(config, run)
    assert Checkpoint(6, last).is_ready()
    foreign(RunFolder(run).checkpoints, half=5)
    (last / STATE).unlink()
    with pytest.raises(SftscopeError, match=r"checkpoint-5: not written to its end, .* move it away"):
        pipeline.train(config, run)
    assert (last.with_name("checkpoint-5") / WEIGHTS).exists()


def test_our_training_saves_nothing_over_a_checkpoint_of_others(toy_run, tmp_path):
    config, run = toy_run()
    last = RunFolder(run).checkpoints / "checkpoint-6"
    shutil.rmtree(last)
    foreign(tmp_path / "best", 6)
    last.symlink_to(tmp_path / "best" / "checkpoint-6")
    (RunFolder(run).checkpoints / "checkpoint-4" / "optimizer.pt").unlink()
    before = contents(tmp_path)
    with pytest.raises(SftscopeError, match=r"checkpoint-6: the training would write over it, .* move it away"):
        sft.ownership.refuse_overwriting(last.parent, (4, 6))
    (last / STATE).unlink()
    with pytest.raises(SftscopeError, match=r"checkpoint-6: not written to its end, .* move it away"):
        pipeline.train(config, run)
    (last / STATE).write_bytes(before[f"best/checkpoint-6/{STATE}"])
    assert contents(tmp_path) == before


def test_a_block_of_scores_that_cannot_be_read_stays(tmp_path, monkeypatch):
    folder, block = RunFolder(tmp_path), range(16)
    folder.blocks_folder(2).mkdir(parents=True)
    file = folder.block_file(2, block)
    file.write_bytes(b"scores")
    with monkeypatch.context() as patch:
        fails_to_open(patch, file.name)
        with pytest.raises(SftscopeError, match=r"cannot be read: .*; nothing was removed"):
            folder.drop_block(2, block)
    assert file.exists()
    folder.drop_block(2, block)
    assert not file.exists()


OTHERS_FILES = [
    *("probes.jsonl", "training_log.jsonl", "chat_template.jinja", "baseline_vector.npy", "headlines.jsonl"),
    *("steps/step_00000002.h5", "checkpoints/checkpoint-2/model.safetensors", "blocks/mine", "workers/mine"),
]


@pytest.mark.parametrize("name", OTHERS_FILES)
def test_a_folder_with_others_files_becomes_no_run(inputs, tmp_path, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(
        SftscopeError, match=r"is there already, in a folder that is not a run .*move it away"
    ) as caught:
        attached(inputs, inputs / "full", out)
    assert "\n" not in str(caught.value)
    assert contents(out) == {name: b"mine"}


def test_a_folder_with_others_files_becomes_no_run_of_our_own_either(tmp_path):
    config = write_config(tmp_path)
    for number, name in enumerate(("probes.jsonl", "training_log.jsonl", "checkpoints/checkpoint-2/config.json")):
        out = tmp_path / str(number)
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        with pytest.raises(SftscopeError, match="is there already, in a folder that is not a run"):
            pipeline.train(config, out)
        assert contents(out) == {name: b"mine"}
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "training_log.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SftscopeError, match="is there already"):
        pipeline.train(config, linked)


def test_other_files_beside_a_run_are_no_obstacle(inputs, tmp_path):
    (tmp_path / "run" / "steps").mkdir(parents=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    attached(inputs, inputs / "full", tmp_path / "run", extracting=False)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_run_that_lost_its_run_file_is_begun_again_with_its_steps(inputs, full_run, tmp_path, toy_run):
    """As `verify` advises where run.toml is damaged."""
    folder = RunFolder(shutil.copytree(full_run.path, tmp_path / "run"))
    folder.run_file.unlink()
    before = {step: folder.step_file(step).read_bytes() for step in folder.steps()}
    attached(inputs, inputs / "full", folder.path)
    assert {step: folder.step_file(step).read_bytes() for step in folder.steps()} == before
    config, run = toy_run()
    (run / "run.toml").unlink()
    pipeline.train(config, run)
    (run / "run.toml").unlink()
    (run / "probes.jsonl").write_text("{}")
    with pytest.raises(SftscopeError, match="is there already"):
        pipeline.train(config, run)


def test_blocks_of_a_step_go_and_what_lies_beside_them_stays(tmp_path):
    folder = RunFolder(tmp_path)
    blocks = folder.blocks_folder(2)
    blocks.mkdir(parents=True)
    for name in ("000000-000016.h5", "000000-000016.part.h5", ".sftscope-claim-0-16", "mine.h5"):
        (blocks / name).touch()
    folder.drop_blocks(2)
    assert [file.name for file in blocks.iterdir()] == ["mine.h5"]
    (blocks / "mine.h5").unlink()
    folder.drop_blocks(2)
    assert not (tmp_path / "blocks").exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "000000-000016.h5").touch()
    blocks.parent.mkdir()
    blocks.symlink_to(tmp_path / "elsewhere")
    folder.drop_blocks(2)
    assert list((tmp_path / "elsewhere").iterdir())


def test_only_passing_files_by_our_own_names_are_swept(tmp_path):
    kept = [".sftscope-tmp-mine", ".sftscope-tmp-backup-2024", ".sftscope-tmp-zz-1-zz-checkpoint-2"]
    for name in (*kept, ".sftscope-tmp-00000000-1-0123abcd-checkpoint-2"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1, 1))
    assert sweep_orphans(tmp_path) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)


def test_a_copy_has_the_bytes_and_is_as_private_as_its_source(tmp_path):
    checkpoint = Checkpoint(2, foreign(tmp_path / "out", 2) / "checkpoint-2")
    modes = {WEIGHTS: 0o600, STATE: 0o640, "adapter_config.json": 0o644}
    for name, mode in modes.items():
        (checkpoint.path / name).chmod(mode)
    before = os.umask(0)
    try:
        assert copy_checkpoint(checkpoint, tmp_path / "copies") == ""
    finally:
        os.umask(before)
    copy = tmp_path / "copies" / "checkpoint-2"
    for name, mode in modes.items():
        assert (copy / name).stat().st_mode & 0o777 == mode
        assert (copy / name).read_bytes() == (checkpoint.path / name).read_bytes()


def test_no_link_leads_a_copy_out_of_the_folder_that_was_named(tmp_path):
    source = foreign(tmp_path / "out", 2, 4)
    config = source / "checkpoint-4" / "adapter_config.json"
    config.unlink()
    config.symlink_to("../checkpoint-2/adapter_config.json")  # of the same training
    checkpoint, copies_of = Checkpoint(4, source / "checkpoint-4"), tmp_path / "copies"
    with pytest.raises(SftscopeError, match="leads out of"):
        copy_checkpoint(checkpoint, copies_of)
    assert copy_checkpoint(checkpoint, copies_of, within=source) == ""
    assert not (copies_of / "checkpoint-4" / "adapter_config.json").is_symlink()
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    for name in ("adapter_config.json", STATE, WEIGHTS):
        shutil.rmtree(copies_of, ignore_errors=True)
        kept = (source / "checkpoint-2" / name).read_bytes()
        secret.write_bytes(kept)
        os.utime(secret, (1e9, 1e9))
        (source / "checkpoint-2" / name).unlink()
        (source / "checkpoint-2" / name).symlink_to(secret)
        with pytest.raises(SftscopeError, match=r"is a link that leads out of .*/out; put the file itself there"):
            copy_checkpoint(Checkpoint(2, source / "checkpoint-2"), copies_of, within=source)
        assert not list(copies_of.iterdir())
        (source / "checkpoint-2" / name).unlink()
        (source / "checkpoint-2" / name).write_bytes(kept)
        os.utime(source / "checkpoint-2" / name, (1e9, 1e9))


def test_all_files_are_counted_and_small_ones_stay_small(tmp_path, monkeypatch):
    checkpoint = Checkpoint(2, foreign(tmp_path / "out", 2) / "checkpoint-2")
    sizes = [(checkpoint.path / name).stat().st_size for name in (WEIGHTS, STATE, "adapter_config.json")]
    monkeypatch.setattr(copies, "_SPARE", 0)
    for free, fits in ((sum(sizes), True), (sum(sizes) - 1, False)):
        monkeypatch.setattr(copies.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if fits:
            refuse_if_disk_is_short([checkpoint], tmp_path / "copies")
        else:
            with pytest.raises(SftscopeError, match="make room"):
                refuse_if_disk_is_short([checkpoint], tmp_path / "copies")
    monkeypatch.setattr(copies, "MAX_JSON_BYTES", sizes[1] - 1)
    with pytest.raises(SftscopeError, match=rf"{STATE}: has {sizes[1]} bytes, more than the"):
        copy_checkpoint(checkpoint, tmp_path / "copies")


def test_a_run_whose_weights_were_dropped_on_purpose_is_in_order(full_run, tmp_path):
    assert not list(full_run.checkpoints.rglob("model*.safetensors"))
    assert not verify(full_run.path).findings
    shutil.copytree(full_run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # to make room
    assert not verify(tmp_path / "run").findings


def test_the_remedy_of_an_attached_run_is_the_command_that_mends_it(inputs, full_run, tmp_path):
    folder = RunFolder(shutil.copytree(full_run.path, tmp_path / "run"))
    before = folder.step_file(2).read_bytes()
    folder.step_file(2).write_bytes(before[: len(before) // 4])
    (remedy,) = [each.remedy for each in verify(folder.path).findings if each.kind == "damaged"]
    command = (
        f"sftscope attach {inputs / 'full'} --model {inputs / 'toy'} --probes PROBES --out {folder.path} --words 4"
    )
    assert remedy.startswith(f"{command} --device cpu copies its checkpoint and scores this step again")
    attached(inputs, inputs / "full", folder.path)
    assert folder.step_file(2).read_bytes() == before
    folder.step_file(4).unlink()
    (finding,) = verify(folder.path).findings
    assert finding.file == "checkpoints/checkpoint-4"
    assert "its weights were removed once step 4 was extracted, and that result is missing" in finding.what
    assert finding.remedy.startswith(command)


def test_a_monitored_run_names_its_training_and_no_command_that_does_not_exist(inputs, tmp_path):
    trainer = make_trainer(inputs, adapter=False, out=str(tmp_path / "out"), max_steps=4, save_strategy="no")
    options = {"probes": inputs / "probes.jsonl", "out": tmp_path / "run", "words": WORDS, "where": "in-process"}
    trainer.add_callback(SftscopeCallback(trainer, steps=(2, 4), keep=False, **options))
    train(trainer)
    folder = RunFolder(tmp_path / "run")
    assert folder.steps() == (0, 2, 4)
    assert not list(folder.checkpoints.rglob("model*.safetensors"))
    assert not verify(folder.path).findings
    folder.probes_file.write_text("{")
    (remedy,) = [each.remedy for each in verify(folder.path).findings if each.file == "probes.jsonl"]
    assert remedy.startswith("the training with its SftscopeCallback(")


def test_a_half_written_checkpoint_with_files_of_the_users_is_named_and_stays(tmp_path):
    """Notes or results that someone put into a checkpoint of ours are not the Trainer's."""
    own = tmp_path / "own"
    assert ownership.begin_checkpoints(own)
    ownership.will_save(own, 4)
    foreign(own, 2, half=4)
    (own / "checkpoint-4" / "my_notes.md").write_text("mine")
    before = contents(own)
    with pytest.raises(SftscopeError, match=r"checkpoint-4: not written to its end, and holds my_notes\.md"):
        ownership.drop_unfinished(own)
    assert contents(own) == before


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json", STATE])
def test_a_copy_that_was_changed_is_noticed_by_its_hash(copied, name):
    assert ownership.changed_file(copied) == ""
    data = bytearray((copied / name).read_bytes())
    data[-1] ^= 6
    (copied / name).write_bytes(data)
    assert ownership.changed_file(copied) == name
    (copied / name).unlink()
    assert ownership.changed_file(copied) == ""  # dropped, or lost, which is said elsewhere


def test_a_changed_copy_is_neither_extracted_nor_called_intact(inputs, tmp_path):
    run = attached(inputs, inputs / "full", tmp_path / "run", keep=True)
    (tmp_path / "run" / "steps" / "step_00000004.h5").unlink()
    weights = run.checkpoints / "checkpoint-4" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 6
    weights.write_bytes(data)
    with pytest.raises(SftscopeError, match=r"model\.safetensors: was changed since it was copied"):
        pipeline.extract(run.path)
    assert any("was changed since it was copied" in each.what for each in verify(run.path).findings)
