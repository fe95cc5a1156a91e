"""ZOPrO (arXiv 2503.03460) that asks how good its previous update still is: our own step beyond the paper.

Every update probes p^, the unit previous policy update, and K unit directions w^, the same update with a
random factor on every row of every tensor, made orthogonal to p. Rows of an old update held half of
the gradient's energy in our first trial, eight times as much per dimension as all of space. With slopes a
along p^ and b along w^, and running means over the iteration,

    A = mean of a (with its standard error S),   B2 = mean of b^2
    alpha^2 = A^2 / (A^2 + B2)  if |A| > patience * S, else 0     p is stale: it is left alone
    theta <- theta - rate r (alpha sign(A) p^ + sqrt(1 - alpha^2) sum_k b_k w_k^ / |b|)

A^2 / B2 compares rho^2, the share of the gradient that p holds, with that of a direction one could draw
instead, so alpha = 0 below the break-even, where p is worth no more than noise. The radius r begins
at `step` |p|, grows by `grow` while fresh slopes along p agree with A, and is halved when one does not
(p has been followed too far); an iteration never walks further than `limit` |p| along p. The first iteration is first order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from interplay.config import setting
from interplay.directions import Guides, along
from interplay.objectives.base import Metrics
from interplay.updates._guided import FirstIteration, Guided
from interplay.updates._zeroth import Differences, Probe, Probing
from interplay.updates.base import Closure, UpdateRule


@dataclass(frozen=True)
class Settings(FirstIteration, Probing):
    step: float = setting(0.1, "zopro_adaptive", "first radius of an update, in lengths of the previous update", above=0)
    grow: float = setting(1.25, "zopro_adaptive", "factor of the radius while slopes along the previous update agree", low=1)
    limit: float = setting(4.0, "zopro_adaptive", "an iteration walks at most this far along the previous update, in its lengths", above=0)
    patience: float = setting(1.0, "zopro_adaptive", "the mean slope counts where it exceeds this many standard errors", low=0)


@dataclass
class Belief:
    """What the iteration has learnt of its two kinds of direction."""

    radius: float
    walked: float = 0.0  # along p^, signed
    slopes_p: list[float] = field(default_factory=list)
    slopes_w: list[float] = field(default_factory=list)

    def alpha(self, patience: float) -> float:
        """Weight of p^: 0 where it is no better than a drawn direction, or its mean slope is not known."""
        mean, error = float(np.mean(self.slopes_p)), self.error
        drawn = float(np.mean(np.square(self.slopes_w)))
        if (error is not None and abs(mean) <= patience * error) or mean**2 <= drawn:
            return 0.0
        return math.sqrt(mean**2 / (mean**2 + drawn)) if drawn > 0 else 1.0

    @property
    def error(self) -> float | None:
        """Standard error of the mean slope along p^; None for a single update."""
        return float(np.std(self.slopes_p, ddof=1) / len(self.slopes_p) ** 0.5) if len(self.slopes_p) > 1 else None


class ZoproAdaptive(Guided, Differences):
    """Two directions an update, weighed by what their slopes have shown."""

    mode = "momentum"

    def guide(self, guides: Guides | None) -> None:
        super().guide(guides)
        if self.frame is not None:
            self.belief = Belief(self.settings.step * self.frame.previous_norm)

    def guided_step(self, closure: Closure) -> Metrics:
        assert self.frame is not None
        assert self.frame.p_N is not None
        self.space.hold()
        p, rate = along(self.space, self.frame.p_N), self.rate
        drawn = [along(self.space, self.pieces(self.frame.p_N, k)) for k in range(self.settings.directions)]
        probes, along_z = self.probe(closure, [p, *drawn])
        slopes = [slope * probe.direction.norm for slope, probe in zip(along_z, probes, strict=True)]  # along unit vectors from here on
        alpha, way = self.learn(slopes[0], slopes[1:])
        extra = self.measured(closure, p, alpha)
        steep = math.sqrt(sum(slope**2 for slope in slopes[1:])) or 1.0
        across = rate * self.belief.radius * math.sqrt(1 - alpha**2)
        self.move([(way / p.norm, p), *((-across * slope / steep / w.norm, w) for slope, w in zip(slopes[1:], drawn, strict=True))])
        return {**probes[0].plus.metrics, **self.told(probes, slopes, alpha), **extra, "forwards": 2.0 * len(probes), "lr": rate}

    def pieces(self, p_N: Tensor, k: int) -> Tensor:
        """p with a random factor on every row, made orthogonal to p."""
        random = np.random.default_rng([self.seed, 13, self.optimizer.done, k])
        made_N = p_N.clone()
        for view in self.space.views(made_N):
            rows = view.shape[0]
            factors = random.standard_normal(rows) if self.settings.noise == "gaussian" else random.choice([-1.0, 1.0], rows)
            view.mul_(p_N.new_tensor(factors).view(-1, *[1] * (view.dim() - 1)))
        made_N.sub_(p_N, alpha=float(made_N.double() @ p_N.double()) / float(p_N.double() @ p_N.double()))
        return made_N

    def learn(self, slope_p: float, slopes_w: list[float]) -> tuple[float, float]:
        """Update the belief; returns alpha and the signed way along p^."""
        assert self.frame is not None
        belief, chosen = self.belief, self.settings
        if belief.slopes_p:
            agrees = slope_p * float(np.mean(belief.slopes_p)) > 0
            belief.radius *= chosen.grow if agrees else 0.5
        belief.slopes_p.append(slope_p)
        belief.slopes_w += slopes_w
        alpha = belief.alpha(chosen.patience)
        wanted = belief.walked - self.rate * belief.radius * alpha * math.copysign(1.0, float(np.mean(belief.slopes_p)))
        limit = chosen.limit * self.frame.previous_norm
        way = min(max(wanted, -limit), limit) - belief.walked
        belief.walked += way
        return alpha, way

    def told(self, probes: list[Probe], slopes: list[float], alpha: float) -> Metrics:
        assert self.frame is not None
        belief, size = self.belief, self.frame.previous_norm
        return {
            "loss": probes[0].loss,
            "zo/slope": slopes[0],
            "zo/slope_pieces": math.sqrt(sum(slope**2 for slope in slopes[1:]) / len(slopes[1:])),
            **({"zo/signal_to_noise": probes[0].signal_to_noise} if probes[0].signal_to_noise is not None else {}),
            "zo/epsilon": probes[0].reach * probes[0].direction.norm,
            "zo/alpha": alpha,
            "zo/radius": belief.radius / size,
            "zo/distance": belief.walked / size,
        }


RULE = UpdateRule(
    *("zopro_adaptive", "SPSA that weighs the previous update by its own slopes", "arXiv:2503.03460", Settings, ZoproAdaptive),
    differences=True,
    guided=True,
    rate=1.0,
)
