"""What masks a word: mean, zero or one token's embedding; stored with the run and the same for all its steps."""

import numpy as np
import pytest
import torch

from run_configs import write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.scoring.baseline import baseline_hash, fixed_baseline
from sftscope.scoring.masking import baseline_vector
from sftscope.store import RunFolder
from toy_llm import toy_model, toy_tokenizer


@pytest.mark.parametrize("text", ["<unk>", "<pad>", "happy"])
def test_a_token_baseline_is_the_embedding_modules_output(text):
    model, tokenizer = toy_model("gemma3"), toy_tokenizer()  # Gemma scales inside the module
    expected = model.get_input_embeddings()(torch.tensor(tokenizer.convert_tokens_to_ids(text)))
    torch.testing.assert_close(baseline_vector(model, f"token:{text}", tokenizer), expected, atol=0, rtol=0)


@pytest.mark.parametrize(("text", "got"), [("happy room", "2 tokens"), ("zebra", "unknown to this tokenizer")])
def test_a_text_that_is_not_one_token_is_refused(text, got):
    with pytest.raises(SftscopeError, match=rf"\[extraction\] baseline_vector: expected exactly one token.*{got}"):
        baseline_vector(toy_model("llama"), f"token:{text}", toy_tokenizer())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a token baseline."""
    folder = tmp_path_factory.mktemp("baseline")
    config = write_config(folder, **{"check_states = 4": 'check_states = 4\nbaseline_vector = "token:<unk>"'})
    pipeline.run(config, folder / "run")
    return RunFolder(folder / "run")


@pytest.fixture
def unfinished(finished):
    """The same run, its last step gone; afterwards as it was."""
    files = [finished.step_file(6), finished.step_file(4), finished.baseline_file]
    before = {file: file.read_bytes() for file in files}
    finished.step_file(6).unlink()
    yield finished
    for file, data in before.items():
        file.write_bytes(data)


def test_the_vector_lies_in_the_run_and_its_hash_in_every_step(finished):
    stored = np.load(finished.baseline_file)
    model, tokenizer = toy_model("llama"), toy_tokenizer()
    np.testing.assert_array_equal(stored, baseline_vector(model, "token:<unk>", tokenizer).numpy())
    digest = baseline_hash(torch.from_numpy(stored))
    for step in finished.steps():
        named = finished.read_step(step).provenance["baseline_vector"]
        assert named == {"kind": "token:<unk>", "sha256": digest}


def test_resuming_takes_the_stored_vector_and_gives_the_same_step(finished):
    good = finished.step_file(6).read_bytes()
    finished.step_file(6).unlink()
    stat = finished.baseline_file.stat()
    pipeline.extract(finished.path)
    assert finished.step_file(6).read_bytes() == good
    assert finished.baseline_file.stat().st_mtime_ns == stat.st_mtime_ns


def test_a_run_begun_before_the_vector_was_stored_goes_on(unfinished):
    good = unfinished.baseline_file.read_bytes()
    unfinished.baseline_file.unlink()
    pipeline.extract(unfinished.path)
    assert unfinished.baseline_file.read_bytes() == good


def test_another_vector_than_that_of_the_steps_done_is_refused(unfinished):
    np.save(unfinished.baseline_file, np.load(unfinished.baseline_file) + np.float32(1))
    with pytest.raises(SftscopeError, match=r"is not the baseline vector that step_00000000\.h5 was made with"):
        pipeline.extract(unfinished.path)
    unfinished.baseline_file.unlink()
    with pytest.raises(SftscopeError, match="use another --out folder"):
        fixed_baseline(unfinished, toy_model("llama"), "zero", toy_tokenizer())
    assert not unfinished.baseline_file.exists()


@pytest.mark.parametrize("content", [b"", b"no array", np.zeros(3, np.float32), np.array([{}], dtype=object)], ids=str)
def test_a_damaged_vector_is_one_line(unfinished, content):
    if isinstance(content, bytes):
        unfinished.baseline_file.write_bytes(content)
    else:
        np.save(unfinished.baseline_file, content, allow_pickle=True)
    with pytest.raises(SftscopeError, match=r"baseline_vector\.npy: .*move it away and run") as error:
        pipeline.extract(unfinished.path)
    assert "\n" not in str(error.value)
