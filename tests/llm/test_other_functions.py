"""Checkpoints of whole models that are another function of their weights than the base, or have weights it lacks."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftscope.foundation.errors import SftscopeError
from sftscope.llm.weights.adapters import AdapterSlot
from toy_llm import CONFIGS

_IDS = torch.tensor([[3, 17, 50, 4, 99]])


def model(**fields: Any):
    """A toy with these fields in its config; its weights are the same, and large enough to show a difference."""
    config = CONFIGS["llama"]()
    for name, value in {"num_hidden_layers": 1, "tie_word_embeddings": True, **fields}.items():
        setattr(config, name, copy.deepcopy(value))
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return made


def logits(llm) -> torch.Tensor:
    with torch.no_grad():
        return llm(input_ids=_IDS).logits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_parameters", {"rope_type": "default", "rope_theta": 500.0}),
        ("rms_norm_eps", 0.5),
        ("hidden_act", "gelu"),
    ],
)
def test_another_config_is_another_model(tmp_path: Path, field: str, value: Any) -> None:
    base, trained = model(), model(**{field: value})
    assert not torch.allclose(logits(base), logits(trained), atol=1e-4)
    trained.save_pretrained(tmp_path)
    with pytest.raises(SftscopeError, match=rf"config\.json: field '{field}' is .* in the base model"):
        AdapterSlot(base).load(tmp_path)


def test_what_no_logit_depends_on_may_differ(tmp_path: Path) -> None:
    base = model()
    trained = model(
        attention_dropout=0.1, use_cache=False, eos_token_id=7, pad_token_id=5, max_position_embeddings=512, unknown="x"
    )
    with torch.no_grad():
        trained.get_input_embeddings().weight.add_(0.1)
    trained.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] |= {"type": "default", "factor": None}  # as other releases write the same
    (tmp_path / "config.json").write_text(json.dumps(config))
    slot = AdapterSlot(base)
    slot.load(tmp_path)
    assert torch.allclose(logits(slot.model), logits(trained), atol=1e-4)


def test_a_head_that_training_untied(tmp_path: Path) -> None:
    base, trained = model(), model(tie_word_embeddings=False)
    trained.save_pretrained(tmp_path)
    before = logits(base)
    slot = AdapterSlot(base)
    with pytest.raises(SftscopeError, match=r"the training untied lm_head\.weight from model\.embed_tokens\.weight"):
        slot.load(tmp_path)
    assert torch.equal(logits(slot.model), before)
    trained.lm_head.weight.data.copy_(trained.get_input_embeddings().weight)  # both, but the same
    trained.save_pretrained(tmp_path)
    slot.load(tmp_path)
    assert torch.allclose(logits(slot.model), logits(trained), atol=1e-4)
