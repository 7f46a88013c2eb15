"""The config.json of a checkpoint that holds a whole model is a stranger's: whatever it says, its error is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from sftscope.foundation.errors import SftscopeError
from sftscope.llm.weights.full_weights import WeightsSwap
from toy_llm import save_toy_llm


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_toy_llm(folder)
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_size": "wide"},
        {"hidden_size": 10**15},
        {"vocab_size": 10**13},
        {"num_hidden_layers": None},
        {"num_attention_heads": 0},
        {"hidden_act": ["silu"]},
        {"rope_parameters": 3},
    ],
    ids=json.dumps,
)
def test_a_config_of_wrong_types_or_huge_sizes_is_one_line(changed: dict[str, Any], model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model)
    own = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    text = (model / "config.json").read_text()
    (model / "config.json").write_text(json.dumps({**json.loads(text), **changed}))
    try:
        with pytest.raises(
            SftscopeError, match=r"its model cannot be loaded|not a model like the base|not complete"
        ) as error:
            WeightsSwap(base).load(model)
    finally:
        (model / "config.json").write_text(text)
    assert "\n" not in str(error.value)
    assert all(tensor.equal(own[name]) for name, tensor in base.state_dict().items())
