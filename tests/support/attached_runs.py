"""Checkpoints of others, attached with the settings of the toy model."""

from foreign_training import WORDS
from sftscope.attach.attach import Choices, attach
from sftscope.store import RunFolder


def attached(inputs, source, out, **options):
    watching = options.pop("watching", None)
    chosen = {"settings": {"model": {"path": str(inputs / "toy"), "device": "cpu"}, "probes": {"n_words": WORDS}}}
    attach(source, out, inputs / "probes.jsonl", Choices(**{**chosen, **options}), watching)
    return RunFolder(out)
