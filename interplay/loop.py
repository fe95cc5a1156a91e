"""The policy-reward loop: rollouts -> policy updates -> pairs -> judge -> refine reward model -> merge.

    interplay train --method rloo --task chat

Iteration 0 makes the first pairs, trains reward model 0 on them, freezes a copy as a judge, and
scores the untrained policy. Each later iteration trains the policy, asks it for new pairs, has them
judged, refines the reward model on them, pulls it back towards the one before, and scores again.
Nothing here knows which objective or update rule runs; ZOPrO's loop (arXiv 2503.03460) is the model,
without its published defects: prompts keep their ids, both orders are judged, the critic is trained,
merged and un-merged reward models are kept, and an iteration is complete on disk or absent.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from interplay import checkpoints, evaluation, interrupts, pairing, pulse, reward_model, rollouts, starting
from interplay import session as sessions
from interplay.config import RunConfig
from interplay.directions import Guides
from interplay.errors import ConfigError, DataError
from interplay.objectives.base import Batch, Metrics, Targets, numbers
from interplay.policy_loss import PolicyLoss
from interplay.reading import RUN_FILES
from interplay.records import STREAMS
from interplay.rollouts import Sequences
from interplay.session import Report, Session, silent
from interplay.store import RunStore
from interplay.tasks import Pair, Prompt
from interplay.usage import peak_memory


def train(config: RunConfig, *, report: Report = silent) -> Path:
    """Run from the start. Returns the run's folder; raises `InterplayError` or `Interrupted`."""
    start = starting.find(config)
    before = sessions.folder(config).exists()
    store = sessions.create_store(config)
    try:
        with interrupts.raising():
            session = _build(config, store, report, start)
    except BaseException:
        store.close("failed", error="stopped while it was being set up")
        _remove(store.path, keep_folder=before)
        raise
    return _run(session, None, start)


def _build(config: RunConfig, store: RunStore, report: Report, start: starting.Start | None) -> Session:
    session = sessions.build(config, store, report)
    if start is not None:
        starting.check(session, start)
    return session


def _remove(run: Path, *, keep_folder: bool) -> None:
    """Take a run back that never began; a folder that was there before keeps what it held."""
    for name in RUN_FILES:
        (run / name).unlink(missing_ok=True)
    for name in (*STREAMS, "checkpoints"):
        shutil.rmtree(run / name, ignore_errors=True)
    if not keep_folder:
        shutil.rmtree(run, ignore_errors=True)


def resume(path: Path, *, report: Report = silent) -> Path:
    """Go on from the last complete iteration; what was recorded after it is set aside and repeated."""
    store = RunStore.open(path, write=True)
    try:
        with interrupts.raising():
            config = RunConfig.from_mapping(store.info.config, source=f"{path}/run.json").with_(out=str(path), trust_remote_code=False)
            checkpoint = checkpoints.last(store.path / "checkpoints")
            if checkpoint is not None and checkpoint.iteration >= config.iterations:
                return _end(store, config)
            start = starting.find(config) if checkpoint is None else None
            session = _build(config, store, report, start)
    except BaseException as error:
        state = store.status().state
        store.close(state if state in ("finished", "interrupted") else "failed", error=None if state == "finished" else str(error) or None)
        raise
    return _run(session, checkpoint, start)


def _end(store: RunStore, config: RunConfig) -> Path:
    """All iterations are complete: only a run that was killed before it wrote its end state has something left to do."""
    if store.status().state == "finished":
        raise ConfigError(f"--resume is {str(store.path)!r}, which has finished all {config.iterations} iterations; start a new run")
    store.set_status(state="running")
    _tidy(store, config)
    store.close("finished")
    return store.path


