"""Tables that stand beside the figures: held-out scores by moment, and the updates of a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Held-out scores in reading order, with the heading and the meaning of each.
HELDOUT = {
    "gold": ("gold", "the task's own score"),
    "proxy": ("proxy", "score by frozen reward model 0"),
    "kl": ("KL (nats)", "log policy minus log reference, summed over a completion"),
    "length": ("tokens", "mean length of a completion"),
    "distinct_words": ("distinct words", "share of words that differ, within completions"),
    "entropy": ("entropy (nats)", "mean entropy of the next-token distribution"),
    "reward_model_accuracy": ("RM accuracy", "share of held-out pairs that the reward model orders as the judge does"),
    "alarm": ("alarm", "1 if the text repeats itself or the policy has collapsed"),
}


def heldout_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per held-out evaluation in order of the clock, one column per score; the end of one iteration is the start of the next."""
    rows = metrics[(metrics["split"] == "heldout") & metrics["name"].isin(list(HELDOUT))]
    if rows.empty:
        return pd.DataFrame()
    wide = (
        rows.astype({"name": str})
        .pivot_table(index=["clock", "iteration", "update"], columns="name", values="value", aggfunc="last", dropna=False)
        .dropna(how="all")
    )
    wide = wide[[name for name in HELDOUT if name in wide.columns]].reset_index()
    again = wide["iteration"].duplicated()
    words = [_moment(int(i), bool(twice)) for i, twice in zip(wide["iteration"], again, strict=True)]
    return wide.drop(columns=["clock", "iteration"]).assign(moment=words).set_index("moment")


def _moment(iteration: int, again: bool) -> str:
    if iteration == 0:
        return "after the first reward model" if again else "before training"
    return f"after iteration {iteration}" + (" (again)" if again else "")


@dataclass(frozen=True)
class Ends:
    """The first and the last of `count` held-out scores of a run."""

    first: float
    last: float
    count: int

    @property
    def change(self) -> float | None:
        """Last minus first; None before there are two, or where it is not finite."""
        return finite(self.last - self.first) if self.count > 1 else None


def ends(metrics: pd.DataFrame) -> dict[str, Ends]:
    """Held-out scores by name, at the start and at the end; missing values are left out."""
    rows = metrics[metrics["split"] == "heldout"].dropna(subset="value").sort_values("clock", kind="stable").astype({"name": str})
    return {str(name): Ends(float(values.iloc[0]), float(values.iloc[-1]), len(values)) for name, values in rows.groupby("name")["value"]}


def policy_updates(*frames: pd.DataFrame) -> pd.DataFrame:
    """The policy's updates, with clock and iteration, in order; from whichever streams have them."""
    columns = ["update", "clock", "iteration"]
    parts = [frame.loc[frame["role"] == "policy", columns] for frame in frames if len(frame)]
    rows = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    return rows[rows["update"] > 0].sort_values("clock").drop_duplicates("update", keep="last").reset_index(drop=True)


def finite(value: object) -> float | None:
    """The number, or None for what cannot be shown as one."""
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else None


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with words as plain text in place of categories."""
    return frame.astype({name: object for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)})
