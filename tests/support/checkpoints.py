"""A checkpoint folder with the least that a training leaves."""

import json


def write_checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (path / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    log = [{"step": step, "loss": 2.0}, {"step": step, "eval_train_loss": 1.5}, {"step": step, "eval_eval_loss": 1.75}]
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": log}))
    return path
