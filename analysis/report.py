"""The verdicts C1 to C6 on what ZOPrO's sampling relies on: a number, its interval, what chance gives, and one sentence in plain words.

The claims are those of ZOPrO (arXiv 2503.03460): C1 updates of policy and reward model are orthogonal, C2 the policy's updates persist, C3
one of the two leads, C4 sampling along the previous update beats blind sampling, C5 it gets as far as first order in no more time, C6 it
saves memory. "Not enough evidence" is an answer; so is "no". Geometry comes from `analysis.evidence`, gains and costs from `analysis.comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis import comparison, evidence
from analysis.evidence import Alignment, Estimate, Lead, Persistence, Recording
from analysis.forecast import FIRST
from analysis.uncertainty import LENGTHS, in_brackets, interval_over_seeds

Answer = Literal["yes", "no", "not enough evidence", "policy leads", "reward model leads", "nobody leads"]

#: A mean cosine that surely lies within this is called orthogonal, one whose nearer end is beyond it aligned.
SMALL = 0.1
#: Persistence that is surely above this is called so.
NOTICEABLE = 0.05
#: Cosines of one run after the other below which their mean is no answer: intervals of series that are shorter were never measured.
FEWEST = LENGTHS[0]
#: A time that is surely more than this many times as long is longer; one that is surely not is called no longer.
LONGER = 1.1
#: Methods that probe along the previous update, that probe blindly, and that never probe.
GUIDED, BLIND, WALK = ("zopro", "zopro_adaptive"), ("mezo",), ("extrapolate",)

QUESTIONS = {
    "C1": "Are updates of policy and reward model orthogonal?",
    "C2": "Do the policy's updates persist?",
    "C3": "Who leads?",
    "C4": "Is sampling along the previous update better than blind sampling?",
    "C5": "Does it get as far as first order in no more time?",
    "C6": "Does it save memory against first order?",
}
_NAN = (np.nan, np.nan)


@dataclass(frozen=True)
class Verdict:
    """`value` with its 95 % `interval`; `chance` is where 95 % of it would lie if there were nothing; `of` says what the number is."""

    label: str
    answer: Answer
    sentence: str
    of: str = ""
    value: float = np.nan
    interval: tuple[float, float] = _NAN
    chance: tuple[float, float] = _NAN
    count: int = 0

    @property
    def question(self) -> str:
        return QUESTIONS[self.label]


def report(recordings: Sequence[Recording]) -> list[Verdict]:
    """C1 to C6 for runs of one kind (one configuration, any seeds, or the arms of one comparison)."""
    first = [recording for recording in recordings if _begins(recording.method, FIRST)] or list(recordings)
    return [*_of_directions(first), *against(recordings)]


def _of_directions(first: Sequence[Recording]) -> list[Verdict]:
    """C1 to C3."""
    if not any(len(recording.updates) for recording in first):
        return [Verdict(label, "not enough evidence", _NO_UPDATES) for label in ("C1", "C2", "C3")]
    return [
        orthogonal([evidence.alignment(recording) for recording in first]),
        persistent([evidence.persistence(recording) for recording in first]),
        leading([evidence.lead(recording) for recording in first]),
    ]


_NO_UPDATES = "These recordings hold no rows of updates, so nothing can be said of where they went."


def _begins(method: str, names: Sequence[str]) -> bool:
    """Whether an arm is one of these methods, with settings of its own or without."""
    return method.split(":")[0] in names


# --- C1 ------------------------------------------------------------------------------------------------


def orthogonal(found: Sequence[Alignment]) -> Verdict:
    """Aligned or opposed by more than `SMALL`; or surely within it; or undecided, also where there are fewer than `FEWEST` cosines."""
    known = [one for one in found if np.isfinite(one.whole.value)]
    if not known:
        return Verdict("C1", "not enough evidence", "No update of the policy stands beside one of the reward model.")
    whole = _pooled([one.whole for one in known])
    low, high = whole.interval
    of = "mean cosine of policy updates with the reward model's latest update"
    numbers: dict[str, Any] = {"of": of, "value": whole.value, "interval": (low, high), "chance": whole.band, "count": whole.count}
    size = f"{whole.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    if not np.isfinite(whole.sd):
        return Verdict("C1", "not enough evidence", f"The mean cosine is {whole.value:+.3f}, but nothing says what chance would give.", **numbers)
    if whole.count < FEWEST:
        return Verdict("C1", "not enough evidence", f"The mean cosine is {size}, {_too_few(whole.count)}", **numbers)
    if min(abs(low), abs(high)) > SMALL and low * high > 0:
        return Verdict("C1", "no", f"They {'go along with' if low > 0 else 'go against'} each other: {size}, chance gives {_band(whole)}.", **numbers)
    if max(abs(low), abs(high)) <= SMALL:
        beyond = "and no more" if whole.p > 0.05 else "though more"
        told = f"All modules together have a cosine of {size}: small ({_RULE}), {beyond} than chance gives ({_band(whole)})."
        return Verdict("C1", "yes", f"{told} {_modules(known)}{_caution(known)}".strip(), **numbers)
    return Verdict("C1", "not enough evidence", f"The mean cosine is {size}: too uncertain to call it small ({_RULE}). {_modules(known)}".strip(), **numbers)


_RULE = f"within ±{SMALL}, which counts as orthogonal"


def _too_few(count: int) -> str:
    """What ends a sentence with a number that is no answer yet."""
    return f"but from {count} cosine{'s' if count != 1 else ''}: too few for an answer, because intervals were never measured for series shorter than {FEWEST}."


def _modules(found: Sequence[Alignment]) -> str:
    """What the sum hides: modules that couple in both signs."""
    told = [one for one in found if np.isfinite(one.excess)]
    if not told:
        return ""
    excess, coupled, modules = (float(np.mean([getattr(one, name) for one in told])) for name in ("excess", "coupled", "modules"))
    if not coupled and max(one.excess_p for one in told) > 0.05:
        return f"Module by module the cosines spread no further than chance either ({excess:.1f} times as far)."
    name, value = max((one.strongest for one in told), key=lambda pair: abs(pair[1]))
    out = f"{coupled:.0f} of {modules:.0f} modules stand out" if coupled else "no module stands out alone"
    return f"Module by module it is more: the cosines spread {excess:.1f} times as far as chance, and {out}, most {name} ({value:+.2f})."


def _caution(found: Sequence[Alignment]) -> str:
    reach = float(np.mean([one.attainable for one in found]))
    return f" Be aware: the adapters could have reached no more than {reach:.2f}." if np.isfinite(reach) and reach < 0.5 else ""


def _pooled(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over runs; their chance SDs are independent, and from three runs on the spread between runs counts if it is larger."""
    values = np.array([one.value for one in estimates])
    sd = float(np.sqrt(np.square([one.sd for one in estimates]).sum())) / len(estimates)
    if len(values) >= 3:
        ends = interval_over_seeds(values)
        between = (ends.high - ends.low) / (2 * 1.96)
        sd = max(sd, between) if np.isfinite(between) else sd
    return Estimate(float(values.mean()), sd, sum(one.count for one in estimates), estimates[0].chance)


