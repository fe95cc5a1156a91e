"""What a model is called with; and how a pass without gradients reads only once what all its rows begin with.

A chat template puts the same words before every prompt (20 of about 60 tokens with the bundled model).
Their keys and values are computed for one row and lent to all; the rest of each row goes on from there.
Scores are those of the plain pass up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHORTEST = 8  # common tokens below which a second call of the model costs more than it saves


def positions(attention_BS: Tensor) -> Tensor:
    """Position of each token counted from the first one that is not padding."""
    return (attention_BS.cumsum(-1) - 1).clamp(min=0)


def inputs(ids_BS: Tensor, attention_BS: Tensor) -> dict[str, Any]:
    """The words of a plain call."""
    return {"input_ids": ids_BS, "attention_mask": attention_BS, "position_ids": positions(attention_BS), "use_cache": False}


def body(model: Any) -> Any:
    """The blocks of a model without what stands on them; adapters are inside."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(whole, whole.base_model_prefix)


def common(ids_BS: Tensor, attention_BS: Tensor, own: int) -> int:
    """How many tokens all rows begin with, where the last `own` columns, and the token before them, are each row's own."""
    first_B = attention_BS.int().argmax(-1)
    most = ids_BS.shape[1] - own - 1 - int(first_B.max())
    if most <= 0:
        return 0
    begins_BL = ids_BS.gather(1, first_B[:, None] + torch.arange(most, device=ids_BS.device))
    return int((begins_BL == begins_BL[0]).all(0).int().cumprod(0).sum())


def brief(model: Any, ids_BS: Tensor, attention_BS: Tensor, own: int, *, groups: int = 1) -> dict[str, Any]:
    """The words of a call that gives the last columns of a plain one: common beginnings are in `past_key_values`.

    `own`: columns at the end whose outputs are wanted, with that before them. `groups`: equal groups of rows whose weights
    differ (`stacked.py`). Where nothing is saved, or the model keeps no ordinary cache, the words of a plain call.
    """
    size, rows = common(ids_BS, attention_BS, own), len(ids_BS) // groups
    cache = _cache(model, ids_BS, attention_BS, size, groups) if size >= SHORTEST and rows > 1 else None
    if cache is None:
        return inputs(ids_BS, attention_BS)
    cache.batch_repeat_interleave(rows)
    place_BS = positions(attention_BS)
    rest_BS = attention_BS.masked_fill(place_BS < size, 0)[:, size:]
    return {
        "input_ids": ids_BS[:, size:],
        "attention_mask": torch.cat([attention_BS.new_ones(len(ids_BS), size), rest_BS], 1),
        "position_ids": place_BS[:, size:],
        "past_key_values": cache,
        "use_cache": True,
    }


def _cache(model: Any, ids_BS: Tensor, attention_BS: Tensor, size: int, groups: int) -> Any:
    """Keys and values of the common beginning, one row for each group; None if the model has none that can be repeated."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    first = int(attention_BS[0].int().argmax())
    begin_GP = ids_BS[:1, first : first + size].expand(groups, size)
    made = getattr(body(model)(input_ids=begin_GP, use_cache=True), "past_key_values", None)
    return made if type(made) is DynamicCache and all(type(layer) is DynamicLayer for layer in made.layers) else None
