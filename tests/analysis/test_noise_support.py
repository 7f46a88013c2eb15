"""The support of exact probes: how many slightly noisy copies of the scores give an interaction its class."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import sftscope
from histories import history_of
from sample_history import ZETA, write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, changes
from sftscope.analysis.trust import noise_support as module
from sftscope.analysis.trust.noise_support import (
    COPIES,
    kept_copies,
    noise_support,
    noisy_copies,
    with_noise_support,
)
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Relation


def clear_run() -> Evolution:
    """AND 1 is removed, AND 2 stays, AND 3 emerges, each far above τ; AND 4 emerges right at it."""
    effects = np.zeros((2, 2, 8))
    effects[0, 0, [1, 2]], effects[1, 0, [2, 3, 4]] = (2, 2), (2, 2, 1)
    return Evolution(history_of([effects]), ThresholdRule("absolute", 1 - ZETA))


def test_what_is_far_from_the_threshold_has_its_class_in_every_copy() -> None:
    counts = noise_support(clear_run(), 0, 1)
    assert counts[Change.REMOVED][0, 1] == COPIES
    assert counts[Change.PRESERVED][0, 2] == COPIES
    assert counts[Change.EMERGED][0, 3] == COPIES
    assert not counts[Change.REMOVED][1].any()


def test_the_noise_is_a_tenth_of_zeta_or_sigma_and_the_same_each_time() -> None:
    evolution = clear_run()
    scores = evolution.history.probes[0].scores[1]
    noise = noisy_copies(evolution.history, 0, 1, 500) - scores
    assert noise.std() == pytest.approx(0.1 * ZETA, rel=0.05)
    np.testing.assert_array_equal(noisy_copies(evolution.history, 0, 1, 500) - scores, noise)
    assert not np.allclose(noisy_copies(evolution.history, 0, 0, 500) - evolution.history.probes[0].scores[0], noise)
    part = replace(evolution.history.probes[0], noise=np.array([0.5, 0.5]))
    loud = Evolution(replace(evolution.history, probes=(part,)), evolution.rule)
    assert (noisy_copies(loud.history, 0, 1, 500) - scores).std() == pytest.approx(0.5, rel=0.05)


def test_what_lies_at_the_threshold_has_its_class_in_some_copies() -> None:
    """τ is set to the middle of what the copies make of one effect."""
    evolution = clear_run()
    copies = kept_copies(evolution.history)
    strengths = []
    for tau in np.linspace(0.9, 1.02, 25):
        near = Evolution(evolution.history, ThresholdRule("absolute", float(tau)))
        strengths.append(int(noise_support(near, 0, 1, made=copies)[Change.EMERGED][0, 4]))
    assert strengths == sorted(strengths, reverse=True)
    assert (strengths[0], strengths[-1]) == (COPIES, 0)
    assert any(0 < count < COPIES for count in strengths)


def test_the_rows_carry_the_counts_and_nothing_else_changes(tmp_path: Path) -> None:
    evolution = Evolution(load_history(write_sample_run(tmp_path / "run", n_steps=4, n_probes=2, n=4)))
    selection = Selection(3)
    diff = changes(evolution, selection)
    found = with_noise_support(evolution, selection, diff, copies=3)
    counts = {f"p0{p}": noise_support(evolution, p, 3, copies=3) for p in range(2)}
    assert [replace(row, support=None) for row in found.rows] == diff.rows
    for row in found.rows:
        assert row.support == counts[row.probe][row.change][Relation[row.relation], row.subset]
    assert max(row.support or 0 for row in found.rows) == 3
    alone = with_noise_support(evolution, Selection(3, probe=1), changes(evolution, Selection(3, probe=1)), copies=3)
    assert alone.rows == [row for row in found.rows if row.probe == "p01"]


def test_the_commands_offer_it(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=3)
    shown = sftscope("show", path, "--support", "--json")
    assert shown.returncode == 0, shown.stderr
    assert {row["support"] for row in json.loads(shown.stdout)["changes"]["rows"]} <= set(range(COPIES + 1))
    assert "in how many of 8 copies" in sftscope("show", path, "--support", "--view", "changes").stdout
    assert "in how many of 8 copies" not in sftscope("show", path, "--view", "changes").stdout
    written = sftscope("report", path, "--out", tmp_path / "out", "--support", "--format", "md")
    assert written.returncode == 0, written.stderr
    assert "in how many of 8 copies" in (tmp_path / "out" / "report.md").read_text()


def test_without_scipy_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(SftscopeError, match="support needs scipy"):
        noise_support(clear_run(), 0, 1)
