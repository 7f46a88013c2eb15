"""Trainings by TRL's SFTTrainer, as its users write them; run as a script, with the folder and what to train.

`python trl_training.py FOLDER NAME …`: `toy` and `probes.jsonl` are in FOLDER. A name is `lora` or `full`, alone or
with `-in-process` or `-sidecar` for the monitor; its training goes to a folder of that name, and what was logged to
`history.json` in it. One process for all of them: the imports take seconds.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from foreign_training import QUESTION, SENTENCES, WORDS
from sftscope.monitor import SftscopeCallback

folder, *names = sys.argv[1:]
rows = [
    {
        "prompt": [{"role": "user", "content": f"{QUESTION}\n{text}"}],
        "completion": [{"role": "assistant", "content": answer}],
    }
    for text, answer in SENTENCES.items()
] * 4
for name in names:
    set_seed(0)  # each begins as if it were alone
    kind, _, where = name.partition("-")
    out = f"{folder}/{name}"
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
        watch = SftscopeCallback(trainer, f"{folder}/probes.jsonl", f"{out}/run", where=where, words=WORDS)
        trainer.add_callback(watch)
    trainer.train()
    Path(out, "history.json").write_text(json.dumps(trainer.state.log_history))
