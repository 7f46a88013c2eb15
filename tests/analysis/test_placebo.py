"""One checkpoint against itself: what is stored, what is read, and what is said beside the real counts."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from command_line import fails_with_one_line, sftscope
from placebos import planted
from sample_history import write_sample_run
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection
from sftscope.analysis.trust.placebo import TRUSTED_JACCARD, compare_placebos, sentence
from sftscope.extraction import second_extraction as placebo_module
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import every_state
from sftscope.reporting.document import markdown as as_markdown
from sftscope.reporting.forms import make_report, write_report
from sftscope.reporting.outline import outline
from sftscope.reporting.show import show_json, show_text
from sftscope.runs import pipeline
from sftscope.scoring.scorer import NAIVE, Scorer
from sftscope.store import RunFolder


@pytest.fixture(scope="module")
def extracted(toy_run) -> RunFolder:
    """A toy run, trained and extracted at three steps."""
    _, run = toy_run()
    pipeline.extract(run, steps=[0, 2, 6])
    return RunFolder(run)


@pytest.fixture
def fresh(extracted):
    """A copy of it beside it, so that its paths hold."""
    copy = extracted.path.with_name("copy")
    shutil.copytree(extracted.path, copy)
    yield RunFolder(copy)
    shutil.rmtree(copy)


def test_the_last_step_against_itself_is_nearly_itself(fresh):
    pipeline.placebo(fresh.path)
    assert fresh.placebo_steps() == (6,)
    first, second = fresh.read_step(6), fresh.read_placebo(6)
    assert not np.array_equal(first.scores, second.scores)  # another layout, or it would show nothing
    assert np.abs(first.scores - second.scores).max() < 1e-4
    apart = (first.scores - second.scores) ** 2
    for probe, sigma in enumerate(second.noise):
        assert sigma == pytest.approx(np.sqrt(apart[first.probe_slice(probe)].mean()))
    assert np.array_equal(first.effects.zeta, second.effects.zeta)
    assert second.provenance["scoring"] == "naive"
    assert second.provenance["adapter_sha256"] == first.provenance["adapter_sha256"]
    assert second.provenance["zeta_source"] == first.provenance["zeta_source"]
    (diff,) = compare_placebos(Evolution(load_history(fresh.path)), Selection(2))
    assert diff.step == 6
    assert diff.jaccard >= TRUSTED_JACCARD
    assert diff.counts[Change.PRESERVED] > 0
    assert diff.real_jaccard < diff.jaccard  # training changes more than the layout does


def test_a_placebo_is_deterministic_made_once_and_again_where_it_is_damaged(fresh, capsys, monkeypatch):
    pipeline.placebo(fresh.path, step=0)
    good = fresh.placebo_file(0).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(placebo_module, "prepare", None)  # is not called
        pipeline.placebo(fresh.path, step=0)
    assert "the placebo of step 0 is done" in capsys.readouterr().err
    fresh.placebo_file(0).write_bytes(good[:-9])
    pipeline.placebo(fresh.path, step=0)
    assert fresh.placebo_file(0).read_bytes() == good
    assert fresh.steps() == (0, 2, 6)  # and the steps are left alone


def test_an_interrupted_placebo_leaves_nothing(fresh, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "score_naively", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.placebo(fresh.path)
    assert not fresh.placebo_steps()
    assert not list(fresh.path.rglob("*tmp*"))


def test_what_cannot_be_extracted_again_is_one_line(fresh):
    with pytest.raises(SftscopeError, match=r"--placebo 3: not an extracted step .*: 0, 2, 6"):
        pipeline.placebo(fresh.path, step=3)
    shutil.rmtree(fresh.checkpoints / "checkpoint-2")
    with pytest.raises(SftscopeError, match="the checkpoint of step 2 is gone"):
        pipeline.placebo(fresh.path, step=2)
    weights = "adapter_model.safetensors"
    shutil.copy(fresh.checkpoints / "checkpoint-4" / weights, fresh.checkpoints / "checkpoint-6" / weights)
    with pytest.raises(SftscopeError, match="step 6 is not the one that was extracted"):
        pipeline.placebo(fresh.path)
    shutil.rmtree(fresh.steps_folder)
    with pytest.raises(SftscopeError, match="no step to extract again"):
        pipeline.placebo(fresh.path)
    assert not fresh.placebo_folder.exists()


def test_a_model_that_cannot_branch_is_scored_in_other_batches():
    batches = []

    class Recording:
        method = NAIVE

        def score_naively(self, prompt, subsets):
            batches.append(list(subsets))
            return np.array(subsets, dtype=float)

    class Prompt:
        states = every_state(3)

    assert placebo_module.score_again(Recording(), Prompt()).tolist() == list(range(8))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert batches[0] == [7, 6, 5]


def test_the_command_takes_a_step_and_refuses_what_does_not_go_together(fresh):
    result = sftscope("extract", fresh.path, "--placebo", 0)
    assert result.returncode == 0, result.stderr
    assert fresh.placebo_steps() == (0,)
    for arguments in (["--placebo", "--steps", "0"], ["--placebo", "--verify", 3], [0], ["--verify", -1]):
        assert sftscope("extract", fresh.path, *arguments).returncode == 2
    assert "not an extracted step" in fails_with_one_line("extract", fresh.path, "--placebo", 5)


def test_show_and_report_say_the_placebo_beside_the_real_counts(tmp_path):
    folder = planted(tmp_path / "run", step=3, noise=0.0)
    evolution = Evolution(load_history(folder.path))
    (diff,) = compare_placebos(evolution, Selection(3))
    real = evolution.partition(0, 3), evolution.partition(1, 3)
    assert diff.real == {change: sum(int(part[change].sum()) for part in real) for change in Change}
    assert (diff.counts[Change.REMOVED], diff.counts[Change.EMERGED], diff.jaccard) == (0, 0, 1.0)
    text = show_text(evolution, Selection(3))
    assert f"placebo: {sentence(diff)}" in text
    assert "step 3 against itself: − 0 removed = " in text
    shown = show_json(evolution, Selection(3))
    report = json.loads(write_report(evolution, tmp_path / "out")[1].read_text())
    assert shown["placebo"] == report["placebo"]
    assert report["placebo"][0]["counts"]["emerged"] == 0
    markdown = as_markdown(outline(make_report(evolution)))
    assert "| step 3 against itself " in markdown
    assert "step 3 against step 0" in markdown
    assert "sets change by themselves" not in markdown


def test_a_placebo_that_changes_is_a_warning(tmp_path):
    evolution = Evolution(load_history(planted(tmp_path / "run", step=3, noise=0.3).path))
    (diff,) = compare_placebos(evolution, Selection(3))
    assert diff.jaccard < TRUSTED_JACCARD
    markdown = as_markdown(outline(make_report(evolution)))
    assert markdown.index("the sets change by themselves") < markdown.index("## Over the steps")
    (one,) = compare_placebos(evolution, Selection(3, probe=0))
    assert one.counts[Change.EMERGED] < diff.counts[Change.EMERGED]


def test_without_a_placebo_the_report_says_how_to_make_one(tmp_path):
    evolution = Evolution(load_history(write_sample_run(tmp_path / "run", n_steps=3, n_probes=1, n=3)))
    assert show_json(evolution, Selection(2))["placebo"] == []
    assert "placebo" not in show_text(evolution, Selection(2))
    assert "--placebo" in as_markdown(outline(make_report(evolution)))


def test_a_placebo_without_any_interaction_has_no_jaccard(tmp_path):
    history = load_history(planted(tmp_path / "run", step=3, noise=0.0).path)
    bare = replace(history, probes=tuple(replace(p, table=EffectTable.of_dense(0 * p.effects)) for p in history.probes))
    none = tuple(part.table.until(0) for part in bare.probes)
    nothing = replace(history.placebos[0], tables=none)
    (diff,) = compare_placebos(Evolution(replace(bare, placebos=(nothing,))), Selection(3))
    assert np.isnan(diff.jaccard)
    assert "Jaccard undefined" in sentence(diff)


def test_damaged_and_foreign_placebos_are_named_in_what_is_left_out(tmp_path):
    folder = planted(tmp_path / "run", step=3, noise=0.0)
    folder.placebo_file(0).write_bytes(b"torn")
    folder.placebo_file(1).write_bytes(folder.placebo_file(3).read_bytes())
    folder.step_file(3).unlink()
    other = write_sample_run(tmp_path / "other", n_steps=4, n_probes=2, n=2)
    folder.placebo_file(2).write_bytes(RunFolder(other).step_file(2).read_bytes())
    history = load_history(folder.path)
    assert history.steps.tolist() == [0, 1, 2]
    assert not history.placebos
    reasons = [line.partition(": ") for line in history.left_out]
    assert [name for name, _, _ in reasons] == [f"placebo/step_0000000{step}.h5" for step in range(4)]
    expected = ("not a step file", "does not hold the results", "not the probes", "not among the extracted")
    for (_, _, reason), part in zip(reasons, expected, strict=True):
        assert part in reason
