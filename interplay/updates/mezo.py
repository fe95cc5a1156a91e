"""MeZO: isotropic SPSA, two forward passes and no activations kept.

Malladi et al. 2023 (arXiv 2305.17333), after Spall 1992. z has independent elements of variance 1, so
that E[slope z] is the gradient; in n dimensions one direction has a squared cosine of 1/n with it.

    slope = (L(theta + e z) - L(theta - e z)) / (2 e),    theta <- theta - rate * slope * z

Published MeZO adds and subtracts the noise in place and draws it anew in order; here weights come
back exactly and noise is a function of the element (`interplay/noise.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from interplay.directions import Direction, isotropic
from interplay.updates._zeroth import Probing, Spsa
from interplay.updates.base import UpdateRule


@dataclass(frozen=True)
class Settings(Probing):
    """Nothing beside the probing."""


class Mezo(Spsa):
    """Blind directions."""

    def directions(self, draw: int, count: int) -> list[Direction]:
        return [isotropic(self.space, self.seed, draw + k, self.settings.noise) for k in range(count)]


RULE = UpdateRule("mezo", "isotropic SPSA", "arXiv:2305.17333", Settings, Mezo, differences=True, rate=1e-6)
