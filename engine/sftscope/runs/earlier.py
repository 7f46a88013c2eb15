"""Runs that earlier releases began: what their settings meant then, so that they are continued as they were begun."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from sftscope.inputs.settings import ExtractionSettings, RunSettings

MEANING = 2  # of settings, as run.toml names it; a run that names none was begun when it was 1
# defaults of earlier releases: a setting at one of them is no choice of the user's, and is no part of an identity
FORMER_DEFAULTS: Mapping[tuple[str, str], Any] = {
    ("extraction", "target"): "first",  # which tokens are scored is in the hash of the probes
    ("probes", "n_words"): 10,  # of every probe; now of those that have as many: the same words, or it was refused
    ("training", "checkpoints"): (0, 1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512),
}


def is_former_default(table: str, key: str, value: Any) -> bool:
    """Whether a setting, as `RunSettings.as_dict` has it, is at a default that an earlier release had."""
    former = FORMER_DEFAULTS.get((table, key))
    return former is not None and former == (tuple(value) if isinstance(value, list) else value)


def is_earlier(run: Mapping[str, Any]) -> bool:
    """Whether the run of a run.toml was begun when settings meant something else."""
    return bool(run.get("meaning", 1) != MEANING)


def as_begun(settings: RunSettings, kept: RunSettings, run: Mapping[str, Any]) -> RunSettings:
    """`settings`, of the same identity as `kept`, with what the run of a run.toml was begun with where they differ.

    Its grid of checkpoints stays, and what was scored by default. A constant schedule of an earlier release ignored the
    warm-up: it still has none.
    """
    training = replace(settings.training, checkpoints=kept.training.checkpoints)
    if is_earlier(run) and training.schedule == "constant":
        training = replace(training, warmup_ratio=0.0)
    return with_former_target(replace(settings, training=training), kept, run)


def with_former_target(settings: RunSettings, kept: RunSettings, run: Mapping[str, Any]) -> RunSettings:
    """`settings` with the target that the run was begun with, where both took the default."""
    default = ExtractionSettings().target
    former = FORMER_DEFAULTS["extraction", "target"]
    if not is_earlier(run) or (settings.extraction.target, kept.extraction.target) != (default, former):
        return settings
    return replace(settings, extraction=replace(settings.extraction, target=former))
