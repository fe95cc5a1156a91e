"""What each figure and each verdict measures, by which formula, and when it misleads: short, for those who see it for the first time.

Captions (`FigureSpec.caption`) and docs/metrics.md say the same at length. d is an update, Δ a displacement, ⟨x, y⟩ = Σ x ∘ y over all numbers
of the modules that are meant, ‖x‖² = ⟨x, x⟩.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.spec import FigureSpec


@dataclass(frozen=True)
class Explanation:
    """One sentence on what is measured, the formula in plain letters, and when it misleads."""

    what: str
    formula: str
    misleads: str


_COSINE = "cos(d, d′) = ⟨d, d′⟩ / (‖d‖ ‖d′‖), d′ the other role's latest update before d"
_NULL = "band: 0 ± 1.96 sd, sd the spread of that cosine if d were noise of its own norms in the space that the adapter can move in"
_ORTHOGONAL = "In many dimensions unrelated updates are orthogonal by default, so 0 is the normal case"
_MOMENTUM = "The optimiser's momentum alone makes neighbouring updates alike"
_SEEDS = "Student's t over seeds; seeds share their start and prompts, so it says nothing about other starts"
_CHANGE = "Δ = score on held-out prompts − score before training; proxy in standard deviations before training"
_SPSA = "along z = α p + √(1 − α²) u: p the policy's last iteration, u noise, n trained numbers"
_PROXY = "Far from the reference a frozen reward model is exploited, so look at gold too; gold sees form and never truth"

FIGURES: Mapping[str, Explanation] = {
    # --- two roles ---
    "alignment_curve": Explanation(
        "Does each update of one role go along with the other role's latest one? Above the band: along it; below: against it; within: what chance gives.",
        f"{_COSINE}; exact, all modules as one vector\n{_NULL}",
        f"{_ORTHOGONAL}. It may also be a sum of modules that go along and modules that go against: look at the modules one by one.",
    ),
    "coupling_map": Explanation(
        "Where in the model, and when, a role goes along with the other one (red) or against it (blue), in units of chance.",
        f"z = cos / sd for each row and update; {_COSINE}\nfull colour at 4 sd; about 5 % of cells lie beyond 1.96 sd by chance",
        "Neighbouring updates are alike, so a stripe along a row is one coincidence and not many.",
    ),
    "module_coupling": Explanation(
        "Which single modules go along with the other role: the mean cosine of each, beside what chance gives.",
        f"mean over updates of {_COSINE}, by module\nband: 0 ± 1.96 sd of that mean, likeness of neighbouring updates counted in\n"
        "stands out: p ≤ 0.05 after Holm",
        "A mean hides modules that turn around. The band is a lower limit, because real updates are less spread than noise.",
    ),
    "lag_profile": Explanation(
        "Who leads: does the reward model go where the policy went before (lag 0 and above), or the policy where the reward model went (below 0)?",
        "mean over t of cos(policy step t, reward step t + lag); lag 0: the first reward step after a policy step\n"
        "band: 0 ± 1.96 sd of that mean (Bartlett 1935)",
        "Steps of one role are alike, so neighbouring lags repeat each other. Who comes first need not be the cause. Short runs have too few steps.",
    ),
    "cross_lag": Explanation(
        "Every step of the policy against every step of the reward model: on and above the line the policy came first, below it the reward model.",
        "⟨d_t, d′_s⟩ / (‖d_t‖ ‖d′_s‖) from sketches, over all modules that both have; by chance: the same divided by 4 sd",
        f"{_MOMENTUM}, so a patch is one coincidence and not many.",
    ),
    "starts": Explanation(
        "How large the cosines of single modules are, could be, and would be by chance, run by run.",
        "root mean square over updates of the cosine, of the largest cosine attainable, and of the chance sd; one dot for each module",
        "Adapters that were drawn independently cannot agree: compare cosine with attainable, and not run with run.",
    ),
    "verdict_numbers": Explanation(
        "The numbers that the verdicts rest on, each with its 95 % interval above what would be found if there were nothing.",
        "C1 mean cosine of both roles, C2 mean cosine with the update before, C3 that at the largest lag; C4 to C6 means over seeds",
        "One recording shows itself and no other seed. From three runs on the interval holds their spread.",
    ),
    # --- one role ---
    "persistence_lags": Explanation(
        "How long each role keeps its direction: the mean cosine of an update with those before it.",
        "mean over t of ⟨d_t, d_(t−l)⟩ / (‖d_t‖ ‖d_(t−l)‖) by lag l; lag 1 exact, longer lags from sketches\nband: 0 ± 1.96 sd by chance",
        f"{_MOMENTUM}: at momentum 0.9 by about 0.9ˡ. Means of neighbouring updates are not independent.",
    ),
    "straightness_curve": Explanation(
        "How straight each path is: 1 is a straight line, the thin line is a random walk.",
        "‖Σ d‖ / Σ ‖d‖ after each update; a random walk of U equal updates has about 1/√U",
        f"{_MOMENTUM}, which keeps a path straight at its beginning. Pulling a reward model back moves it without an update.",
    ),
    "cosine_heatmap": Explanation(
        "Which layers keep their direction from update to update, or share it with the other role: red along, blue against.",
        "⟨d_t, d_(t−1)⟩ / (‖d_t‖ ‖d_(t−1)‖) over the modules of a row; or with the other role's latest update in place of d_(t−1)",
        f"{_ORTHOGONAL}. {_MOMENTUM}. Beside the other role's update cells within chance are dotted; for the previous update chance is not recorded.",
    ),
    "norm_heatmap": Explanation(
        "How far each layer or kind of module moved at each update.",
        "√Σ ‖d_m‖² over the modules m of a row",
        "Rows of more weights have larger norms. Under AdamW the norm is mostly the step size.",
    ),
    "norm_shares": Explanation(
        "Which layers or kinds of module the updates are made of.",
        "mean over updates of Σ ‖d_m‖² over the modules m of a row / Σ ‖d_m‖² over all",
        "AdamW moves every weight by about the same, so a row of more weights has a larger share whatever it learns.",
    ),
    "trajectories": Explanation(
        "The paths of policy and reward model in one space, update by update: what they share of directions shows, and the caption says how much is chance.",
        "rows = Σ d (positions) or d (updates) of sketches with one common seed; PCA: the two directions of most variance; UMAP, t-SNE: neighbours kept",
        "Random walks draw smooth curves too: believe a shape only if it explains more than theirs. In UMAP and t-SNE lengths and angles mean nothing.",
    ),
    "extrapolation": Explanation(
        "Whether a straight line foresees the next updates: 0 is perfect, 1 is what staying put gives.",
        "‖foretold − true‖ / ‖true‖, foretold: horizon times the mean of the last window updates, true: the sum of the next horizon\n"
        "band: a step of the foretold length in a random direction",
        f"{_MOMENTUM}, so a short horizon is easy. Neighbouring forecasts share updates.",
    ),
    "subspace_overlap": Explanation(
        "Whether the directions in which both roles move most are shared: 0° is a shared direction, 90° none.",
        "principal angles between the k leading right singular vectors of both roles' sketched steps\n"
        "band: random subspaces of as many dimensions as chance has",
        "Directions in which a role moved little count as much as those in which it moved far.",
    ),
    "path_kinship": Explanation(
        "Whether both roles' steps depend on each other in any way, without a common basis: dots beyond the whiskers are beyond chance.",
        "distance correlation of steps, 1 − Procrustes disparity of paths, Pearson's r of norms\n"
        "whiskers: the same after one role's steps were shifted in a circle",
        "A shift breaks common trends too, so one learning-rate schedule makes norms alike without any coupling.",
    ),
    # --- directions ---
    "gains": Explanation(
        "What a sampled direction was worth against an isotropic one, foretold and measured: 1 is chance.",
        f"predicted α² ρ² n + 1 − α² {_SPSA}\nmeasured n (z·g₁)(z·g₂) / (z·z g₁·g₂), g₁ and g₂ gradients of two halves of the batch",
        "g₁·g₂ is a small difference of noisy numbers, so single updates scatter, also below 0: compare means.",
    ),
    "energy_shares": Explanation(
        "How much of the gradient lies along the previous update, along its pieces, and along recent updates.",
        "Σ (g₁·u)(g₂·u) / g₁·g₂ over orthonormal u that span the subspace; g₁, g₂ gradients of two halves of the batch",
        "Larger subspaces hold more by their size alone. Single batches fall outside 0 to 1; only means are read.",
    ),
    # --- scores ---
    "run_curves": Explanation(
        "One score of several runs in one picture.",
        "thin lines: mean of each training batch; dots: mean over held-out prompts ± 1.96 standard errors",
        "Rewards of different reward models do not compare: those of the dots do, where the runs share reward model 0.",
    ),
    "reward_curve": Explanation(
        "What the policy was trained on, and what frozen reward model 0 says of held-out prompts.",
        "line: mean reward of each training batch; dots: mean score of reward model 0 ± 1.96 standard errors over prompts",
        "The reward model that trains the policy changes between iterations, so only the dots compare over time.",
    ),
    "gold_curve": Explanation(
        "The task's own programmatic score, which no reward model can be talked into.",
        "mean gold score of each training batch, and of held-out prompts ± 1.96 standard errors",
        "Gold sees form and overlap and never truth. Values of different tasks cannot be compared.",
    ),
    "kl_curve": Explanation(
        "How far the policy has left its reference.",
        "mean over completions of Σ over tokens (log π − log π_ref), in nats",
        "A sampled estimate: one batch may fall below zero, and longer texts weigh more.",
    ),
    "gold_proxy_gap": Explanation(
        "How much more the frozen reward model rose than gold: above 0 the policy exploits it, or gold cannot follow.",
        "(proxy − proxy₀) / sd₀(proxy) − (gold − gold₀) / sd₀(gold) on held-out prompts, 0: before training",
        "The reference is the run's own start, so runs from other starts do not compare.",
    ),
    "pair_logprobs": Explanation(
        "What a preference loss does to chosen and rejected answers.",
        "implicit reward β Σ over tokens (log π − log π_ref), mean over chosen and over rejected; margin = chosen − rejected",
        "The margin may grow while both fall: then the policy leaves both answers. Each batch has other pairs.",
    ),
    "frontier": Explanation(
        "What each gain of a held-out score costs in distance from the reference.",
        f"x: KL, Σ over tokens (log π − log π_ref), mean over completions; y: {_CHANGE}",
        f"KL comes from one completion per prompt and grows with length. {_PROXY}.",
    ),
    # --- comparisons ---
    "arms": Explanation(
        "What each method changed on held-out prompts, seed by seed.",
        f"{_CHANGE}; whiskers: 95 %, {_SEEDS}",
        f"Methods are better compared by paired differences. {_PROXY}.",
    ),
    "arm_differences": Explanation(
        "Each method minus the first one, on the same seeds and prompts.",
        f"mean over seeds of Δ(method) − Δ(first); {_CHANGE}; whiskers: 95 %, Student's t over seeds",
        "An interval that holds zero shows no difference; it does not show that there is none.",
    ),
    "method_curves": Explanation(
        "What each method's change costs in forward passes, tokens or seconds.",
        f"{_CHANGE}; line: mean over seeds; band: 95 %, {_SEEDS}",
        f"What a warm start cost is left out; lines between evaluations are no measurements. {_PROXY}.",
    ),
    "memory_reward": Explanation(
        "What a change of the held-out score needs in memory.",
        f"x: most memory of the process (on a GPU: most allocated there); y: {_CHANGE}; whiskers: 95 %, Student's t over seeds",
        "Memory never falls during a run. On a CPU it includes libraries, models and the recorder: compare runs of one machine only.",
    ),
}

#: The claims of `analysis.report`, by label.
CLAIMS: Mapping[str, Explanation] = {
    "C1": Explanation(
        "Whether updates of policy and reward model are orthogonal, all modules as one vector.",
        f"mean over policy updates of {_COSINE}\nyes: its 95 % interval lies within ±0.1; no: beyond 0.1 on one side; 20 cosines at least",
        f"{_ORTHOGONAL}; the whole may be small while single modules couple in both signs.",
    ),
    "C2": Explanation(
        "Whether an update of the policy goes on where the last one went.",
        "mean of cos(d_t, d_(t−1))\nyes: its 95 % interval lies above 0.05; no: below; 20 cosines at least",
        f"{_MOMENTUM}; longer lags and whole iterations are free of most of it.",
    ),
    "C3": Explanation(
        "Whether steps of one role foretell those of the other.",
        "mean of cos(policy step t, reward step t + lag) by lag\nwho leads: the lag that stands out after Holm's correction and beats its mirror image",
        "It needs eight iterations of both roles, or as many updates that take turns. Who comes first need not be the cause.",
    ),
    "C4": Explanation(
        "Whether sampling along the previous update gains more than blind sampling.",
        "gain(zopro) − gain(mezo), and − gain(extrapolate) where there is one, by frozen reward model 0, paired by seed and prompt\nyes: all intervals above 0",
        "Few seeds give wide intervals. It holds for this budget and these prompts.",
    ),
    "C5": Explanation(
        "Whether it gets as far as first order in no more time.",
        "time(zopro) / time(first order), and gain(zopro) − gain(first order)\n"
        "no: surely behind, or surely more than 1.1 times as long; yes: surely no more than 0.1 SD behind, and at most 1.1 times as long",
        "Time depends on the machine and on what else it did.",
    ),
    "C6": Explanation(
        "Whether it needs less memory than first order.",
        "peak memory(zopro) / peak memory(first order), seed by seed\nyes: the interval lies below 1",
        "On a CPU the peak includes libraries, models and the recorder, so the ratio is nearer to 1 than that of the method alone.",
    ),
}

#: The forecast of ZOPrO's gain.
FORECAST = Explanation(
    "What sampling along the previous update may be worth against isotropic sampling, foretold from recorded first-order updates: 1 is no gain.",
    "α² ρ² n + 1 − α², n trained numbers\nρ = cos(e, first iteration's whole update)\n"
    "e: what the second iteration's first update does not share with the one before it",
    "An order of magnitude, not a measurement: AdamW's rescaling stays in ρ, and ±0.01 are allowed for it.",
)


def reading(spec: FigureSpec) -> str:
    """The part of a caption that speaks of these runs and not of the figure as such; all of it where the two are not apart."""
    _, found, numbers = spec.alt.partition(f"{spec.title}: ")
    return numbers if found and (spec.empty or spec.caption.endswith(numbers)) else spec.caption
