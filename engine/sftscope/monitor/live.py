"""A model in the middle of its training: scored, or written down, and left exactly as it was."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from sftscope.attach.copies import SNAPSHOT
from sftscope.attach.foreign_checkpoints import weight_files
from sftscope.compat.accelerate import plain_forward
from sftscope.decomposition.noise_bound import RANGE, SCALE_FLOOR, range_zeta
from sftscope.extraction.equal_steps import FinishedSteps
from sftscope.extraction.extract import decomposed
from sftscope.extraction.job import Entered, Work, prepare_with
from sftscope.extraction.step_scores import score_model
from sftscope.extraction.zeta import known_zeta, reaction
from sftscope.files.atomic import temporary_beside, write_atomically
from sftscope.files.opening import is_there, open_to_readers, private_folder
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import RunSettings
from sftscope.lattice.transforms import Floats
from sftscope.llm.loading import LLM, templated_tokenizer
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.prompting.template_date import sees_date
from sftscope.llm.weights.adapter_config import WEIGHTS
from sftscope.llm.weights.weights_content import BASE, adapter_content, tensors_content
from sftscope.monitor.eval_rows import EvalRows
from sftscope.store import RunFolder, StepRecord, ownership
from sftscope.store.prompt_hashes import date_is_guessed
from sftscope.store.steps.step_record import IN_PROCESS
from sftscope.store.trainer_state import STATE


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Inside, `model` answers as in evaluation; afterwards it, and every random state, is as before.

    Restored: the training mode of every module, `use_cache`, which parameters are trained, the forward that
    accelerate wraps for autocast, and the random states of Python, NumPy, the CPU and all CUDA devices.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    configs = {id(config): config for module, _ in modes if (config := getattr(module, "config", None)) is not None}
    caches = [(config, config.use_cache) for config in configs.values() if hasattr(config, "use_cache")]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        model.eval()  # gradient checkpointing and dropout are off in evaluation
        with plain_forward(model):
            yield
    finally:
        for config, use_cache in caches:
            config.use_cache = use_cache
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for module, mode in modes:
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)


def is_adapted(model: Any) -> bool:
    """Whether `model` is a base model with an adapter of PEFT."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def plain_model(model: Any) -> Any:
    """The causal LM that is called, adapters in place."""
    return model.get_base_model() if is_adapted(model) else model


def scoring_dtype(model: Any) -> str:
    """The precision that a model in training is scored in: that of its base weights."""
    return str(plain_model(model).dtype).removeprefix("torch.")


