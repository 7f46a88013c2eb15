"""What the model of someone else's trainer is: its base, an adapter in it, what splits it; what processes agree on."""

from typing import Any

import torch

from sftscope.monitor.live import is_adapted


def base_of(model: Any) -> str:
    """Where the base of the trainer's model was loaded from; empty where it does not say."""
    if is_adapted(model):
        name = model.peft_config[model.active_adapter].base_model_name_or_path
    else:
        name = getattr(getattr(model, "config", None), "_name_or_path", "")
    return str(name or "")


def carries_trained_adapter(model: Any) -> bool:
    """Whether transformers itself put an adapter into the model, and it is not a fresh one: those begin with B = 0."""
    if is_adapted(model) or not getattr(model, "_hf_peft_config_loaded", False):
        return False
    return any("lora_B" in name and bool(value.any()) for name, value in model.named_parameters())


def sharded_by(trainer: Any) -> str:
    """What splits the model over processes: FSDP, ZeRO-3, or nothing."""
    if getattr(trainer, "is_fsdp_enabled", False):
        return "FSDP"
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return "ZeRO-3" if plugin is not None and getattr(plugin, "zero_stage", 0) == 3 else ""


def agreed(wanted: int, device: Any) -> int:
    """The flags of the first process, on every process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return wanted
    flags = torch.tensor([wanted], device=device)
    torch.distributed.broadcast(flags, src=0)
    return int(flags.item())