def _band(found: Estimate) -> str:
    return f"{found.band[0]:+.3f} to {found.band[1]:+.3f}"


# --- C2 ------------------------------------------------------------------------------------------------


def persistent(found: Sequence[Persistence]) -> Verdict:
    """Surely above `NOTICEABLE` at lag 1; or surely below it; or undecided, also where there are fewer than `FEWEST` cosines."""
    lags = [one.by_lag for one in found if one.by_lag and np.isfinite(one.by_lag[0].value)]
    if not lags:
        return Verdict("C2", "not enough evidence", "There are no two updates of the policy to compare.")
    next_one = _pooled([by_lag[0] for by_lag in lags])
    low, high = next_one.interval
    numbers: dict[str, Any] = {
        "of": "mean cosine of an update with the one before",
        "value": next_one.value,
        "interval": (low, high),
        "chance": next_one.band,
        "count": next_one.count,
    }
    size = _size(next_one.value, next_one.interval)
    if next_one.count < FEWEST:
        return Verdict("C2", "not enough evidence", f"The cosine with the update before is {size}, {_too_few(next_one.count)}", **numbers)
    later = _later(lags, [one.iterations for one in found if np.isfinite(one.iterations.value)])
    if low > NOTICEABLE:
        return Verdict("C2", "yes", f"An update goes on where the last one went: {size}. {later}", **numbers)
    if high < NOTICEABLE:
        return Verdict("C2", "no", f"An update keeps nothing of the one before: {size}. {later}", **numbers)
    return Verdict("C2", "not enough evidence", f"The cosine with the update before is {size}. {later}", **numbers)


