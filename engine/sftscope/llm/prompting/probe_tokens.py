"""The probes of a run with their variables, some of which depend on where the LLM's tokens lie."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from sftscope.inputs.probes import Influential, Probe, read_probes
from sftscope.inputs.segmentation import Span
from sftscope.inputs.settings import ProbeSettings
from sftscope.llm.prompting.prompts import Template, tokenize_prompt


def chosen_probes(
    asked: ProbeSettings,
    tokenizer: Any,
    template: Template,
    *,
    before: Iterable[Probe] = (),
    influential: Influential | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> tuple[Probe, ...]:
    """The probes that settings (paths resolved) ask for; before, influential, note: as of `read_probes`.

    before: its `chosen`. influential: used where the settings ask for a choice by influence.
    """
    return read_probes(
        Path(asked.file),
        n_words=asked.n_words,
        seed=asked.seed,
        variables=asked.variables,
        tokens_of=partial(token_spans, tokenizer, template),
        chosen=before,
        influential=influential if asked.choice == "influence" else None,
        note=note,
    )


def token_spans(tokenizer: Any, template: Template, probe: Probe) -> list[Span]:
    """Start and end of each token of the templated prompt, in characters of the probe's text, also outside of it."""
    spans = tokenize_prompt(tokenizer, probe.prompt, template).spans
    return [(start - probe.text_start, end - probe.text_start) for start, end in spans]
