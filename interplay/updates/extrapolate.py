"""Control: walk on along the previous policy update, asking the loss nothing.

    theta <- theta + rate (distance / updates) p       in each of an iteration's updates; rate is 1 unless typed

Whatever a guided zeroth-order rule (ZOPrO, arXiv 2503.03460) gains over this at the same displacement is owed to its probes; the
rest is owed to the direction. Linear extrapolation of fine-tuning is an old finding; as a control for
zeroth-order preference optimisation we know of no publication. The first iteration is first order.
"""

from __future__ import annotations

from dataclasses import dataclass

from interplay.config import setting
from interplay.directions import along
from interplay.objectives.base import Metrics
from interplay.updates._guided import FirstIteration, Guided
from interplay.updates.base import Closure, UpdateRule


@dataclass(frozen=True)
class Settings(FirstIteration):
    distance: float = setting(1.0, "extrapolate", "how far an iteration walks, in lengths of the previous update")


class Extrapolate(Guided):
    """A blind walk."""

    mode = "momentum"
    walked = 0.0  # in this iteration, in lengths of p

    def guided_step(self, closure: Closure) -> Metrics:
        del closure
        assert self.frame is not None
        assert self.frame.p_N is not None
        self.space.hold()
        rate = self.rate
        share = rate * self.settings.distance / self.plan.config.updates
        self.walked = share + (self.walked if self.since else 0.0)
        self.move([(share, along(self.space, self.frame.p_N))])
        return {"zo/distance": self.walked, "zo/norm_ratio": abs(share), "forwards": 0.0, "lr": rate}


RULE = UpdateRule(
    *("extrapolate", "control: a blind walk along the previous update", "arXiv:2503.03460", Settings, Extrapolate),
    control=True,
    guided=True,
    rate=1.0,
)
