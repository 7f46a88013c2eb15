"""Our training next to TRL's SFTTrainer on the same tokens: the same losses, learning rates, gradients and adapter."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.torch import load_file

from run_configs import write_config
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.llm.loading import load_llm
from sftscope.llm.weights.adapters import linear_modules
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.training.data.examples import IGNORED, make_examples
from sftscope.training.data.rows import read_side

pytestmark = pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed: it is in the extra `dev`")
STEPS = 6
SETTINGS = 'schedule = "{schedule}"\ntrained_end = "template"\nweight_decay = 0.01\nmax_grad_norm = 0.5'


def train_by_trl(config, out, schedule):
    """Rows of the log of each step, and the adapter: what someone who uses TRL with these settings gets."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    settings = resolve_paths(load_settings(config), config.parent)
    training, llm = settings.training, load_llm(settings.model)
    rows = read_side(settings.data, "train")
    examples = make_examples(rows, llm.tokenizer, "chat", cutoff=training.cutoff, trained_end="template")
    tokens = [
        {"input_ids": list(each.input_ids), "completion_mask": [int(label != IGNORED) for label in each.labels]}
        for each in examples
    ]
    set_seed(training.seed)
    trainer = SFTTrainer(
        model=llm.model,
        args=SFTConfig(
            output_dir=str(out),
            num_train_epochs=training.epochs,
            per_device_train_batch_size=training.micro_batch_size,
            gradient_accumulation_steps=training.effective_batch_size // training.micro_batch_size,
            learning_rate=training.learning_rate,
            lr_scheduler_type=schedule,
            warmup_steps=training.warmup_ratio,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            seed=training.seed,
            completion_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(tokens),
        processing_class=llm.tokenizer,
        peft_config=LoraConfig(
            r=training.lora_rank,
            lora_alpha=training.lora_alpha,
            target_modules=linear_modules(llm.model),
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    log = {row["step"]: row for row in trainer.state.log_history if "loss" in row}
    return log, load_file(out / "adapter_model.safetensors")


@pytest.mark.parametrize(("schedule", "of_trl"), [("cosine", "cosine"), ("constant", "constant_with_warmup")])
def test_losses_rates_gradients_and_adapter_are_those_of_trl(tmp_path, schedule, of_trl):
    config = write_config(
        tmp_path,
        **{
            "checkpoints = [0, 1, 2, 4, 8]": "checkpoints = [0, 3]",
            "warmup_ratio = 0": "warmup_ratio = 0.3",
            "[extraction]": f"{SETTINGS.format(schedule=schedule)}\n[extraction]",
        },
    )
    pipeline.train(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the advice of other people's libraries
        log, adapter = train_by_trl(config, tmp_path / "trl", of_trl)
    ours = {row["step"]: row for row in folder.read_log() if row["kind"] == "batch"}
    assert ours.keys() == log.keys() == set(range(1, STEPS + 1))
    for name, key in (("train", "loss"), ("learning_rate", "learning_rate"), ("grad_norm", "grad_norm")):
        np.testing.assert_allclose(
            [ours[step][name] for step in ours], [log[step][key] for step in ours], rtol=1e-5, atol=1e-9, err_msg=name
        )
    own = load_file(folder.checkpoints / f"checkpoint-{STEPS}" / "adapter_model.safetensors")
    assert own.keys() == adapter.keys()
    for name, tensor in own.items():
        np.testing.assert_allclose(tensor.numpy(), adapter[name].numpy(), atol=1e-5, rtol=0, err_msg=name)
    rates = [ours[step]["learning_rate"] for step in range(1, STEPS + 1)]
    assert rates[0] == 0 < rates[1] < rates[2] == max(rates)
    assert (rates[-1] == rates[2]) == (schedule == "constant")