def _later(lags: Sequence[tuple[Estimate, ...]], iterations: Sequence[Estimate]) -> str:
    far = min(len(by_lag) for by_lag in lags)
    words = "The optimiser's momentum alone makes neighbours alike"
    distant = [by_lag[far - 1] for by_lag in lags if np.isfinite(by_lag[far - 1].value)]
    words += f"; {far} updates apart it is {_pooled(distant).value:+.2f}" if far > 1 and distant else ""
    if not iterations:
        return f"{words}."
    whole = _pooled(iterations)
    return f"{words}; whole iterations have {_size(whole.value, whole.interval)} with the one before."


# --- C3 ------------------------------------------------------------------------------------------------


def leading(found: Sequence[Lead]) -> Verdict:
    """The lag that stands out in most runs, if it does."""
    told = [one for one in found if one.by_lag]
    if not told:
        why = found[0].by if found else "nothing was recorded"
        return Verdict("C3", "not enough evidence", f"Nobody can be said to lead: {why}.")
    joined = Lead({lag: _pooled([one.by_lag[lag] for one in told]) for lag in told[0].by_lag}, told[0].by, sum(one.steps for one in told))
    peak = joined.peak
    shown = peak if peak is not None else max(joined.by_lag, key=lambda lag: np.nan_to_num(abs(joined.by_lag[lag].value), nan=-1.0))
    best = joined.by_lag[shown]
    of = f"mean cosine of a policy {joined.by} with the reward model's at lag {shown:+d}"
    numbers: dict[str, Any] = {"of": of, "value": best.value, "interval": best.interval, "chance": best.band, "count": best.count}
    size = f"{best.value:+.3f} at lag {shown:+d}, chance gives {_band(best)}"
    if peak is None:
        return Verdict("C3", "nobody leads", f"No lag stands out from its mirror image over {joined.steps} {joined.by}s; the largest is {size}.", **numbers)
    answer: Answer = "policy leads" if peak >= 0 else "reward model leads"
    who = "The reward model goes where the policy went before" if peak >= 0 else "The policy goes where the reward model went before"
    return Verdict("C3", answer, f"{who}: {size}.", **numbers)


# --- C4, C5, C6 ------------------------------------------------------------------------------------------


def against(recordings: Sequence[Recording], judge: str = "proxy") -> list[Verdict]:
    """What runs of guided, blind, walking and first-order methods say of each other, paired by seed and prompt."""
    methods = list(dict.fromkeys(recording.method for recording in recordings))
    guided = next((name for name in methods if _begins(name, GUIDED)), None)
    if guided is None:
        missing = "No run of zopro is among these."
        return [Verdict(label, "not enough evidence", missing) for label in ("C4", "C5", "C6")]
    completions, metrics = (_joined(recordings, name) for name in ("completions", "metrics"))
    ordered = [guided, *(name for name in methods if name != guided)]
    found = comparison.compare(completions, metrics, ordered, [name for name in methods if _begins(name, WALK)])
    return [_better(guided, methods, found, judge), _as_quick(guided, methods, found, judge), _leaner(guided, methods, found)]


def _joined(recordings: Sequence[Recording], stream: str) -> pd.DataFrame:
    frames = [getattr(recording, stream).assign(run=recording.run, method=recording.method, seed=recording.seed) for recording in recordings]
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return joined


def _better(guided: str, methods: Sequence[str], found: comparison.Comparison, judge: str) -> Verdict:
    """Above the blind probes and, where there is one, above the walk that asks nothing."""
    rivals = [name for name in methods if _begins(name, (*BLIND, *WALK))]
    rows = {row["method"]: row for row in found.differences if row["judge"] == judge and row["method"] in rivals}
    if not any(_begins(name, BLIND) for name in rows):
        return Verdict("C4", "not enough evidence", f"No run of a blind method (mezo) stands beside {guided}.")
    gains = {name: (-row["mean"], (-row["student"][1], -row["student"][0]), row["seeds"]) for name, row in rows.items()}
    told = "; ".join(f"{guided} - {name} {_size(value, ends)}" for name, (value, ends, _) in gains.items())
    blind = next(name for name in gains if _begins(name, BLIND))
    value, ends, seeds = gains[blind]
    numbers: dict[str, Any] = {"of": f"{guided} - {blind}, gain in SD", "value": value, "interval": ends, "count": seeds}
    sentence = f"Gain on held-out prompts by frozen reward model 0, paired over {_seeds(seeds)}: {told}."
    if all(interval[0] > 0 for _, interval, _ in gains.values()):
        return Verdict("C4", "yes", sentence, **numbers)
    if any(interval[1] < 0 for _, interval, _ in gains.values()):
        return Verdict("C4", "no", sentence, **numbers)
    return Verdict("C4", "not enough evidence", f"{sentence} An interval that holds zero shows no difference.", **numbers)


