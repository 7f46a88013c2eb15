"""A run whose words are chosen by influence: chosen once, the same each time, and shown."""

from dataclasses import replace

import pytest

from run_configs import write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.inputs.word_influence import Influence, Moved, influence_warnings
from sftscope.runs.begin import begin
from sftscope.runs.identity import identity_fits
from sftscope.scoring.influential_words import InfluentialWords
from sftscope.store import RunFolder

SETS = ["probes.choice=influence"]


def begun(config, out, sets=SETS):
    settings, folder = load_settings(config, sets), RunFolder(out)
    begin(settings, resolve_paths(settings, config.parent), folder, config)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    return begun(config, tmp_path_factory.mktemp("begun") / "run")


def test_each_probe_stores_its_words_and_how_far_they_move_v(folder):
    for probe in folder.read_probes():
        assert len(probe.words) == 4
        assert all(word in probe.prompt.split() for word in probe.variables)
        assert probe.influence.others == len(probe.prompt.split()) - 4 - sum(map(probe.prompt.split().count, "?,"))
        assert [each.weights for each in probe.influence.moved] == ["base"]
    assert identity_fits(folder.read_run())


def test_two_runs_choose_the_same_and_a_resumed_one_does_not_choose_again(config, folder, tmp_path, monkeypatch):
    other = begun(config, tmp_path / "other")
    assert other.probes_file.read_bytes() == folder.probes_file.read_bytes()
    assert other.read_run()["identity"] == folder.read_run()["identity"]
    monkeypatch.setattr(InfluentialWords, "__call__", None)  # would raise where it is asked again
    begun(config, folder.path)
    assert other.probes_file.read_bytes() == folder.probes_file.read_bytes()


def test_a_run_is_not_continued_by_another_choice(config, folder):
    with pytest.raises(SftscopeError, match=r"\[probes\] choice is 'spread', but .* was begun with 'influence'"):
        begun(config, folder.path, sets=[])


def test_what_is_said_names_all_numbers_and_warns_below_half(folder):
    probe = folder.read_probes()[0]
    influence = Influence(166, (Moved("base", 4.1, 5.2), Moved("checkpoint-8", 1.0, 6.0)))
    assert influence.in_words(10) == (
        "these 10 words move v by 4.1 of 5.2 on base; 1.0 of 6.0 on checkpoint-8; 166 others stay as they are"
    )
    assert Influence(1, (Moved("base", 3.7, 1.2),)).in_words(1) == (
        "this word moves v by 3.7 (all words together by 1.2) on base; 1 other stays as it is"
    )
    weak, strong = replace(probe, influence=influence), replace(probe, influence=Influence(1, influence.moved[:1]))
    assert list(influence_warnings([strong, replace(probe, influence=None)])) == []
    (line,) = influence_warnings([strong, weak])
    assert line.startswith(
        "in 1 of 2 probes the variables move less than 50% of what all words of the prompt move v by"
    )
    assert "p00 (1.0 of 6.0)" in line
