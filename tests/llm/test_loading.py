"""What cannot be scored is refused by its kind, before its weights are read; nothing from a model folder is run."""

import json

import pytest
from transformers import T5Config

from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import ModelSettings
from sftscope.llm.loading import load_llm
from toy_llm import VOCABULARY, save_toy_llm, toy_tokenizer


def test_an_encoder_decoder_model_is_refused_by_its_kind(tmp_path):
    T5Config(vocab_size=VOCABULARY).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SftscopeError, match=r"an encoder-decoder model \(t5\) cannot be scored; expected a causal LM"):
        load_llm(ModelSettings(path=str(tmp_path), device="cpu"))


def test_a_model_with_code_of_its_own_is_refused_and_its_code_not_run(tmp_path):
    save_toy_llm(tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('run')")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SftscopeError, match="needs code of its own, and code from a model folder is never run") as info:
        load_llm(ModelSettings(path=str(tmp_path), device="cpu"))
    assert "trust_remote_code" not in str(info.value)