def _run(session: Session, checkpoint: checkpoints.Loaded | None, start: starting.Start | None = None) -> Path:
    """The whole loop inside the promises about signals and end states."""
    store = session.store
    try:
        with interrupts.raising(), pulse.beating(store.path):
            store.set_status(state="running")
            pairs, done = _start(session, checkpoint, start)
            for iteration in range(done + 1, session.config.iterations + 1):
                pairs = _iterate(session, iteration, pairs)
            _tidy(store, session.config)
            session.say("finished")
            store.close("finished")
    except KeyboardInterrupt as interrupt:
        store.close("interrupted")
        interrupt.add_note(f"go on with: interplay train --resume {shlex.quote(str(store.path))}")
        raise
    except BaseException as error:
        store.close("failed", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise
    return store.path


def _tidy(store: RunStore, config: RunConfig) -> None:
    if config.keep_checkpoints == "last":
        with interrupts.shield():
            checkpoints.keep_frozen(store.checkpoint_path(), config.iterations)
            checkpoints.prune(store.checkpoint_path(), [config.iterations])


# --- iterations ------------------------------------------------------------------------------------


def _start(session: Session, checkpoint: checkpoints.Loaded | None, start: starting.Start | None) -> tuple[Sequence[Pair], int]:
    """Iteration 0, or the end of the iteration that a resumed run goes on from. `start` is another run's end."""
    if checkpoint is None:
        session.store.rewind(-1)  # the first pairs and scores may stand at clock 0
        if start is not None:
            starting.apply(session, start)
        sessions.attach(session)
        return _iteration_zero(session, start), 0
    session.store.rewind(int(checkpoint.state["recorder"]["clock"]))
    starts = sessions.restore(session, checkpoint)
    sessions.attach(session, starts)
    session.reward_start = starts.get("reward")
    if not session.data.heldout_pairs:
        pairing.judge_heldout(session, start=starts["policy"])
    return checkpoint.pairs, checkpoint.iteration


def _iteration_zero(session: Session, start: starting.Start | None) -> Sequence[Pair]:
    """First pairs, reward model 0 and its frozen copy, and the scores before training; what another run's end brings is not made again."""
    session.recorder.begin_iteration(0)
    if not session.data.heldout_pairs:
        pairing.judge_heldout(session)
    if start is not None:
        _score(session)
        _save(session, 0, start.checkpoint.pairs)
        return start.checkpoint.pairs
    pairs = session.data.pairs or pairing.make(session, 0)
    if session.models.reward is not None:
        _refine(session, pairs, 0)
        session.evaluator.frozen = session.unmerged
    _score(session)
    _save(session, 0, pairs)
    return pairs


def _iterate(session: Session, iteration: int, pairs: Sequence[Pair]) -> Sequence[Pair]:
    """One round. `pairs` are the judged pairs that offline objectives learn from."""
    session.recorder.begin_iteration(iteration)
    start = reward_model.weights(session.models.policy) if session.keeps_guides else {}
    _train_policy(session, iteration, pairs)
    moved = starting.difference(reward_model.weights(session.models.policy), start) if session.keeps_guides else {}
    for role in ("policy", "value"):
        session.recorder.end_iteration(role)
    fresh = pairing.make(session, iteration)
    reward_moved: reward_model.Weights = {}
    if session.models.reward is not None and not session.config.freeze_reward:
        before = session.unmerged
        _refine(session, fresh, iteration)
        if before is not None:
            reward_model.keep_close(session.models.reward, before, session.config.keep_close)
            reward_moved = starting.difference(session.unmerged or {}, before)
    session.guides = Guides(moved, starting.named_as(reward_moved, moved)) if session.keeps_guides else None
    _score(session)
    _save(session, iteration, fresh)
    return fresh


def _save(session: Session, iteration: int, pairs: Sequence[Pair]) -> None:
    """Rows first, then the checkpoint that counts on them. The first holds the frozen reward model and the last the result: a run needs both."""
    session.say("saving")
    between = 0 < iteration < session.config.iterations
    with session.forgiving() if between else nullcontext(), interrupts.shield():
        session.store.flush()
        root = session.store.checkpoint_path()
        checkpoints.save(
            root,
            iteration,
            session.models,
            reward_unmerged=session.unmerged,
            optimizers=session.optimizers,
            pairs=pairs,
            state=sessions.state(session),
            guides=session.guides,
            frozen=session.evaluator.frozen if session.config.start_from and iteration == 0 else None,
        )
        if session.config.keep_checkpoints == "last":
            checkpoints.prune(root, {0, iteration})


# --- policy ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experience:
    """What one rollout batch gave: what the objective learns from, and what is shown of it."""

    sequences: Sequences
    batch: Batch
    shown: Metrics


def _train_policy(session: Session, iteration: int, pairs: Sequence[Pair]) -> None:
    """`updates` optimiser steps on as many rollout batches as they need."""
    config, done = session.config, 0
    session.policy.guide(session.guides)
    for number in range(config.batches):
        session.say(f"iteration {iteration}: rollouts")
        experience = gather(session, (iteration - 1) * config.batches + number, pairs)
        targets = session.method.objective.targets(experience.batch, session.method.objective_settings)
        for index in minibatches(session, experience.batch, number):
            if done == config.updates:
                break
            session.say(f"iteration {iteration}: policy update {done + 1} of {config.updates}")
            update(session, experience, targets, index)
            done += 1
    sessions.doubt_slopes(session)


def gather(session: Session, number: int, pairs: Sequence[Pair]) -> Experience:
    """Fresh completions, and for offline objectives judged pairs beside them."""
    if session.method.objective.data == "rollouts":
        place = (session.offset[0] + number) * session.config.prompts
        prompts = session.draw(session.data.prompts, place, session.config.prompts)
        sequences, batch, shown = _rollouts(session, prompts, session.config.completions, number)
        return Experience(sequences, batch, shown)
    if not pairs:
        raise DataError("no judged pair is left for the policy (all were ties); raise --pairs or --max-new-tokens, or use another --judge")
    count = max(session.config.batch // 2, 1)
    chosen = session.draw(pairs, (session.offset[0] + number) * count, count)
    _, _, shown = _rollouts(session, [pair.prompt for pair in chosen], 1, number)
    sequences = rollouts.written_pairs(session.models, chosen, session.config)
    better_B = torch.tensor([1.0, 0.0], device=session.models.device).repeat(count)
    with torch.no_grad():
        old_BT, _ = rollouts.token_logprobs(session.models.policy, sequences, session.config.temperature)
    return Experience(sequences, _batch(session, sequences, better_B, old_BT), shown)


def _rollouts(session: Session, prompts: Sequence[Prompt], completions: int, number: int) -> tuple[Sequences, Batch, Metrics]:
    """Sample, score, and write the completions down beside the update that they lead to."""
    models, config = session.models, session.config
    # In low precision the log-probabilities before the update come from the pass that the update repeats, so that ratios begin at one.
    sequences, old_BT, entropy_BT = rollouts.sample_scored(
        models, prompts, config, completions=completions, seed=session.seed("rollout", number), score=rollouts.token_logprobs
    )
    gold_B = [session.task.gold(prompt, text) for prompt, text in zip(sequences.prompts, sequences.texts, strict=True)]
    scores_B = torch.tensor(gold_B) if models.reward is None else rollouts.scores(models.reward, sequences)
    scores_B = scores_B.to(models.device)
    batch = _batch(session, sequences, scores_B, old_BT)
    kl_B = ((batch.old_BT - batch.reference_BT) * sequences.mask_BT).sum(-1)
    session.tokens += sequences.tokens
    shown = {
        "reward": float(scores_B.mean()),
        "reward_std": float(scores_B.std(correction=0)),
        "gold": fmean(gold_B),
        "kl": float(kl_B.mean()),
        "entropy": float(entropy_BT[sequences.mask_BT].mean()),
        "completions/mean_length": float(sequences.lengths_B.float().mean()),
        "completions/clipped_ratio": 1 - float(sequences.finished_B.float().mean()),
    }
    _write_completions(session, sequences, scores_B, gold_B, kl_B)
    return sequences, batch, shown


def _write_completions(session: Session, sequences: Sequences, scores_B: Tensor, gold_B: list[float], kl_B: Tensor) -> None:
    """Completions are filed under the update that follows them."""
    place = session.now("policy")
    following = {"clock": int(place["clock"]) + 1, "update": int(place["update"]) + 1}
    score = evaluation.Score({}, sequences, gold_B, None, kl_B.tolist())
    rows = evaluation.rows(score, {**place, **following})
    session.write("completions", {**rows, "split": ["train"] * len(gold_B), "reward": scores_B.tolist()})


def _batch(session: Session, sequences: Sequences, scores_B: Tensor, old_BT: Tensor) -> Batch:
    """What the objective may know before the update."""
    models = session.models
    return Batch(
        mask_BT=sequences.mask_BT,
        group_B=sequences.group_B,
        scores_B=scores_B,
        reference_BT=rollouts.reference_logprobs(models, sequences, session.config.temperature),
        old_BT=old_BT,
        values_BT=None if models.critic is None else rollouts.values(models.critic, sequences),
    )


def minibatches(session: Session, batch: Batch, number: int) -> Iterator[Tensor]:
    """Row indices of each update on a batch; the rows of a prompt stay together."""
    config = session.config
    groups = torch.unique(batch.group_B)
    for epoch in range(config.inner_epochs):
        order = torch.from_numpy(_permutation(session, len(groups), number, epoch))
        for part in order.chunk(config.minibatches):
            yield torch.nonzero(torch.isin(batch.group_B, groups[part.to(groups.device)])).flatten()


def _permutation(session: Session, count: int, number: int, epoch: int) -> Any:
    import numpy as np

    if session.config.minibatches == 1:
        return np.arange(count)
    return np.random.default_rng(session.seed("minibatch", number, epoch)).permutation(count)


def update(session: Session, experience: Experience, targets: Targets, index: Tensor) -> None:
    """One policy update, one critic update where there is a critic, and what is known of both."""
    method = session.method
    whole = PolicyLoss(
        session.models.policy, experience.sequences, experience.batch, targets, method.objective, method.objective_settings, session.config.temperature
    )
    loss = whole.rows(index)
    metrics = numbers(session.policy.step(loss))
    session.forwards += metrics.pop("forwards", 1.0)
    session.done += 1
    if "zo/signal_to_noise" in metrics:
        session.slopes.append(metrics["zo/signal_to_noise"])
    session.latest = {name: experience.shown[name] for name in ("reward", "kl")}
    totals = {"tokens": float(session.tokens), "seconds": session.seconds, "forwards": session.forwards, "peak_memory": peak_memory(session.models.device)}
    session.log("policy", {**experience.shown, **metrics, **totals})
    if session.critic is not None and method.objective.critic_loss is not None:
        _update_critic(session, loss.sequences, loss.batch, loss.targets)


def _update_critic(session: Session, sequences: Sequences, batch: Batch, targets: Targets) -> None:
    objective, settings = session.method.objective, session.method.objective_settings
    assert session.critic is not None

    def critic_loss() -> tuple[Tensor, Metrics]:
        assert objective.critic_loss is not None
        return objective.critic_loss(rollouts.values(session.models.critic, sequences, gradient=True), batch, targets, settings)

    metrics = numbers(session.critic.step(critic_loss))
    session.log("value", {name: value for name, value in metrics.items() if name != "forwards"})  # these are the policy's


# --- reward model ------------------------------------------------------------------------


def _refine(session: Session, pairs: Sequence[Pair], iteration: int) -> None:
    """Train the reward model on judged pairs and keep its un-merged weights."""
    session.say(f"iteration {iteration}: reward model")
    if session.config.reward_labels == "shuffled":
        pairs = pairing.by_coin(pairs, session.seed("labels", iteration))
    recorder, models = session.recorder, session.models
    attached: list[Any] = []

    def attach(optimizer: torch.optim.Optimizer) -> None:
        attached.append(recorder.attach(optimizer, models.reward, "reward", start=session.reward_start))

    def log(metrics: Mapping[str, float]) -> None:
        session.done += 1
        session.log("reward", metrics)
        session.say(f"iteration {iteration}: reward model")

    try:
        reward_model.refine(models, pairs, session.config, seed=session.seed("refine", iteration), attach=attach, log=log)
    finally:
        for item in attached:
            item.detach()
    recorder.end_iteration("reward")
    session.unmerged = reward_model.weights(models.reward)


# --- scores ----------------------------------------------------------------------------------------


def _score(session: Session) -> None:
    """Held-out scores of the policy as it is now."""
    session.say("scoring held-out prompts")
    score = session.evaluator.score(session.models)
    place = session.now("policy")
    session.log("policy", score.metrics, split="heldout", place=place)
    session.write("completions", evaluation.rows(score, place))
    with session.forgiving():
        session.store.flush()