def _as_quick(guided: str, methods: Sequence[str], found: comparison.Comparison, judge: str) -> Verdict:
    """Whether it got as far as first order, and in which time: no where either surely falls behind."""
    rival = next((name for name in methods if _begins(name, FIRST)), None)
    times = _ratios(found, guided, rival, "seconds")
    if rival is None or not len(times):
        return Verdict("C5", "not enough evidence", f"No run of first order stands beside {guided}.")
    row = next(row for row in found.differences if row["judge"] == judge and row["method"] == rival)
    behind = (-row["mean"], (-row["student"][1], -row["student"][0]))
    ends = _interval(times)
    numbers: dict[str, Any] = {"of": f"time of a run of {guided} over {rival}", "value": float(np.mean(times)), "interval": ends, "count": len(times)}
    gain = f"the gain of {guided} - {rival} is {_size(*behind)} SD on held-out prompts"
    time = f"a run takes {np.mean(times):.2f} {in_brackets(*ends, '.2f')} times as long{_none_longer(ends)}"
    if behind[1][1] < 0:
        return Verdict("C5", "no", f"It does not get as far: with the same updates and samples {gain}. As to time, {time}.", **numbers)
    if ends[0] > LONGER:
        return Verdict("C5", "no", f"It takes longer: with the same updates and samples {time}. As to how far it gets, {gain}.", **numbers)
    if behind[1][0] > -SMALL and ends[1] < LONGER:
        return Verdict("C5", "yes", f"With the same updates and samples {gain}, and {time}.", **numbers)
    return Verdict("C5", "not enough evidence", f"With the same updates and samples {gain}, and {time}. That does not say whether it gets as far.", **numbers)


def _none_longer(ends: tuple[float, float]) -> str:
    """That an interval of ratios shows no difference, where it holds 1."""
    return ", which shows no difference" if ends[0] <= 1 <= ends[1] else ""


def _leaner(guided: str, methods: Sequence[str], found: comparison.Comparison) -> Verdict:
    rival = next((name for name in methods if _begins(name, FIRST)), None)
    ratios = _ratios(found, guided, rival, "peak_memory")
    if rival is None or not len(ratios):
        return Verdict("C6", "not enough evidence", f"No run of first order with its peak memory stands beside {guided}.")
    ends = _interval(ratios)
    numbers: dict[str, Any] = {"of": f"peak memory of {guided} over {rival}", "value": float(np.mean(ratios)), "interval": ends, "count": len(ratios)}
    sentence = f"A run of {guided} needs {np.mean(ratios):.2f} of the memory of {rival} at its peak {in_brackets(*ends, '.2f')}, {_seeds(len(ratios))}."
    if ends[1] < 1:
        return Verdict("C6", "yes", sentence, **numbers)
    if ends[0] > 1:
        return Verdict("C6", "no", sentence, **numbers)
    why = "An interval that holds 1 shows no difference." if np.isfinite(ends[0]) else "Without an interval there is no answer."
    return Verdict("C6", "not enough evidence", f"{sentence} {why}", **numbers)


def _ratios(found: comparison.Comparison, ours: str, theirs: str | None, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Quotients seed by seed, where both have the number."""
    by = {method: {row["seed"]: row[name] for row in found.runs if row["method"] == method} for method in (ours, theirs)}
    values = np.array([by[ours][seed] / by[theirs][seed] for seed in by[ours] if by[theirs].get(seed)], dtype=np.float64)
    return values[np.isfinite(values)]


def _interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    found = interval_over_seeds(values)
    return found.low, found.high


def _size(value: float, ends: tuple[float, float]) -> str:
    return f"{value:+.2f} {in_brackets(*ends)}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
