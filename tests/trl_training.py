"""A training by TRL's SFTTrainer, as its users write it; run as a script, with the folder and what to train.

`python trl_training.py FOLDER OUT lora|full [in-process]`: `toy` and `probes.jsonl` are in FOLDER; what was logged
goes to `history.json` in OUT.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from foreign_training import QUESTION, SENTENCES, WORDS
from sftscope.monitor import SftscopeCallback

folder, out, kind, *where = sys.argv[1:]
rows = [
    {
        "prompt": [{"role": "user", "content": f"{QUESTION}\n{text}"}],
        "completion": [{"role": "assistant", "content": answer}],
    }
    for text, answer in SENTENCES.items()
] * 4
trainer = SFTTrainer(
    model=f"{folder}/toy",
    args=SFTConfig(
        output_dir=out,
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_steps=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        eval_on_start=True,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_list(rows),
    eval_dataset=Dataset.from_list(rows[:3]),
    peft_config=LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1) if kind == "lora" else None,
)
if where:
    trainer.add_callback(SftscopeCallback(trainer, f"{folder}/probes.jsonl", f"{out}/run", where=where[0], words=WORDS))
trainer.train()
Path(out, "history.json").write_text(json.dumps(trainer.state.log_history))
