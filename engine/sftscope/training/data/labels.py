"""The labels of classification data, and those of them that what is scored cannot tell apart."""

from collections.abc import Sequence
from typing import Any

from sftscope.inputs.settings import RunSettings
from sftscope.llm.prompting.label_collisions import labels_of, shared_targets
from sftscope.training.data.rows import read_side


def find_collisions(settings: RunSettings, probe_answers: Sequence[str], tokenizer: Any) -> dict[str, list[str]]:
    """Labels of the training rows and the probes by the target that they share.

    Settings with paths resolved. Empty where the data are no classification, or where what is scored is named by text.
    """
    data, target = settings.data, settings.extraction.target
    if target.startswith(("token:", "span:")):
        return {}
    rows = read_side(data, "train")
    answers = [row.response for row in rows]
    if data.labels and data.format in ("auto", "goemotions"):  # a row with several labels names them all
        answers = [label for answer in answers for label in answer.split(", ")]
    labels = labels_of(answers)
    if not labels:
        return {}
    return shared_targets({*labels, *(answer.strip() for answer in probe_answers)}, target, tokenizer)
