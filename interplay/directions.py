"""Directions in weight space: ZOPrO's, the isotropic one, and controls, made from three scalars per tensor.

For each tensor, with p the previous policy update, v^ the unit reward-model update and n fresh noise
(ZOPrO, arXiv 2503.03460; corrected where the published code divides by zero or drifts):

    u = n - (v^.n) v^            the part of the noise off the reward model's update
    w = u |p| / |u|              as long as the previous update (tensor by tensor, or all together)
    z = alpha p + sqrt(1 - alpha^2) w

so E z = alpha p, |z| is about |p|, cos(z, p) about alpha, and z.v^ = alpha p.v^ exactly: only the
noise is orthogonal to the reward update, p keeps what it has. `MODES` names the variants.

What |u|, z.p and z.v need is three sums over the noise, so z = alpha p + c n - s v^ costs one reading
pass and one writing pass, and no tensor is ever made of it unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from interplay import noise
from interplay.errors import ConfigError
from interplay.kernels import Noise, Segments, alone, combine, moments

#: mode -> (alpha counts, noise is projected off v, p is projected off v too, v is a wrong one)
MODES: dict[str, tuple[bool, bool, bool, bool]] = {
    "ref": (True, True, False, False),
    "iso": (False, False, False, False),
    "momentum": (True, False, False, False),
    "orth": (False, True, False, False),
    "orth_full": (True, True, True, False),
    "wrong_v": (True, True, False, True),
}
Matching = Literal["tensor", "global", "none"]
TINY = 1e-12  # a norm below this is no direction


@dataclass(frozen=True)
class Guides:
    """What the last iteration did, by parameter name: the policy's update and the reward model's."""

    previous: Mapping[str, Tensor]
    reward: Mapping[str, Tensor]


class Space:
    """The trained tensors of one model as views of one flat float32 buffer.

    Raises `ConfigError` where a tensor is not float32: a small step vanishes in anything shorter.
    """

    def __init__(self, names: Sequence[str], parameters: Sequence[Tensor]) -> None:
        for name, parameter in zip(names, parameters, strict=True):
            if parameter.dtype != torch.float32:
                short = str(parameter.dtype).removeprefix("torch.")
                raise ConfigError(f"--dtype gives {short} weights to train ({name}), in which zeroth-order steps vanish; use --dtype float32 or --tune lora")
        self.names, self.parameters = tuple(names), tuple(parameters)
        self.segments = Segments.of([parameter.numel() for parameter in parameters])
        self.theta_N = self.flat(dict(zip(names, parameters, strict=True)))
        self.point()

    def point(self) -> None:
        """Point every tensor at its part of the buffer, whatever it points at."""
        for parameter, view in zip(self.parameters, self.views(self.theta_N), strict=True):
            parameter.data = view

    def views(self, flat_N: Tensor) -> list[Tensor]:
        """Each tensor's part of a flat vector in the tensor's shape."""
        ends = zip(self.segments.starts_S, self.segments.sizes_S, self.parameters, strict=True)
        return [flat_N[int(a) : int(a + n)].view(parameter.shape) for a, n, parameter in ends]

    def flat(self, values: Mapping[str, Tensor]) -> Tensor:
        """A flat vector of named tensors; a name that is missing stays zero."""
        device = self.parameters[0].device
        made_N = torch.zeros(self.segments.length, dtype=torch.float32, device=device)
        for name, view in zip(self.names, self.views(made_N), strict=True):
            if name in values:
                view.copy_(values[name].detach())
        return made_N

    def hold(self) -> None:
        """Take tensors back that something else has pointed elsewhere, with their values."""
        views = self.views(self.theta_N)
        for parameter, view in zip(self.parameters, views, strict=True):
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.data)
                parameter.data = view

    @property
    def count(self) -> int:
        """Trained numbers n (the buffer's padding not counted)."""
        return int(self.segments.sizes_S.sum())

    def squares(self, x_N: Tensor, y_N: Tensor | None = None) -> np.ndarray:
        """x.y of every tensor (x.x by default), length S, float64."""
        other = x_N if y_N is None else y_N
        pairs = zip(self.views(x_N), self.views(other), strict=True)
        return np.array([float((a.double() * b.double()).sum()) for a, b in pairs])


@dataclass(frozen=True)
class Direction:
    """One z: which noise, which vectors, and the scalars (alpha, c, s) of every tensor."""

    space: Space
    noise: Noise
    vectors: tuple[Tensor | None, Tensor | None]
    scalars_S3: np.ndarray
    norm: float
    cos_previous: float | None = None
    cos_reward: float | None = None

    def add(self, scale: float, base_N: Tensor, out_N: Tensor) -> None:
        """out = base + scale z, in one pass; `out` may be `base`."""
        combine(out_N, base_N, self.space.segments, self.noise, self.vectors, scale * self.scalars_S3)

    def add_tensor(self, s: int, scale: float, out_N: Tensor) -> None:
        """theta + scale z of one tensor into a flat vector of its size."""
        start, size = int(self.space.segments.starts_S[s]), int(self.space.segments.sizes_S[s])
        part = slice(start, start + size)
        p_N, v_N = (None if x is None else x[part] for x in self.vectors)
        own = Noise(self.noise.keys_S2[s : s + 1], self.noise.kind)
        combine(out_N, self.space.theta_N[part], alone(size), own, (p_N, v_N), scale * self.scalars_S3[s : s + 1])

    def dense(self) -> Tensor:
        """z as a flat vector."""
        made_N = torch.zeros_like(self.space.theta_N)
        self.add(1.0, made_N, made_N)
        return made_N


@dataclass(frozen=True)
class Frame:
    """p and v^ of an iteration as flat vectors, with the sums per tensor that every direction needs."""

    p_N: Tensor | None
    v_N: Tensor | None  # unit length per tensor; zero where the reward model did not move
    pp_S: np.ndarray
    pv_S: np.ndarray
    reward_norms_S: np.ndarray
    truth_N: Tensor | None = None  # the reward model's update where z is not projected off it: in `iso`, `momentum`, `wrong_v`

    @property
    def previous_norm(self) -> float:
        return float(np.sqrt(self.pp_S.sum()))


def frame(space: Space, guides: Guides, mode: str, seed: int) -> Frame:
    """Prepare the vectors of an iteration for a mode."""
    _, projected, both, wrong = MODES[mode]
    p_N = space.flat(guides.previous)
    v_N = space.flat(guides.reward) if projected and guides.reward else None
    truth_N = space.flat(guides.reward) if guides.reward and (wrong or not projected) else None
    if v_N is None:
        zero_S = np.zeros(len(space.names))
        return Frame(p_N, None, space.squares(p_N), zero_S, zero_S, truth_N)
    if wrong:
        _shuffle(space, v_N, seed)
    norms_S = np.sqrt(space.squares(v_N))
    for view, norm in zip(space.views(v_N), norms_S, strict=True):
        view.mul_(1 / norm if norm > TINY else 0.0)
    if both:
        for view, unit in zip(space.views(p_N), space.views(v_N), strict=True):
            view.sub_(unit, alpha=float((view.double() * unit.double()).sum()))
    return Frame(p_N, v_N, space.squares(p_N), space.squares(p_N, v_N), norms_S, truth_N)


def _shuffle(space: Space, v_N: Tensor, seed: int) -> None:
    """The same numbers in another order, tensor by tensor: a direction of the same norm that means nothing."""
    random = np.random.default_rng([seed, 7])
    for view in space.views(v_N):
        order = torch.from_numpy(random.permutation(view.numel())).to(view.device)
        view.copy_(view.flatten()[order].view(view.shape))


def isotropic(space: Space, seed: int, draw: int, kind: noise.Kind = "gaussian") -> Direction:
    """z = n, of variance 1 in every element."""
    of = _noise(space, seed, draw, kind)
    nn_S = moments(space.segments, of, None, None, space.theta_N)[:, 0]
    scalars_S3 = np.zeros((len(space.names), 3))
    scalars_S3[:, 1] = 1.0
    return Direction(space, of, (None, None), scalars_S3, float(np.sqrt(nn_S.sum())))


def along(space: Space, p_N: Tensor) -> Direction:
    """z = p."""
    pp_S = space.squares(p_N)
    scalars_S3 = np.zeros((len(space.names), 3))
    scalars_S3[:, 0] = 1.0
    return Direction(space, _noise(space, 0, 0, "gaussian"), (p_N, None), scalars_S3, float(np.sqrt(pp_S.sum())), 1.0)


def guided(
    space: Space, frame: Frame, mode: str, alpha: float, seed: int, draw: int, *, matching: Matching = "tensor", kind: noise.Kind = "gaussian"
) -> Direction:
    """ZOPrO's z of one draw. `alpha` in [0, 1] is ignored by the modes that have no previous update in z."""
    of = _noise(space, seed, draw, kind)
    sums_S3 = moments(space.segments, of, frame.p_N, frame.v_N, space.theta_N)
    scalars_S3 = _scalars(frame, sums_S3, alpha if MODES[mode][0] else 0.0, matching)
    z = _described(Direction(space, of, (frame.p_N, frame.v_N), scalars_S3, 0.0), frame, sums_S3)
    if frame.truth_N is None:
        return z
    product, norm = float(z.dense().double() @ frame.truth_N.double()), float(frame.truth_N.double().norm())
    return replace(z, cos_reward=_cosine(product, norm * z.norm))


def _noise(space: Space, seed: int, draw: int, kind: noise.Kind) -> Noise:
    return Noise(np.array([noise.key(seed, name, draw) for name in space.names], np.uint32).reshape(-1, 2), kind)


def _scalars(frame: Frame, sums_S3: np.ndarray, alpha: float, matching: Matching) -> np.ndarray:
    """(alpha, c, s) of every tensor. One that did not move before gets noise alone, as long as the median of the others."""
    nn_S, nv_S, _ = sums_S3.T
    off_S = nn_S - nv_S**2
    gone_S = off_S <= 1e-6 * nn_S  # all noise lies along v (a tensor of one number): what is left is rounding
    u_S = np.sqrt(np.where(gone_S, 1.0, off_S))
    p_S = np.sqrt(frame.pp_S)
    still_S = p_S <= TINY
    usual = float(np.median(p_S[~still_S])) if (~still_S).any() else 1.0
    length_S = np.where(still_S, usual, p_S)
    alpha_S = np.where(still_S, 0.0, alpha)
    weight_S = np.sqrt(1 - alpha_S**2)
    if matching == "tensor":
        c_S = weight_S * length_S / u_S
    elif matching == "global":
        c_S = weight_S * np.sqrt((length_S**2).sum() / max((u_S**2)[~gone_S].sum(), TINY**2))
    else:
        c_S = weight_S
    c_S = np.where(gone_S, 0.0, c_S)
    return np.stack([alpha_S, c_S, c_S * nv_S], axis=1)


def _described(z: Direction, frame: Frame, sums_S3: np.ndarray) -> Direction:
    """Norm and cosines from the sums, without another pass."""
    alpha_S, c_S, s_S = z.scalars_S3.T
    nn_S, nv_S, np_S = sums_S3.T
    zp_S = alpha_S * frame.pp_S + c_S * np_S - s_S * frame.pv_S
    zv_S = alpha_S * frame.pv_S + c_S * nv_S - s_S * (frame.reward_norms_S > TINY)
    square = float((alpha_S * zp_S + c_S * (alpha_S * np_S + c_S * nn_S - s_S * nv_S) - s_S * zv_S).sum())
    norm = max(square, 0.0) ** 0.5
    reward_norm = float(np.sqrt((frame.reward_norms_S**2).sum()))
    return replace(
        z,
        norm=norm,
        cos_previous=_cosine(float(zp_S.sum()), norm * frame.previous_norm),
        cos_reward=_cosine(float((zv_S * frame.reward_norms_S).sum()), norm * reward_norm),
    )


def _cosine(product: float, norms: float) -> float | None:
    return product / norms if norms > TINY else None
