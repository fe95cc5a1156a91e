"""Recordings with a known answer: two roles whose updates are drawn so that they go along, across, or after each other.

The sketch of an update is the update itself (k numbers in each module), so every cosine can be computed twice.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.evidence import Recording
from analysis.trajectory import Trajectory
from interplay.records import SketchSpec

Kind = Literal["aligned", "orthogonal", "policy leads", "reward leads", "nothing", "persistent"]
K, MODULES = 128, 6


def planted(kind: Kind, seed: int = 0, *, iterations: int = 12, each: int = 3, strength: float = 0.5, k: int = K) -> Recording:
    """`each` policy updates, then as many of the reward model, in every iteration; `nothing` is a run of three updates in few dimensions."""
    if kind == "nothing":
        iterations, k = 1, 2
    random = np.random.default_rng([seed, sum(map(ord, kind))])
    policy_I, reward_I = (random.standard_normal((iterations, MODULES, k)) for _ in range(2))
    shared = strength**0.5
    if kind == "aligned":
        reward_I = shared * policy_I[:1] + (1 - strength) ** 0.5 * reward_I
        policy_I = shared * policy_I[:1] + (1 - strength) ** 0.5 * policy_I
    if kind == "policy leads":
        reward_I[1:] = shared * policy_I[:-1] + (1 - strength) ** 0.5 * reward_I[1:]
    if kind == "reward leads":
        policy_I[1:] = shared * reward_I[:-1] + (1 - strength) ** 0.5 * policy_I[1:]
    if kind == "nothing":
        policy_I, reward_I = np.zeros_like(policy_I), np.zeros_like(reward_I)
    if kind == "persistent":
        policy_I = np.broadcast_to(policy_I[:1], policy_I.shape).copy()
    steps = {"reward": [], "policy": []}  # type: dict[str, list[tuple[int, int, Any]]]
    clock = 1
    steps["reward"].append((clock, 0, 0.1 * random.standard_normal((MODULES, k))))  # reward model 0
    for iteration in range(iterations):
        for role, drift_I in (("policy", policy_I), ("reward", reward_I)):
            for _ in range(each):
                clock += 1
                own = 0.2 * drift_I[iteration] + 0.1 * random.standard_normal((MODULES, k))
                steps[role].append((clock, iteration + 1, own))
    return recording(steps, k)


def recording(steps: dict[str, list[tuple[int, int, Any]]], k: int) -> Recording:
    """From (clock, iteration, update of M x k) of each role; everything else follows from the definitions."""
    paths = {role: _trajectory(role, rows, k) for role, rows in steps.items()}
    updates = pd.concat([_updates(role, rows, steps["reward" if role == "policy" else "policy"], k) for role, rows in steps.items()])
    empty = pd.DataFrame(columns=["clock", "update", "iteration", "role", "split", "name", "value", "seconds"])
    return Recording("planted", "rloo", 0, "g", paths["policy"], paths["reward"], updates.sort_values("clock"), empty, empty, MODULES * k)


def _trajectory(role: str, rows: list[tuple[int, int, Any]], k: int) -> Trajectory:
    sketches = np.array([own for _, _, own in rows], dtype=np.float32).reshape(len(rows), MODULES, k)
    numbers = np.arange(1, len(rows) + 1)
    clocks, iterations = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    names = tuple(f"layers.{m // 2}.{'qk'[m % 2]}_proj" for m in range(MODULES))
    layers = np.arange(MODULES) // 2
    norms = np.linalg.norm(sketches, axis=2)
    return Trajectory("planted", role, SketchSpec(k=k), numbers, clocks, iterations, names, layers, norms, sketches)


def _cos(x: Any, y: Any) -> Any:
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.where(lengths > 0, (x * y).sum(-1) / np.where(lengths > 0, lengths, 1), np.nan)


def _updates(role: str, rows: list[tuple[int, int, Any]], others: list[tuple[int, int, Any]], k: int) -> pd.DataFrame:
    """The `updates` stream of a role: one row for each update and module, in order."""
    own_UMK = np.array([own for _, _, own in rows]).reshape(-1, MODULES, k)
    their_SMK = np.array([own for _, _, own in others]).reshape(-1, MODULES, k)
    clocks_U, iterations_U = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    latest_U = np.searchsorted([clock for clock, _, _ in others], clocks_U) - 1
    position_UMK = np.cumsum(own_UMK, axis=0)
    nothing_1M = np.full((1, MODULES), np.nan)
    along_UM = np.where(latest_U[:, None] >= 0, _cos(own_UMK, their_SMK[np.maximum(latest_U, 0)]) if len(their_SMK) else np.nan, np.nan)
    kinds = [f"{'qk'[m % 2]}_proj" for m in range(MODULES)]
    count = len(rows)
    columns = {
        "update_norm": np.linalg.norm(own_UMK, axis=2),
        "weight_norm": np.ones((count, MODULES)),
        "displacement_norm": np.linalg.norm(position_UMK, axis=2),
        "cos_previous": np.concatenate([nothing_1M, _cos(own_UMK[1:], own_UMK[:-1])]),
        "cos_displacement": np.concatenate([nothing_1M, _cos(own_UMK[1:], position_UMK[:-1])]),
        "cos_other_update": along_UM,
        "attainable_other_update": np.where(np.isfinite(along_UM), 1.0, np.nan),
        "null_other_update": np.where(np.isfinite(along_UM), k**-0.5, np.nan),
        **{f"{name}_other_iteration": np.full((count, MODULES), np.nan) for name in ("cos", "attainable", "null")},
    }
    places = {"clock": clocks_U, "update": np.arange(1, count + 1), "iteration": iterations_U}
    words = {"module": [f"layers.{m // 2}.{kind}" for m, kind in enumerate(kinds)], "layer": [m // 2 for m in range(MODULES)], "kind": kinds}
    return pd.DataFrame(
        {name: np.repeat(values, MODULES) for name, values in places.items()}
        | {name: np.tile(values, count) for name, values in words.items()}
        | {"role": role, "space": "factor", "other_role": "reward" if role == "policy" else "policy"}
        | {name: values.ravel() for name, values in columns.items()}
    )
