"""The embedded demo shows what it is made to show, by the ordinary run and the ordinary analysis."""

import json
import socket
import sys

import numpy as np
import pytest

from sftscope import demo
from sftscope.analysis.course.events import find_events
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.lattice.transforms import Relation, logical_model
from sftscope_tui.cli import main

STRONGEST = 5


@pytest.fixture(scope="module")
def evolution(tmp_path_factory):
    """The run of `sftscope demo`, as the README has it, made without network."""
    folder = tmp_path_factory.mktemp("demo")

    def no_network(*_):
        raise AssertionError("the demo used the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", no_network)
        patch.setattr(socket, "getaddrinfo", no_network)
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["sftscope", "demo", "--no-explore"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    return Evolution(load_history(folder / "sftscope-demo"))


def test_its_weights_are_small():
    weights = [file for file in demo.FOLDER.rglob("*") if file.suffix == ".safetensors"]
    assert weights
    assert sum(file.stat().st_size for file in weights) <= 4e6


def test_its_size_is_what_is_promised(evolution):
    history = evolution.history
    assert len(history.probes) == 8
    assert all(probe.n_variables == 8 for probe in history.probes)
    assert history.steps.size >= 10


def test_every_masked_state_is_matched_and_every_gap_certified(evolution):
    for probe in evolution.history.probes:
        model = logical_model(probe.bias, probe.effects[:, 0], probe.effects[:, 1])
        scale = np.abs(probe.scores - probe.bias[:, None]).max()
        assert (np.abs(model - probe.scores).max(axis=1) <= probe.zeta + 1e-9 * scale).all()
        assert (probe.gap <= 1e-3).all()
        assert (probe.noise <= 1e-4).all()


def is_among_the_strongest(evolution, number, pattern, now) -> bool:
    """Whether a planted pattern is one of the strongest preserved or emerged interactions at a step index."""
    probe = evolution.history.probes[number]
    sets = evolution.partition(number, now)
    members = sets[Change.PRESERVED] | sets[Change.EMERGED]
    subset = sum(1 << probe.probe.variables.index(word) for word in pattern["words"])
    place = (Relation[pattern["relation"]], subset)
    strengths = np.where(members, np.abs(probe.effects[now]), 0.0)
    return bool(members[place]) and int((strengths > strengths[place]).sum()) < STRONGEST


def test_the_planted_patterns_are_among_the_strongest_when_denoising_ends(evolution):
    planted = json.loads((demo.FOLDER / "planted.json").read_text())
    sparsest = find_events(evolution.history).sparsest.index
    assert sparsest is not None
    assert {pattern["relation"] for patterns in planted.values() for pattern in patterns} == {"AND", "OR"}
    found = [
        all(is_among_the_strongest(evolution, number, pattern, sparsest) for pattern in planted[probe.probe.id])
        for number, probe in enumerate(evolution.history.probes)
    ]
    assert sum(found) >= 0.8 * len(found)


def test_it_denoises_and_then_overfits(evolution):
    history = evolution.history
    sparsest = find_events(history).sparsest.index
    number = effective_numbers(history).mean(axis=0)
    assert number[sparsest] < 0.5 * number[0]
    emerged = [
        np.mean([evolution.partition(p, t)[Change.EMERGED].sum() for p in range(len(history.probes))])
        for t in (sparsest, -1 % history.steps.size)
    ]
    assert emerged[1] > 4 * emerged[0]
    gap = history.losses["eval"] - history.losses["train"]
    assert history.losses["train"][-1] < history.losses["train"][sparsest]
    assert history.losses["eval"][-1] > 1.5 * history.losses["eval"].min()
    assert gap[-1] > gap[sparsest] + 0.1


def test_no_eval_row_and_no_probe_is_in_the_training_set():
    def inputs(name):
        return {json.loads(line)["input"] for line in (demo.FOLDER / name).read_text().splitlines()}

    assert not inputs("train.jsonl") & (inputs("eval.jsonl") | inputs("probes.jsonl"))
