"""What we use of libraries beyond what they promise: when one of these fails, a release changed it, and `compat` is
where to look."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from sftscope.compat import transformers as ours
from sftscope.decomposition.process_pool import threads_kept
from strangers import SUPPORT
from toy_llm import CONFIGS, toy_model

ARCHITECTURES = [*CONFIGS, "gptoss"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_forward_takes_its_cache_by_the_name_found_and_warns_of_nothing(architecture: str) -> None:
    """The logits after a cached prefix are those of the whole prompt."""
    model = toy_model(architecture)
    embedded = model.get_input_embeddings()(torch.arange(3, 11)[None])
    places = torch.arange(3)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        assert ours.can_branch(model)
        cache = ours.DynamicCache(config=model.config)
        ours.fill_cache(model, embedded[:, :5], cache)
        after = ours.causal_lm_logits(model, embedded[:, 5:], places, cache)
        whole = ours.causal_lm_logits(model, embedded, places + 5, None)
    torch.testing.assert_close(after, whole, atol=1e-4, rtol=1e-4)


def test_a_name_that_is_deprecated_is_not_used() -> None:
    """transformers renamed `past_key_values` to `cache` and takes both for a while; a forward may have either."""

    class Old:
        def forward(self, inputs_embeds=None, past_key_values=None): ...

    class New:
        def forward(self, inputs_embeds=None, cache=None, past_key_values=None): ...

    class Neither:
        def forward(self, inputs_embeds=None, state=None): ...

    assert [ours.cache_argument(kind()) for kind in (Old, New, Neither)] == ["past_key_values", "cache", ""]


def test_a_state_space_model_cannot_branch() -> None:
    model = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1))
    assert not ours.can_branch(model)


def test_attention_is_taken_over_and_given_back() -> None:
    model = toy_model("llama")
    seen: list[tuple[int, ...]] = []

    def attend(module, query, key, value, attention_mask, **options):
        seen.append(tuple(attention_mask.shape))
        return query.transpose(1, 2), None

    def mask(*arguments, device="cpu", dtype=torch.float32, **options):
        options |= {"batch_size": 1, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        found = ours.sdpa_mask(*arguments, device="cpu", **options)
        assert torch.equal(found[0, 0], torch.ones(4, 4, dtype=torch.bool).tril())
        return found

    ours.register_attention("sftscope_test", attend, mask)
    before = model.config._attn_implementation
    with torch.inference_mode(), ours.attention_by(model, "sftscope_test"):
        model(input_ids=torch.arange(4)[None])
    assert seen == [(1, 1, 4, 4)] * model.config.num_hidden_layers
    assert model.config._attn_implementation == before


_WRAPPED = """
import torch
from accelerate import Accelerator
from sftscope.compat.accelerate import plain_forward
from toy_llm import toy_model

model, ids = toy_model("llama"), torch.arange(3, 9)[None]
expected = model(input_ids=ids).logits
wrapped = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model, evaluation_mode=True)
rounded = wrapped(input_ids=ids).logits
assert not torch.equal(rounded, expected)
with plain_forward(wrapped):
    assert torch.equal(wrapped(input_ids=ids).logits, expected)
assert torch.equal(wrapped(input_ids=ids).logits, rounded)
"""


def test_the_forward_that_accelerate_wraps_can_be_had_plain() -> None:
    """Under bfloat16 autocast a forward gives rounded logits, inside `plain_forward` those of float32.

    In a process of its own: accelerate keeps the precision for all that the process trains later.
    """
    code = f"import sys; sys.path.insert(0, {str(SUPPORT)!r}){_WRAPPED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_chat_template_is_rendered_without_pytorch() -> None:
    code = (
        "import sys; from sftscope.compat.templates import rendered_template as r;"
        "print(r('{{ bos }}{{ messages[0].content }}{% if add_generation_prompt %}!{% endif %}',"
        "[{'role': 'user', 'content': 'hello'}], generate=True, names={'bos': '<s>'}, date='2024-07-26'),"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "<s>hello! False\n"


def test_shapiq_reads_the_masked_states_it_is_given_and_gives_moebius_values() -> None:
    pytest.importorskip("lightgbm")  # shapiq's ProxySPEX needs it; both are in the extra `spex`
    from sftscope.compat import shapiq

    masks = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)
    scores = 2.0 * masks[:, 0] + 3.0 * (masks[:, 1] & masks[:, 2]) + np.random.default_rng(0).normal(size=256) * 0.01
    solver = shapiq.solver_of("ProxySPEX", 8, 0)
    shapiq.give_states(solver, masks)
    with warnings.catch_warnings(), threads_kept():
        warnings.simplefilter("ignore")  # its own, about names of features
        found = solver.approximate(256, lambda _: scores)
    values = {words: found.values[place] for words, place in found.interaction_lookup.items()}
    assert values[0,] == pytest.approx(2.0, abs=0.5)
    assert values[1, 2] == pytest.approx(3.0, abs=0.75)

    spex, asked = shapiq.solver_of("SPEX", 12, 0), []
    assert 0 < shapiq.set_budget(spex, 3000) <= 3000
    shapiq.states_asked(spex, 12, lambda states: asked.append(len(states)) or np.zeros(len(states)))
    assert sum(asked) > 0
