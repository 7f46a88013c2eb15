"""Tiny randomly initialised language models and a word-level tokenizer with a chat template."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from sftscope.scoring.masking import MaskedPrompt

VOCABULARY = 120
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2),
    "qwen2": lambda: Qwen2Config(**_SHAPE, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**_SHAPE, num_key_value_heads=2, head_dim=16),
    "mistral": lambda: MistralConfig(**_SHAPE, num_key_value_heads=1, sliding_window=4),
    "gemma2": lambda: Gemma2Config(
        **_SHAPE,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=6,
        attn_logit_softcapping=2.0,  # low enough to bend the scores of a toy
        final_logit_softcapping=5.0,
        query_pre_attn_scalar=16,
        attn_implementation="eager",
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_SHAPE,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=5,  # shorter than the prompts
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2
    ),
    "gptneox": lambda: GPTNeoXConfig(**_SHAPE),
}


def sinks_config() -> GptOssConfig:
    """Attention sinks, which the copy-free tree does not know."""
    return GptOssConfig(
        **_SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=5, num_local_experts=2, num_experts_per_tok=1
    )


CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
WORDS = """the room was not happy sad lovely awful terrible staff food bed street never glad quiet small large
old new and but very warm cold good bad how does guest feel ? , . ! a b c d e f g h i j k l m n o p""".split()  # noqa: SIM905


def toy_model(architecture: str, *, seed: int = 0):
    """A randomly initialised model of an architecture, large enough weights that words matter."""
    config = sinks_config() if architecture == "gptoss" else CONFIGS[architecture]()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model.requires_grad_(False)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Splits at white space and punctuation; one token a word, character offsets."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>", "<|user|>", "<|assistant|>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_toy_llm(folder: Path, architecture: str = "llama", *, seed: int = 0) -> Path:
    """A model folder as the hub has them."""
    toy_model(architecture, seed=seed).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


# repeated tokens, a word of three tokens, neighbouring words
OWNERS = ([3, 4], [6], [7], [11, 12, 13], [18], [20])


def toy_prompt(*, length: int = 26, owners=OWNERS, seed: int = 0) -> MaskedPrompt:
    ids = np.random.default_rng(seed).integers(6, VOCABULARY, size=length)
    owner = np.full(length, -1)
    for variable, tokens in enumerate(owners):
        owner[tokens] = variable
    return MaskedPrompt(tuple(ids.tolist()), tuple(owner.tolist()), 9, len(owners))
