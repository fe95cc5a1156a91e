"""`--from RUN`: begin where another recorded run ended, so that all arms of a comparison share one start. `--from RUN@ITERATION`: where that iteration ended.

Taken over: policy, critic, reward model (merged and as refined), frozen reward model 0, the last
updates of policy and reward model, optimiser moments where both have the optimiser, judged pairs, and
how many prompts were used. The reference stays the base that both runs loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from interplay import checkpoints, kept, reward_model
from interplay.config import RunConfig
from interplay.directions import Guides
from interplay.errors import ConfigError, StoreError
from interplay.evaluation import Baseline
from interplay.reading import refuse_no_run
from interplay.reward_model import Weights
from interplay.session import Session, first_order
from interplay.store import RunStore
from interplay.tensors import plain_name


@dataclass(frozen=True)
class Start:
    """The end of a recorded run or of one of its iterations, read."""

    run: Path
    checkpoint: checkpoints.Loaded


def find(config: RunConfig) -> Start | None:
    """The run that `--from` names. Raises `ConfigError` if it is none, has fewer than two iterations kept, or not the one that is named."""
    if config.start_from is None:
        return None
    run, iteration = kept.parted(config.start_from)
    refuse_no_run("--from", run)
    try:
        RunStore.open(run)
    except StoreError as error:
        raise ConfigError(f"--from is {config.start_from!r}, which cannot be read: {error}") from error
    found = checkpoints.last(run / kept.FOLDER, iteration)
    if found is None and iteration is not None:
        raise ConfigError(f"--from is {config.start_from!r}, but that run keeps {_whole(run)}; name one of those, or the run alone")
    if found is None or found.iteration < 1:
        has = "no checkpoint" if found is None else "only that of iteration 0" if iteration is None else "no updates in iteration 0"
        raise ConfigError(f"--from is {config.start_from!r}, which has {has}; a start needs two iterations (0 and one with updates)")
    return Start(run, found)


def _whole(run: Path) -> str:
    """`complete checkpoints of the iterations 0, 2`."""
    found = [str(number) for number in reversed(kept.numbers(run / kept.FOLDER)) if kept.complete(kept.place(run, number))]
    return f"complete checkpoints of the iterations {', '.join(found)}" if found else "no complete checkpoint"


def apply(session: Session, start: Start) -> None:
    """Put a new session to where the other run ended. Call `check` before."""
    models, folder = session.models, start.checkpoint.folder
    checkpoints.assign_from(models.policy, folder / "policy")
    if models.critic is not None and (folder / "value").is_dir():
        checkpoints.assign_from(models.critic, folder / "value")
    if models.reward is not None:
        checkpoints.assign_from(models.reward, folder / "reward_merged")
        session.unmerged = checkpoints.read(models.reward, folder / "reward")
        session.evaluator.frozen = checkpoints.read(models.reward, checkpoints.frozen_folder(start.run / "checkpoints", start.checkpoint.iteration))
    for name, optimizer in session.optimizers.items():
        file = folder / f"optimizer-{name}.safetensors"
        if file.is_file() and not name.endswith("-zeroth"):  # a new run counts its own zeroth-order updates
            checkpoints.restore_optimizer(optimizer, file)
    for rule in first_order(session).values():
        rule.earlier = rule.steps
    session.guides = guides(session, start)
    state = start.checkpoint.state
    session.offset = tuple(state.get("used", (0, 0)))
    session.evaluator.baseline = Baseline(**state["baseline"]) if state.get("baseline") else None


def guides(session: Session, start: Start) -> Guides:
    """The last updates as the run wrote them down, or the difference of its last two iterations."""
    written = checkpoints.read_guides(start.checkpoint.folder)
    if written is not None:
        return written
    before = start.checkpoint.folder.with_name(f"iteration-{start.checkpoint.iteration - 1}")
    if not checkpoints.complete(before):
        raise ConfigError(f"--from is {str(start.run)!r}, which keeps no iteration {start.checkpoint.iteration - 1}; record it with --keep-checkpoints all")
    models, now = session.models, start.checkpoint.folder
    policy = difference(checkpoints.read(models.policy, now / "policy"), checkpoints.read(models.policy, before / "policy"))
    if models.reward is None:
        return Guides(policy, {})
    reward = difference(checkpoints.read(models.reward, now / "reward"), checkpoints.read(models.reward, before / "reward"))
    return Guides(policy, named_as(reward, policy))


def difference(now: Weights, before: Weights) -> Weights:
    return {name: now[name] - before[name] for name in now}


def named_as(values: Weights, policy: Weights) -> Weights:
    """Tensors of another role under the policy's names; what the policy has not (a head) is left out."""
    theirs = {plain_name(name): tensor for name, tensor in values.items()}
    return {name: theirs[plain_name(name)] for name in policy if plain_name(name) in theirs}


def check(session: Session, start: Start) -> None:
    """Raises `ConfigError` where the two runs train different tensors, or this one needs what that one has not."""
    folder, models = start.checkpoint.folder, session.models
    argument = f"--from is {session.config.start_from!r}"
    theirs = _shapes(folder / "policy")
    ours = {checkpoints.stored(models.policy, name): list(parameter.shape) for name, parameter in reward_model.trainable(models.policy)}
    for name in sorted(theirs.keys() ^ ours.keys()):
        who = "whose policy trains" if name in theirs else "whose policy does not train"
        raise ConfigError(f"{argument}, {who} {name}, unlike this run; use its --model, --tune, --layers and --lora-targets")
    for name, shape in ours.items():
        if theirs[name] != shape:
            raise ConfigError(f"{argument}, whose policy has {name} of shape {theirs[name]}, and this run {shape}; use its --model and --lora-rank")
    earlier = RunStore.open(start.run).info.config.get("lora_alpha")
    if session.config.tune == "lora" and earlier is not None and earlier != session.config.lora_alpha:
        raise ConfigError(f"{argument}, whose --lora-alpha is {earlier:g}, and this run's {session.config.lora_alpha:g}; use the same")
    if models.reward is not None and not (folder / "reward").is_dir():
        raise ConfigError(f"{argument}, which has no reward model; add --reward gold, or start from a run with one")
    if models.reward is not None and not checkpoints.frozen_folder(start.run / "checkpoints", start.checkpoint.iteration).is_dir():
        raise ConfigError(f"{argument}, which keeps no reward model 0; record it with --keep-checkpoints all, or add --reward gold")


def _shapes(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found.update({name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()})  # noqa: SIM118 - no mapping
    return found
