"""From a probe's words to masked tokens: which tokens each variable owns, and what masks them.

A variable's tokens are those whose characters overlap its span, found by the tokenizer's offsets
on the templated prompt. Masking replaces their input embeddings by one baseline vector; length,
positions and attention stay as they are. Where a model has per-layer embeddings too (Gemma 3n, Gemma 4),
those of a masked word are replaced in the same way.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sftscope.compat.input_vectors import input_vectors, vector_width
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import Probe
from sftscope.inputs.settings import ExtractionSettings
from sftscope.lattice.masked_states import MOST_ENUMERATED, MOST_SAMPLED, States, every_state, sample_states
from sftscope.llm.prompting.prompts import Template, single_token, tokenize_prompt, tokenize_response
from sftscope.llm.prompting.targets import target_in
from sftscope.store.prompt_hashes import DIGITS

_VOCABULARY_CHUNK = 16_384


@dataclass(frozen=True, eq=False)
class MaskedPrompt:
    """A probe as L tokens of one LLM.

    ids: (L,) the prompt, with the response tokens before the last target, if any. owner: (L,) the
    variable that each token belongs to, -1 for none. target: id of the scored token. further: the
    response tokens that are scored after it, each given those before.
    """

    ids: tuple[int, ...]
    owner: tuple[int, ...]
    target: int
    n_variables: int
    further: tuple[int, ...] = ()
    sampled: States | None = None  # which masked states are scored; None: all 2^n

    @property
    def states(self) -> States:
        """The masked states that are scored, in the order of their scores."""
        return every_state(self.n_variables) if self.sampled is None else self.sampled

    @property
    def n_states(self) -> int:
        """m, masked states that are scored."""
        return 1 << self.n_variables if self.sampled is None else int(self.sampled.subset.size)

    @property
    def targets(self) -> tuple[int, ...]:
        """Ids of the m scored tokens; target i is predicted at the i-th of the last m positions of `ids`."""
        return (self.target, *self.further)

    def distinct_prefixes(self) -> list[int]:
        """Masked states that differ in the first k words, for k = 0 … n: (n + 1,)."""
        if self.sampled is None:
            return [1 << k for k in range(self.n_variables + 1)]
        first_words = [np.uint64((1 << k) - 1) for k in range(self.n_variables + 1)]
        return [np.unique(self.sampled.subset & words).size for words in first_words]

    def starts(self) -> list[int]:
        """Position of the first token of each variable, ascending."""
        return [self.owner.index(variable) for variable in range(self.n_variables)]


def prompt_hash(prompt: MaskedPrompt) -> str:
    """What of a probe is scored, as 16 hexadecimal digits: its ids, the variables that own them, and the targets."""
    content = json.dumps([prompt.ids, prompt.owner, prompt.targets])
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]


def last_words_kept(prompt: MaskedPrompt, n: int) -> MaskedPrompt:
    """The prompt with its last `n` words as the only variables; the others keep their embeddings."""
    dropped = prompt.n_variables - n
    owner = tuple(variable - dropped if variable >= dropped else -1 for variable in prompt.owner)
    return replace(prompt, owner=owner, n_variables=n, sampled=None)


def states_of(probe: Probe, masked_states: int, seed: int) -> States | None:
    """The sample of at most `masked_states` masked states of a probe; None if 2^n are no more, or it is 0.

    It depends on the seed and the probe's id alone. SftscopeError for more words than can be enumerated without one,
    and for more states than an estimate takes.
    """
    n = len(probe.words)
    if n <= MOST_ENUMERATED and (not masked_states or 1 << n <= masked_states):
        return None
    if not masked_states:
        raise SftscopeError(
            f"probe {safe_text(repr(probe.id), max_length=80)}: {n} variables have too many masked states to score all "
            f"(at most {MOST_ENUMERATED} variables); set [extraction] masked_states (--masked-states), such as 1000, "
            "or use fewer words"
        )
    if masked_states > MOST_SAMPLED:
        raise SftscopeError(
            f"probe {safe_text(repr(probe.id), max_length=80)}: {masked_states} of the 2^{n} masked states are too "
            f"many for an estimate (at most {MOST_SAMPLED}); lower [extraction] masked_states (--masked-states), or "
            f"set 0 if no probe has more than {MOST_ENUMERATED} variables"
        )
    digest = hashlib.sha256(f"{seed} {probe.id}".encode()).digest()
    return sample_states(n, masked_states, int.from_bytes(digest[:8]))


def mask_probe(probe: Probe, tokenizer: Any, template: Template, target: str = "auto") -> MaskedPrompt:
    """The probe's tokens and their owners; SftscopeError where a word has no token of its own.

    target: what of the answer is scored, see `target_in`.
    """
    if target.startswith("token:"):
        single_token(tokenizer, target.removeprefix("token:"), setting="[extraction] target")
    try:
        return _mask_probe(probe, tokenizer, template, target)
    except SftscopeError as error:
        raise type(error)(f"probe {safe_text(probe.id)!r}: {error}") from None


def masked_prompts(
    probes: Sequence[Probe], tokenizer: Any, template: Template, settings: ExtractionSettings
) -> tuple[MaskedPrompt, ...]:
    """The probes of a run with the masked states that its settings ask for."""
    return tuple(
        replace(
            mask_probe(probe, tokenizer, template, settings.target),
            sampled=states_of(probe, settings.masked_states, settings.seed),
        )
        for probe in probes
    )


def _mask_probe(probe: Probe, tokenizer: Any, template: Template, wanted: str) -> MaskedPrompt:
    prompt = tokenize_prompt(tokenizer, probe.prompt, template)
    target = target_in(probe.response, wanted, tokenizer)
    owner = [-1] * len(prompt.ids)
    for variable, (start, end) in enumerate(probe.words):
        start, end = start + probe.text_start, end + probe.text_start
        tokens = [i for i, (left, right) in enumerate(prompt.spans) if left < end and start < right]
        if not tokens:
            raise SftscopeError(f"the word {safe_text(probe.variables[variable])!r} has no token in the prompt")
        for token in tokens:
            if owner[token] != -1:
                raise SftscopeError(
                    f"the words {safe_text(probe.variables[owner[token]])!r} and "
                    f"{safe_text(probe.variables[variable])!r} share a token; choose other spans"
                )
            owner[token] = variable
    response = tokenize_response(tokenizer, probe.response)
    before = response[: target.start + len(target.ids) - 1]
    ids, owners = prompt.ids + before, tuple(owner) + (-1,) * len(before)
    return MaskedPrompt(ids, owners, target.ids[0], len(probe.words), target.ids[1:])


def probe_targets(prompts: Sequence[MaskedPrompt], tokenizer: Any) -> list[dict[str, Any]]:
    """Id of the first scored token of each probe and the text of all; `ids` too where there are several."""
    scored = [prompt.targets for prompt in prompts]
    return [
        {"id": ids[0], "text": tokenizer.decode(list(ids))} | ({"ids": list(ids)} if len(ids) > 1 else {})
        for ids in scored
    ]


@torch.inference_mode()
def baseline_vector(model: Any, kind: str, tokenizer: Any = None) -> torch.Tensor:
    """What masks a word, in place of its input vector: (width,), in the model's dtype.

    width: d, the size of an embedding; of models with per-layer embeddings d + layers · p, so that the same is taken
    for them as for the embedding. `mean` is the mean over the vocabulary of the embedding modules' output (Gemma
    scales inside), summed in float64; `zero` is 0; `token:<text>` is their output for that one token, for which the
    tokenizer is needed.
    """
    weight, width = model.get_input_embeddings().weight, vector_width(model)
    rows, device = weight.shape[0], weight.device
    if kind == "zero":
        return torch.zeros(width, dtype=weight.dtype, device=device)
    if kind.startswith("token:"):
        token = single_token(tokenizer, kind.removeprefix("token:"), setting="[extraction] baseline_vector")
        return input_vectors(model, torch.tensor([token], device=device))[0].clone()
    total = torch.zeros(width, dtype=torch.float64, device=device)
    chunk = max(1, _VOCABULARY_CHUNK * weight.shape[1] // width)
    for start in range(0, rows, chunk):
        ids = torch.arange(start, min(start + chunk, rows), device=device)
        total += input_vectors(model, ids).to(torch.float64).sum(dim=0)
    return (total / rows).to(weight.dtype)
