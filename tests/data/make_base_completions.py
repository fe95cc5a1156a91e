"""Writes base_completions.jsonl: what the bundled model answers before any training. Run once, from the repository root.

    python tests/data/make_base_completions.py

60 prompts of each task (every n-th by id), two samples of each, with the settings in the first line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interplay import data, models, tasks

SETTINGS = {"model": models.BUNDLED, "weights": "Q4_1 expanded, bfloat16", "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 24, "seed": 0}
PROMPTS, SAMPLES, BATCH = 60, 2, 15
LEFT_OUT = ("translation-193",)  # a sample named a war criminal


def main() -> None:
    folder = models.bundled_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    found = [line for name in tasks.names() for line in answers(name, model, tokenizer) if line["prompt_id"] not in LEFT_OUT]
    lines = [{"settings": SETTINGS, "made_by": "tests/data/make_base_completions.py", "left_out": LEFT_OUT}, *found]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (Path(__file__).parent / "base_completions.jsonl").write_text(text, encoding="utf-8")


def answers(name: str, model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    prompts = sorted(data.own_prompts(tasks.find(name)), key=lambda prompt: prompt.id)
    prompts = prompts[:: len(prompts) // PROMPTS][:PROMPTS]
    torch.manual_seed(int(SETTINGS["seed"]))  # type: ignore[call-overload]
    found = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        asked = [tokenizer.apply_chat_template(list(p.messages), tokenize=False, add_generation_prompt=True) for p in part]
        inputs = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            ids = model.generate(
                **inputs,
                do_sample=True,
                temperature=SETTINGS["temperature"],
                top_k=SETTINGS["top_k"],
                top_p=SETTINGS["top_p"],
                max_new_tokens=SETTINGS["max_new_tokens"],
                num_return_sequences=SAMPLES,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )[:, inputs.input_ids.shape[1] :]
        for index, row in enumerate(ids):
            finished = bool((row == tokenizer.eos_token_id).any())
            text = tokenizer.decode(row, skip_special_tokens=True)
            found.append({"prompt_id": part[index // SAMPLES].id, "task": name, "completion": text, "finished": finished})
    return found


if __name__ == "__main__":
    main()
