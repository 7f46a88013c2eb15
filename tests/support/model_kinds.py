"""Tiny stand-ins for well-known LLMs: their architecture with random weights, their kind of tokenizer, the public
format of their chat template in a few lines of Jinja."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

_CORPUS = """Name the emotion of this comment in one word. I really love this lovely quiet room and its happy staff.
joy anger sadness gratitude admiration disappointment disapproval annoyance neutral why what when who is a the of
下列关于 合同 的 说法 , 正确 的 是 : 甲 与 乙 订立 买卖 合同 。 根据 民法典 , 答案 是 A B C D
Think of some family rules to promote a healthy family relationship. The answer is no. Your head is like a room!
""".splitlines()

_CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nDEFAULT<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set sys = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set sys = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}"
    "{% if loop.first and sys %}{% set c = '<<SYS>>\n' + sys + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set c = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_LLAMA3 = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA_TURNS = (
    "{% for m in turns %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% set first = '' %}{% set turns = messages %}" + _GEMMA_TURNS
)
_GEMMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}" + _GEMMA_TURNS
)
_DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}"
    "{% if m['role'] == 'assistant' %}{% set c = m['content'] %}"
    "{% if '</think>' in c %}{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + c + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set sys = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set sys = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (sys + '\n\n' if loop.last and sys else '') + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True)
class Kind:
    """end: the token that ends an answer. bytes: a byte-level tokenizer, else one that has ▁ for spaces; of those
    `prefix` puts one before every text."""

    template: str
    end: str
    bos: str
    eos: str
    special: tuple[str, ...]
    bytes: bool
    config: Callable[..., Any]
    prefix: bool = False
    plain: tuple[str, ...] = ()


def _gemma3(**shape: Any) -> Gemma3Config:
    text = {**_SHAPE, "head_dim": 8, "sliding_window": 16, **shape}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return Gemma3Config(
        text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )


def _of(config: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **shape: config(**{**_SHAPE, **shape})


_IM = ("<|im_start|>", "<|im_end|>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_INST = ("<unk>", "[INST]", "[/INST]")
_PHI = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
KINDS = {
    "qwen2.5": Kind(_CHATML, "<|im_end|>", "", "<|im_end|>", ("<|endoftext|>", *_IM), True, _of(Qwen2Config)),
    "smollm2": Kind(_CHATML, "<|im_end|>", "<|im_start|>", "<|im_end|>", _IM, True, _of(LlamaConfig)),
    "llama-2": Kind(_LLAMA2, "</s>", "<s>", "</s>", ("<unk>",), False, _of(LlamaConfig), prefix=True),
    "llama-3": Kind(_LLAMA3, "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>", _HEADERS, True, _of(LlamaConfig)),
    "gemma-2": Kind(_GEMMA2, "<end_of_turn>", "<bos>", "<eos>", _TURNS, False, _gemma3),
    "gemma-3": Kind(_GEMMA3, "<end_of_turn>", "<bos>", "<eos>", _TURNS, False, _gemma3),
    "deepseek-r1": Kind(
        _DEEPSEEK_R1,
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        (),
        True,
        _of(LlamaConfig),
        plain=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    ),
    "mistral": Kind(_MISTRAL, "</s>", "<s>", "</s>", _INST, False, _of(MistralConfig), prefix=True),
    "phi-3": Kind(_PHI3, "<|end|>", "<s>", "<|endoftext|>", _PHI, False, _of(Phi3Config), prefix=True),
    "phi-4": Kind(_PHI4, "<|im_end|>", "<|endoftext|>", "<|im_end|>", (*_IM, "<|im_sep|>"), True, _of(Phi3Config)),
}  # fmt: skip


def tokenizer_of(kind: Kind) -> PreTrainedTokenizerFast:
    """A tokenizer of that kind, trained on a few lines."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=not kind.bytes, fuse_unk=True))
    trainer_settings: dict[str, Any] = {"vocab_size": 420, "show_progress": False}
    if kind.bytes:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer_settings["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    else:
        steps = [normalizers.Prepend("▁")] if kind.prefix else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        strip = [decoders.Strip(" ", 1, 0)] if kind.prefix else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        trainer_settings["special_tokens"] = [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # words apart while it learns
    tokenizer.train_from_iterator(_CORPUS, trainers.BpeTrainer(**trainer_settings))
    if not kind.bytes:
        tokenizer.pre_tokenizer = None
        learnt = json.loads(tokenizer.to_str())
        learnt["added_tokens"] = []  # its bytes are pieces like others
        tokenizer = Tokenizer.from_str(json.dumps(learnt))
    names = dict.fromkeys(name for name in (kind.bos, kind.eos, *kind.special) if name)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in kind.plain])
    # as published: only these have a name, the others of the template are known as special by their entry
    named = {"bos_token": kind.bos or None, "eos_token": kind.eos, "pad_token": kind.eos}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.chat_template = kind.template
    return fast


def save_kind(folder: Path, name: str) -> Path:
    """A model folder as the hub has them."""
    kind = KINDS[name]
    tokenizer = tokenizer_of(kind)
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = kind.config(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