@dataclass(eq=False)
class LiveExtraction:
    """Extracts from the model that is being trained, in its own process."""

    model: Any
    settings: RunSettings
    folder: RunFolder
    identity: str
    held_out: EvalRows | None = None
    _work: Work | None = None

    def begin(self, step: int) -> None:
        """Make step 0, where it is not there: from the model as it is, or without its adapter once it is trained."""
        if is_there(self.folder.step_file(0)):
            return
        if not step or is_adapted(self.model):
            self.folder.write_step(self.extract(0, {}))

    def extract(self, step: int, losses: Mapping[str, float]) -> StepRecord:
        """The results of the model as it is now; SftscopeError where the run has no step 0, which ζ is measured at."""
        if step and not is_there(self.folder.step_file(0)):
            raise SftscopeError(
                f"{self.folder.path}: has no step 0, and the model was trained before it was monitored; begin the "
                'training with the monitor, or use where="sidecar"'
            )
        base = step == 0 and is_adapted(self.model)
        with untouched(self.model), self.model.disable_adapter() if base else nullcontext():
            work = self._prepared()
            # nothing was read from a file that could be hashed
            entered = Entered(losses, "" if step == 0 else IN_PROCESS, BASE if base else _content(self.model))
            if self.held_out is not None:
                self.held_out.measure(plain_model(self.model), self.folder, step)
            if (same := FinishedSteps(self.folder, self.identity).as_step(step, entered)) is not None:
                return same
            work.scorer.weights_changed()
            record = score_model(work, step, entered, lambda note: None)
        return decomposed(work, record, *self._zeta(record))

    def _zeta(self, record: StepRecord) -> tuple[Floats, list[str]]:
        """ζ of each probe, and where it was measured: a fixed one at step 0 in any case, as no other step is there."""
        extraction = self.settings.extraction
        if extraction.zeta_of == RANGE:
            return range_zeta(record, extraction.zeta_range)
        zeta, source = known_zeta(self.folder, self.identity)
        if zeta is not None:
            return zeta, source
        scale = np.maximum(reaction(record), SCALE_FLOOR)
        return extraction.zeta * scale, ["step 0"] * len(scale)

    def _refuse_guessed_date(self, tokenizer: Any) -> None:
        """SftscopeError where a template writes a date that nobody stored: a model in training cannot be compared."""
        kind = resolve_template(tokenizer, self.settings.model.template)
        if date_is_guessed(self.folder) and sees_date(tokenizer, kind):
            raise SftscopeError(
                f"{self.folder.run_file}: an earlier release began this run and did not store the date that the chat "
                "template writes; use another out folder"
            )

    def _prepared(self) -> Work:
        if self._work is None:
            model = plain_model(self.model)
            settings, taken = self.settings, self.settings.extraction.dtype
            device = model.get_input_embeddings().weight.device
            name = Path(settings.model.path).name
            llm = LLM(model, templated_tokenizer(settings.model), name, device)
            self._refuse_guessed_date(llm.tokenizer)
            choice: dict[str, Any] = {"asked": taken, "taken": taken, "candidates": []}
            self._work = prepare_with(llm, settings, self.folder, self.identity, choice)
        return self._work


def _content(model: Any) -> str:
    """Which weights a model in training has, see `weights_content`."""
    if not is_adapted(model):
        return tensors_content(model.state_dict())
    return adapter_content(_adapter_state(model), plain_model(model))


def _adapter_state(model: Any) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, save_embedding_layers=_is_resized(plain_model(model))
    )
    return state


class Snapshot:
    """The trained weights of one step, written next to the run's copies; a checkpoint once its losses are known."""

    def __init__(self, model: Any, step: int, checkpoints: Path) -> None:
        """Write the weights. OSError where the disk does not take them."""
        self.target = checkpoints / f"checkpoint-{step}"
        self._temporary = temporary_beside(self.target)
        private_folder(self._temporary)  # a library writes into it, through links that others might put there
        self._step = step
        with untouched(model):
            _write_weights(model, self._temporary)

    def finish(self, state: Any) -> None:
        """Add the trainer's state, and give it its name."""
        content = {
            "global_step": self._step,
            "max_steps": state.max_steps,
            "log_history": [row for row in state.log_history if row.get("step", 0) <= self._step],
        }
        write_atomically(self._temporary / STATE, json.dumps(content).encode())
        files = {file.name: [file.stat().st_size] for file in self._temporary.iterdir()}
        record = {"kind": SNAPSHOT, "files": files, "weights": [each.name for each in weight_files(self._temporary)]}
        write_atomically(self._temporary / ownership.RECORD, ownership.sealed(record, self.target, self.target.parent))
        if self.target.is_dir():  # of the training before it was resumed
            shutil.rmtree(self._temporary)
        else:
            open_to_readers(self._temporary)
            self._temporary.rename(self.target)


def _is_resized(model: Any) -> bool:
    """Whether the training gave its base model another number of embeddings, which then go with the adapter."""
    try:
        base = AutoConfig.from_pretrained(
            model.config.name_or_path or ".", local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError):  # made in memory, or known by another name here
        return False
    return bool(base.get_text_config().vocab_size != model.get_input_embeddings().weight.shape[0])


def _write_weights(model: Any, folder: Path) -> None:
    """An adapter, or a whole model, as safetensors with its config."""
    if not is_adapted(model):
        model.save_pretrained(folder)
        return
    state = _adapter_state(model)
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, folder / WEIGHTS)
    config = copy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    config.save_pretrained(folder)
