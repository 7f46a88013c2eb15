"""What of a model is trained: a fresh LoRA adapter, or every weight."""

from typing import Any

from sftscope.inputs.settings import ModelSettings, TrainingSettings
from sftscope.llm.weights.adapters import new_adapter


def trainable(model: Any, training: TrainingSettings) -> Any:
    """`model` made ready to train: wrapped with an adapter, or itself with all its weights free."""
    if training.method == "full":
        return model.requires_grad_(True)
    wrapped = new_adapter(
        model,
        rank=training.lora_rank,
        alpha=training.lora_alpha,
        dropout=training.lora_dropout,
        rslora=training.use_rslora,
        dora=training.use_dora,
    )
    if training.gradient_checkpointing:
        wrapped.enable_input_require_grads()
    return wrapped


def training_dtype(model: ModelSettings, training: TrainingSettings) -> str:
    """The dtype that weights are loaded in: a step of full fine-tuning is lost in the rounding of 16 bits."""
    return "float32" if training.method == "full" else model.dtype
