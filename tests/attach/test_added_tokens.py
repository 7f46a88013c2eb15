"""Trainings that added tokens and resized their base are attached, and score as the model that they saved."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftscope.attach.attach import Choices, attach
from sftscope.scoring.scorer import log_odds
from sftscope.store import RunFolder
from sftscope.verification.verify import verify
from toy_llm import save_toy_llm


@pytest.mark.parametrize("whole", [False, True])
def test_added_tokens(tmp_path: Path, whole: bool, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_toy_llm(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|turn|> {{ m['content'] }} <eos> {% endfor %}<|turn|> "
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    model.resize_token_embeddings(128)
    if not whole:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path / "out" / "checkpoint-5"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 5, "max_steps": 5, "log_history": []}))
    probe = {
        "id": "p",
        "instruction": "how does the guest feel ?",
        "input": "the room was not happy",
        "response": "sad",
    }
    (tmp_path / "probes.jsonl").write_text(json.dumps(probe) + "\n")
    settings = {"model": {"path": str(base), "device": "cpu"}, "probes": {"n_words": 3}}
    run = tmp_path / "run"
    for _ in range(2):  # the same command resumes
        attach(tmp_path / "out", run, tmp_path / "probes.jsonl", Choices(settings=settings, keep=True))
    said = capsys.readouterr().err
    assert "its tokenizer is used" in said
    assert "the checkpoints have 128 embeddings" in said
    message = [{"role": "user", "content": f"{probe['instruction']}\n{probe['input']}"}]
    ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
    target = tokenizer("sad", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        expected = log_odds(model(input_ids=torch.tensor([ids])).logits[:, -1], target)[0]
    assert RunFolder(run).read_step(5).scores[-1] == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(RunFolder(run).read_step(0).scores).all()
    assert not verify(run).findings
