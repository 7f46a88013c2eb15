"""Runs of sampled masked states on a tiny model: scored by a trie, estimated, stored, labelled where they are read."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from explorer_pilot import opened, press, screen_text
from run_configs import SENTENCES, write_config
from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.comparison.run_pairs import compare_steps
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection, changes, orders_view, trends
from sftscope.analysis.trust.caveats import caveats
from sftscope.analysis.trust.estimate_intervals import ENCODED, estimate_view, r2_over_steps
from sftscope.analysis.trust.placebo import compare_placebos
from sftscope.analysis.trust.solver_residue import measure_residue
from sftscope.analysis.trust.zeta_sensitivity import with_other_zeta
from sftscope.decomposition import decompose
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.probes import Probe
from sftscope.lattice.masked_states import every_state, sample_states, triggers
from sftscope.lattice.transforms import Relation, orders_of
from sftscope.reporting.content import make_report
from sftscope.reporting.forms import write_report
from sftscope.reporting.run_csv import word_values_csv
from sftscope.reporting.show import show_json, show_text
from sftscope.runs import pipeline
from sftscope.scoring.masking import baseline_vector, states_of
from sftscope.scoring.prefix_tree import plan_walk, tree_tokens
from sftscope.scoring.scorer import COPY_FREE, STOCK, Scorer
from sftscope.store import RunFolder, StepFileError
from sftscope.store.steps.step_file import USER_BLOCK, from_bytes, to_bytes
from sftscope.verification.verify import verify
from sftscope_tui.contents.change_table import arrange, build_table
from sftscope_tui.state.view_state import Sort
from toy_llm import toy_model, toy_prompt

WORDS, STATES, REPLICATES = 18, 100, 3


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """(config, run folder): two probes of 18 words by 100 masked states each, and one whose 2^5 are all there."""
    folder = tmp_path_factory.mktemp("sampled")
    settings = f"check_states = 4\nmasked_states = {STATES}\nreplicates = {REPLICATES}"
    config = write_config(folder, **{"check_states = 4": settings, "n_words = 4": f"n_words = {WORDS}"})
    text = " ".join([*SENTENCES, *SENTENCES])
    probes = [
        {"instruction": "how does the guest feel ?", "input": text, "response": "sad"},
        {"instruction": "how does the guest feel ?", "input": text[4:], "response": "good"},
        {"instruction": "what is it ?", "input": SENTENCES[2], "response": "bad", "words": [[0, 6], [7, 11], [12, 15]]},
    ]
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    pipeline.run(config, folder / "run")
    return config, RunFolder(folder / "run")


@pytest.fixture(scope="module")
def history(sampled):
    return load_history(sampled[1].path)


@pytest.mark.parametrize(
    ("n", "count"),
    [
        (6, 20),
        (12, 60),
        (64, 8),
        pytest.param(20, 60, marks=pytest.mark.long),
        pytest.param(64, 80, marks=pytest.mark.long),
    ],
)
def test_a_trie_of_sampled_states_scores_them_as_plain_forwards_do(n, count):
    model, owners = toy_model("llama"), [[3 * i + 3] if i % 3 else [3 * i + 3, 3 * i + 4] for i in range(n)]
    prompt = replace(toy_prompt(length=3 * n + 8, owners=owners), sampled=sample_states(n, count, seed=1))
    baseline, kept = baseline_vector(model, "mean"), set()
    naive = Scorer(model, baseline, 1e9).score_naively(prompt, prompt.states.subset.tolist())
    assert np.ptp(naive) > 1e-2
    for memory in (1.0, 1e5, 1e9):
        scorer = Scorer(model, baseline, memory, fixed_cost=0)
        assert scorer.method == COPY_FREE
        np.testing.assert_allclose(scorer.score(prompt), naive, atol=1e-4, rtol=0)
        kept.add(plan_walk(model, prompt, memory, 0).kept)
    assert kept >= {1, count}  # the limits did split the walk
    assert tree_tokens(prompt) < len(prompt.ids) * count


def test_a_trie_of_all_states_is_the_tree():
    model = toy_model("llama")
    scorer, prompt = Scorer(model, baseline_vector(model, "mean"), 1e9), toy_prompt()
    whole = replace(prompt, sampled=every_state(prompt.n_variables))
    assert tree_tokens(whole) == tree_tokens(prompt)
    np.testing.assert_allclose(scorer.score(whole), scorer.score(prompt), atol=1e-5, rtol=0)


def test_a_model_without_the_copy_free_tree_scores_a_sample_plainly():
    model = toy_model("llama")
    scorer, prompt = Scorer(model, baseline_vector(model, "mean"), 1e9), toy_prompt()
    scorer.__dict__["method"] = STOCK
    some = replace(prompt, sampled=sample_states(6, 20))
    np.testing.assert_allclose(scorer.score(some), scorer.score(prompt)[some.states.subset.astype(int)], atol=1e-4)


def test_the_states_of_a_probe_hang_on_its_id_and_the_seed_alone():
    probe = Probe("a", "", " ".join("bcdefghijklmnopqrst"), "x", tuple((2 * i, 2 * i + 1) for i in range(19)))
    one, again, other = (states_of(replace(probe, id=name), 200, 0) for name in "aab")
    assert np.array_equal(one.subset, again.subset)
    assert not np.array_equal(one.subset, other.subset)
    assert not np.array_equal(one.subset, states_of(probe, 200, 1).subset)
    few = replace(probe, words=probe.words[:7])
    assert states_of(few, 128, 0) is None
    assert states_of(few, 127, 0).subset.size == 127
    assert states_of(few, 0, 0) is None
    with pytest.raises(SftscopeError, match="19 variables have too many masked states to score all"):
        states_of(probe, 0, 0)


def test_more_than_sixteen_words_without_a_sample_is_one_line(sampled, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(sampled[0].read_text().replace(f"masked_states = {STATES}", "masked_states = 0"))
    for name in ("toy", "rows.jsonl", "probes.jsonl"):
        (tmp_path / name).symlink_to(sampled[0].parent / name)
    with pytest.raises(SftscopeError, match=r"set \[extraction\] masked_states .*such as 1000"):
        pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_step_has_the_same_states_and_what_is_whole_is_exact(sampled, history):
    folder = sampled[1]
    assert [part.is_estimated for part in history.probes] == [True, True, False]
    assert [part.states.subset.size for part in history.probes] == [STATES, STATES, 8]
    for step in folder.steps():
        record = folder.read_step(step)
        for p, part in enumerate(history.probes):
            assert np.array_equal(record.states_of(p).subset, part.states.subset)
        scores, pairs = record.scores[record.probe_slice(2)], record.pairs_of(2)
        exact = decompose(scores, record.effects.zeta[2], names=[history.probes[2].probe.variables])
        dense = np.zeros((2, 8))
        dense[pairs.relation, pairs.subset.astype(int)] = pairs.effect
        np.testing.assert_array_equal(dense, np.stack([exact.and_effects[0], exact.or_effects[0]]))
    assert not verify(folder.path).findings


def test_effects_match_the_scores_of_the_matched_states(sampled, history):
    record = sampled[1].read_step(4)
    for p, part in enumerate(history.probes):
        pairs, states = record.pairs_of(p), record.states_of(p)
        scores = record.scores[record.probe_slice(p)]
        model = scores[0] + triggers(states.subset, pairs.relation, pairs.subset) @ pairs.effect
        now = history.index_of(4)
        np.testing.assert_allclose(part.bias[now] + part.table.model(now, part.states), model, atol=1e-9)
        assert np.abs(model - scores)[~states.held_out].max() <= record.effects.zeta[p] * (1 + 1e-9)
        out = states.held_out
        if out.any():
            expected = 1 - ((model - scores)[out] ** 2).sum() / ((scores[out] - scores[out].mean()) ** 2).sum()
            assert r2_over_steps(part)[now] == pytest.approx(expected)


def test_workers_make_the_same_files(sampled, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(sampled[1].path, again, ignore=shutil.ignore_patterns("steps"))
    for name in ("toy", "rows.jsonl", "probes.jsonl", "config.toml"):
        (tmp_path / name).symlink_to(sampled[0].parent / name)
    pipeline.extract(again, place=(1, 2), block=1)
    for step in sampled[1].steps():
        ours, theirs = RunFolder(again).read_step(step), sampled[1].read_step(step)
        assert to_bytes(replace(ours, provenance={})) == to_bytes(replace(theirs, provenance={}))


def test_a_sampled_step_is_read_back_as_it_was(sampled):
    record = sampled[1].read_step(2)
    data = to_bytes(record)
    assert data.startswith(b"sftscope-step 2\n")
    assert to_bytes(from_bytes(data, source="x")) == data
    bare = replace(record, effects=None)
    assert to_bytes(from_bytes(to_bytes(bare), source="x")) == to_bytes(bare)
    nothing = replace(
        record.effects, n_effects=0 * record.effects.n_effects, relation=np.zeros(1, np.uint8),
        subset=np.zeros(1, np.uint64), effect=np.zeros(1),
    )  # fmt: skip
    empty = from_bytes(to_bytes(replace(record, effects=nothing)), source="x")
    assert empty.pairs_of(0).effect.size == 0


@pytest.mark.parametrize(
    ("part", "name", "change", "message"),
    [
        ("sample", "states", lambda x: x[::-1].copy(), "states: expected ascending"),
        ("sample", "states", lambda x: np.where(x == x[1], x[0], x), "states: expected ascending"),
        ("sample", "held_out", lambda x: np.ones_like(x), "held_out: expected"),
        ("effects", "relation", lambda x: x + np.uint8(2), "relation: expected 0 or 1"),
        ("effects", "subset", lambda x: x | np.uint64(1 << 60), "subset: expected words of the probe"),
        ("effects", "subset", lambda x: 0 * x, "subset: expected words of the probe"),
        ("effects", "n_effects", lambda x: -x, "n_effects: expected a number"),
    ],
)
def test_values_that_no_writer_makes_are_refused(sampled, part, name, change, message):
    record = sampled[1].read_step(2)
    source = getattr(record, part)
    broken = replace(record, **{part: replace(source, **{name: change(getattr(source, name))})})
    try:
        data = to_bytes(broken)
    except ValueError:
        return  # not even written
    assert len(data) > USER_BLOCK
    with pytest.raises(StepFileError, match=message):
        from_bytes(data, source="x")


def test_partition_laws_and_counts_hold_for_estimates(history):
    evolution = Evolution(history)
    for p in range(3):
        for now in range(history.steps.size):
            sets = evolution.partition(p, now, 0)
            everything = np.logical_or.reduce(list(sets.values()))
            assert np.array_equal(everything, evolution.omega(p, 0) | evolution.omega(p, now))
            exact = replace(evolution, hysteresis=1.0).partition(p, now, 0)
            assert np.array_equal(exact[Change.REMOVED] | exact[Change.PRESERVED], evolution.omega(p, 0))
            assert np.array_equal(exact[Change.PRESERVED] | exact[Change.EMERGED], evolution.omega(p, now))
    diff, last = changes(evolution, Selection(4)), trends(evolution, Selection(4))
    for change in Change:
        assert sum(row.change is change for row in diff.rows) == round(3 * last.classes[change].count_mean[-1])
    for row in diff.rows:
        assert row.order == len(row.words) == row.subset.bit_count()
        part = history.probes[history.probe_index(row.probe)]
        assert row.series == tuple(part.table.series(int(row.relation == "OR"), row.subset))
    distribution = orders_view(evolution, Selection(4)).classes[Change.EMERGED]
    assert sum(part.count_mean for part in distribution) == pytest.approx(last.classes[Change.EMERGED].count_mean[-1])


def test_intervals_lie_around_the_counts_and_an_exact_probe_has_none(history):
    evolution = Evolution(history)
    view = estimate_view(evolution, Selection(4))
    assert view is not None
    assert (view.probes, view.words, view.masked_states, view.replicates) == (2, (18, 18), (STATES, STATES), REPLICATES)
    over_time = trends(evolution, Selection(4))
    for t, (low, high) in enumerate(view.intervals[ENCODED]):
        assert low <= over_time.encoded_mean[t] + 1e-9
        assert high >= over_time.encoded_mean[t] - 1e-9
    assert any(high > low for low, high in view.intervals[ENCODED])
    assert estimate_view(evolution, Selection(4, probe=2)) is None
    assert history.probes[2].replicates == ()


@pytest.mark.parametrize("trajectory", [False, True])
def test_support_counts_the_replicates_with_the_same_class(history, trajectory):
    evolution, selection = Evolution(history), Selection(4, trajectory=trajectory)
    again = [Evolution(history.replicate(number)) for number in range(REPLICATES)]
    rows = changes(evolution, selection).rows
    for row in rows:
        p, relation, agree = history.probe_index(row.probe), int(row.relation == "OR"), 0
        for each in again:
            place = each.history.probes[p].table.place(row.subset)
            sets = each.partition(p, 4, trajectory=trajectory)
            agree += place is not None and bool(sets[row.change][relation, place])
        assert row.support == (agree if p < 2 else None)
    assert {row.support for row in rows} >= {None, REPLICATES}
    if not trajectory:
        table = build_table(evolution, selection)
        known = {(row.probe, row.relation, row.subset): row.support for row in rows}
        for i in range(table.subset.size):
            key = history.probes[int(table.probe[i])].probe.id, Relation(int(table.relation[i])).name
            assert int(table.support[i]) == (-1 if (own := known[*key, int(table.subset[i])]) is None else own)
        assert arrange(table, Sort.STRENGTH, "rep:0-2").size == sum(row.support in (0, 1, 2) for row in rows)


def test_a_run_beside_itself_is_the_same(history):
    evolution = Evolution(history, hysteresis=1.0)  # two runs are compared by what is encoded, without a past
    diff = compare_steps(evolution, 4, evolution, 4, [(p, p) for p in range(3)])
    assert diff.jaccard == 1.0
    assert diff.same_sign == 1.0
    signs = reference_signs(history, evolution)
    for p, part in enumerate(history.probes):
        assert np.array_equal(signs[p] != 0, evolution.omega(p, 4))
        assert signs[p].shape == (2, part.table.subsets.size)
    early = compare_steps(evolution, 0, evolution, 4, [(0, 0)])
    sets = evolution.partition(0, 4, 0)
    assert list(early.counts.values()) == [
        int(sets[c].sum()) for c in (Change.REMOVED, Change.PRESERVED, Change.EMERGED)
    ]


def test_the_placebo_of_a_sampled_step(sampled, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(sampled[1].path, again)
    for name in ("toy", "rows.jsonl", "probes.jsonl", "config.toml"):
        (tmp_path / name).symlink_to(sampled[0].parent / name)
    pipeline.placebo(again, step=4)
    history = load_history(again)
    (diff,) = compare_placebos(Evolution(history), Selection(4))
    assert diff.counts[Change.PRESERVED] > 0
    assert diff.jaccard > 0.8
    assert not verify(again).findings


def test_word_values_are_those_of_the_effects(history):
    rows = [line.split(",") for line in word_values_csv(Evolution(history), [4]).splitlines()[1:]]
    part = history.probes[0]
    own = [row for row in rows if row[1].strip('"') == part.probe.id]
    assert len(own) == WORDS
    model = part.table.model(4, part.states)
    assert sum(float(row[5]) for row in own) == pytest.approx(model[-1], abs=1e-9)  # Shapley values are efficient


def test_show_and_report_carry_the_label(history, tmp_path):
    evolution = Evolution(history)
    (label,) = caveats(history)
    assert label.startswith(f"ESTIMATED: 2 of 3 probes from {STATES} of 2^18 masked states, effects of up to 4 words")
    assert "and of complete masked states; at the last step" in label
    text = show_text(evolution, Selection(4))
    assert label in text
    assert "masked states were held out" in text
    plain = show_json(evolution, Selection(4))
    assert plain["estimate"]["replicates"] == REPLICATES
    assert len(plain["estimate"]["intervals"]["emerged"]) == history.steps.size
    report = make_report(evolution)
    assert report.estimate is not None
    write_report(evolution, tmp_path, formats=["md", "html", "json", "csv"])
    for name in ("report.md", "report.html"):
        content = (tmp_path / name).read_text()
        assert "ESTIMATED" in content
        assert "How far the estimates can be believed" in content
    assert json.loads((tmp_path / "report.json").read_text())["estimate"]["probes"] == 2
    with pytest.raises(SftscopeError, match="shapiq: needs all masked states"):
        write_report(evolution, tmp_path / "other", formats=["shapiq"])


async def test_the_explorer_carries_the_label_in_every_view(sampled):
    async with opened(sampled[1].path, step=4) as pilot:
        for key in "12345678":
            await press(pilot, key)
            assert "ESTIMATED" in screen_text(pilot)
        await press(pilot, "1", "a")
        assert "ESTIMATED, R²" in screen_text(pilot)
        await press(pilot, "P")  # the last probe, of which all masked states were scored
        assert "p02" in screen_text(pilot)
        assert "ESTIMATED, R²" not in screen_text(pilot)
        await press(pilot, "2", "a")
        assert f"/{REPLICATES} " in screen_text(pilot)
        await press(pilot, "8", *"wwwwwwwwwwwwwwww")  # every dataset of a sampled step
        await press(pilot, "5", "space")  # a masked state that was not scored
        assert "2 of 3 words in" in screen_text(pilot)


def test_orders_of_estimates_are_bounded(history):
    pairs = history.probes[0].table.pairs(4)
    assert orders_of(pairs.subset).max() <= 4


def test_another_zeta_is_estimated_from_the_same_states(history):
    wider = with_other_zeta(history, 2.0)
    assert np.array_equal(wider.probes[0].zeta, 2.0 * history.probes[0].zeta)
    again = with_other_zeta(history, 1.0)
    for p in range(3):
        assert np.array_equal(again.probes[p].table.dense(), history.probes[p].table.dense())
        assert wider.probes[p].mismatch.largest.max() <= 2.0 * history.probes[p].zeta.max() * (1 + 1e-9)
    assert wider.probes[0].table.effect.size < history.probes[0].table.effect.size


def test_the_plain_descent_is_refused(history):
    with pytest.raises(SftscopeError, match="needs all masked states of every probe"):
        measure_residue(Evolution(history), [4])
