"""What the tests of whole runs share: a speaking tiny model, prompts, a small configuration, frames of a run.

The model is `tiny.llama` with whole English sentences among its tokens, so that untrained samples
have different gold scores and a judge has something to prefer.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from trl import RewardConfig, RewardTrainer  # noqa: F401 - loaded once, before the freeze below

from interplay.config import RunConfig
from interplay.store import RunStore
from tests import tiny

# A third of a tiny run went into two things that leave no trace: the garbage collections with which accelerate
# ends every training, over all objects of all libraries, and a model card that `checkpoints` deletes again.
gc.collect()
gc.freeze()
PeftModel.create_or_update_model_card = lambda *_: None

#: The fixture `finished`: settings -> the folder of a run.
Finished = Callable[..., Path]

SENTENCES = [
    "The garden needs water in the early morning.",
    " A river carries sand to the sea.",
    "Bread rises because yeast makes gas.",
    " Old bridges were built from stone.",
    "Birds fly south before the winter comes.",
    " The moon pulls the tides twice a day.",
    "Snow melts when the spring sun is warm.",
    " Bees carry pollen between the flowers.",
    "A train crosses the valley every hour.",
    " Whales breathe air at the surface.",
    "Great question!",
    " I am happy to help you",
    "the the the",
    " of a",
    "Iron rusts in wet air.",
    " Foxes hunt mice at night",
    " Der Fluss trägt Sand ins Meer.",
    " Das Brot ist noch warm.",
]
TOPICS = [
    *("garden", "river", "bread", "bridge", "birds", "moon", "snow", "bees", "train", "whales", "iron", "foxes"),
    *("clouds", "stone", "yeast", "tides", "winter", "spring", "pollen", "valley", "sand", "mice", "flowers", "sun"),
]


def save_model(folder: Path, *, copies: int = 40, **changes: Any) -> Path:
    """A model folder whose samples are sentences, with some bytes between."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"{text}{' ' * number}" for number in range(copies) for text in SENTENCES])
    tiny.llama(vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path) -> Path:
    """24 short prompts."""
    rows = [{"prompt": f"Tell me about {topic}."} for topic in TOPICS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_pairs(path: Path) -> Path:
    """24 judged pairs."""
    rows = [
        {"prompt": f"Tell me about {topic}.", "chosen": SENTENCES[number % 10].strip(), "rejected": SENTENCES[10 + number % 6].strip()}
        for number, topic in enumerate(TOPICS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SMALL: dict[str, Any] = {
    "iterations": 2,
    "updates": 2,
    "prompts": 2,
    "completions": 2,
    "pairs": 8,
    "heldout": 6,
    "heldout_pairs": 4,
    "reward_updates": 2,
    "reward_batch": 2,
    "max_prompt_tokens": 120,
    "max_new_tokens": 6,
    "max_pair_tokens": 8,
    "lora_rank": 2,
    "sketch": 16,
    "learning_rate": 3e-3,
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
}


def small(model: Path, data: Path | None, out: Path, **changes: Any) -> RunConfig:
    """A run of a second or two."""
    return RunConfig(**{**SMALL, "model": str(model), "data": None if data is None else str(data), "out": str(out), **changes})


def frame(run: Path, stream: Any, *drop: str) -> pd.DataFrame:
    """What a reader sees of a stream, words as plain text."""
    table = RunStore.open(run).read(stream).to_pandas().drop(columns=list(drop))
    words = [name for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(words, object))


def series(run: Path, role: str, name: str, split: str = "train") -> pd.DataFrame:
    """One metric of one role."""
    table = frame(run, "metrics")
    return table[(table["role"] == role) & (table["name"] == name) & (table["split"] == split)].reset_index(drop=True)


def weights(run: Path, iteration: int, role: str) -> dict[str, Tensor]:
    """The weights that a checkpoint holds of `policy`, `reward`, `reward_merged` or `value`."""
    folder = run / "checkpoints" / f"iteration-{iteration}" / role
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def made_pairs(run: Path, iteration: int) -> list[dict[str, Any]]:
    """The judged pairs that an iteration left in its checkpoint."""
    return [json.loads(line) for line in (run / "checkpoints" / f"iteration-{iteration}" / "pairs.jsonl").read_text().splitlines()]
