"""Everything one run holds while it trains, built once: models, data, judge, recorder, store.

The loop reads as steps because this file does the gathering. It decides nothing about objectives.
"""

from __future__ import annotations

import platform
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from interplay import __version__, checkpoints, data, judges, methods, models, reward_model, rollouts, tasks, updates
from interplay.config import RunConfig
from interplay.directions import Guides
from interplay.errors import DataError, StoreError
from interplay.evaluation import Baseline, Evaluator
from interplay.methods import Method
from interplay.models import Models
from interplay.recorder import Attachment, UpdateRecorder
from interplay.records import RunInfo, SketchSpec, Stream
from interplay.reward_model import Weights
from interplay.store import RunStore
from interplay.tasks import Task, TaskData
from interplay.updates import Plan, Stepper
from interplay.updates.first_order import FirstOrder

T = TypeVar("T")
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow", "numpy")


class Report(Protocol):
    """Whoever shows progress: a bar on the terminal, or nobody."""

    def __call__(self, doing: str, share: float, metrics: Mapping[str, float]) -> None: ...


def silent(doing: str, share: float, metrics: Mapping[str, float]) -> None:
    """Nobody watches."""


@dataclass
class Session:
    """A run at work."""

    config: RunConfig
    method: Method
    task: Task
    data: TaskData
    models: Models
    store: RunStore
    recorder: UpdateRecorder
    judge: judges.Judge
    evaluator: Evaluator
    policy: Stepper
    critic: Stepper | None
    report: Report
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0  # seconds of earlier attempts
    tokens: int = 0  # completion tokens generated for training
    done: int = 0  # updates of all roles
    reward_start: Weights | None = None  # reward model at the start of a resumed run
    unmerged: Weights | None = None  # reward model as the last refinement left it
    guides: Guides | None = None  # what the last iteration did to policy and reward model
    forwards: float = 0.0  # passes of a batch through the policy for updates
    offset: tuple[int, int] = (0, 0)  # rollout batches and rounds of pairs that the run it started from has used
    warned: bool = False
    slopes: list[float] = field(default_factory=list)  # signal-to-noise ratios of this iteration's slopes
    latest: dict[str, float] = field(default_factory=dict)

    # --- time, seeds, order ----------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def seed(self, purpose: str, *numbers: int) -> int:
        """A seed of its own for every use, so that streams never share draws and a resume repeats them."""
        stream = "data" if purpose == "order" else "sampling"
        key = [self.config.stream_seed(stream), *purpose.encode(), *numbers]
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    def draw(self, items: Sequence[T], start: int, count: int) -> list[T]:
        """Entries start ... start + count of an endless sequence of seeded permutations."""
        found: list[T] = []
        while len(found) < count:
            epoch, place = divmod(start + len(found), len(items))
            order = np.random.default_rng(self.seed("order", epoch)).permutation(len(items))
            found += [items[i] for i in order[place : place + count - len(found)]]
        return found

    # --- writing ---------------------------------------------------------------------------------

    def now(self, role: str) -> dict[str, int | str]:
        """Where the run stands between updates: this iteration, after all updates so far."""
        return {**self.recorder.place(role), "clock": self.recorder.clock, "iteration": self.recorder.iteration}

    def log(self, role: str, values: Mapping[str, float | None], split: str = "train", place: Mapping[str, int | str] | None = None) -> None:
        """Write metrics at the latest update of a role, or at `place`; what is not finite is null."""
        place, count = place or self.recorder.place(role), len(values)
        finite = [float(v) if v is not None and np.isfinite(v) else None for v in values.values()]
        rows = {"split": [split] * count, "name": list(values), "value": finite, "seconds": [self.seconds] * count}
        self.write("metrics", {**{name: [value] * count for name, value in place.items()}, **rows})

    def write(self, stream: Stream, columns: Mapping[str, Any]) -> None:
        """Hand rows to the store, which keeps them in memory while they cannot be written."""
        with self.forgiving():
            self.store.append(stream, columns)

    @contextmanager
    def forgiving(self) -> Iterator[None]:
        """A full disk is warned about once and does not stop the training."""
        try:
            yield
        except StoreError as error:
            if not self.warned:
                warnings.warn(f"{error}; training goes on, and rows are kept in memory until they can be written", stacklevel=2)
            self.warned = True

    def say(self, doing: str) -> None:
        """Tell the terminal and the dashboard what is being done."""
        total = self.planned_updates
        share = min(self.done / total, 1.0) if total else 1.0
        self.report(doing, share, {**self.latest, "seconds": self.seconds})
        place = {"doing": doing, "share": share, "done": self.done, "planned": total, **self.latest}
        with self.forgiving():
            self.store.set_status(progress=place)

    @property
    def keeps_guides(self) -> bool:
        """Whether the last updates are kept for the next iteration and for runs that start from this one: always for adapters, which are small."""
        return self.config.tune == "lora" or self.method.rule.guided

    def pair_round(self, iteration: int) -> int:
        """Number of an iteration's round of pairs, those of the run it started from counted; a run that starts from another makes none in iteration 0."""
        return self.offset[1] + iteration - (self.config.start_from is not None)

    @property
    def used(self) -> list[int]:
        """Rollout batches and rounds of pairs up to the end of this iteration, those of the run it started from included."""
        config, iteration = self.config, self.recorder.iteration
        return [self.offset[0] + iteration * config.batches, self.pair_round(iteration) + 1]

    @property
    def planned_updates(self) -> int:
        config = self.config
        phases = (not config.start_from) + (0 if config.freeze_reward else config.iterations)
        return config.iterations * config.updates + (phases * config.reward_updates if self.models.reward is not None else 0)

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Every optimiser under the name of its file in a checkpoint."""
        steppers = {"policy": self.policy, "value": self.critic}
        return {f"{role}-{name}".rstrip("-"): made for role, stepper in steppers.items() if stepper for name, made in stepper.optimizers.items()}


# --- building --------------------------------------------------------------------------------------


def folder(config: RunConfig) -> Path:
    """Where the run goes: `--out`, or a name that tells what it is and when it began."""
    name = f"{config.method.replace('+', '-')}-{config.task}-s{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path(config.out) if config.out else Path("runs") / name


def create_store(config: RunConfig) -> RunStore:
    """The run's folder with `run.json` in it. Raises `StoreError` before anything is computed."""
    path = folder(config)
    info = RunInfo(
        run=path.name,
        config=config.to_mapping(),
        command=["interplay", "train", *config.to_argv()],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sketch=SketchSpec(config.sketch, config.stream_seed("perturbation"), config.sketch_space),  # type: ignore[arg-type]
        commit=_commit(),
        versions={"interplay": __version__, "python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
    )
    return RunStore.create(path, info)


def _commit() -> str | None:
    """The commit of this checkout, if it is one."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def build(config: RunConfig, store: RunStore, report: Report) -> Session:
    """Load everything. Raises `InterplayError` for whatever a person can mend."""
    if config.threads:
        torch.set_num_threads(config.threads)
    method = methods.resolve(config)
    task = tasks.find(config.task)
    report("reading data", 0.0, {})
    found = data.load(config, task)
    report("loading models", 0.0, {})
    needs_reward = config.reward == "model"
    config = _precise(config, method)
    loaded = models.load(config, critic=method.objective.critic_loss is not None, reward=needs_reward)
    rollouts.check_context(loaded, config)
    found = _fit(found, loaded, config)
    recorder = UpdateRecorder(store, store.info.sketch)
    evaluator = Evaluator(task, found.heldout, found.heldout_pairs[: config.heldout_pairs], config)
    policy, critic = _steppers(config, method, loaded)
    store.update_info(model=_describe(loaded), data=dict(found.report), machine=_machine(loaded), notes=_notes(config, loaded))
    return Session(config, method, task, found, loaded, store, recorder, judges.find(config, task, loaded), evaluator, policy, critic, report)


def _precise(config: RunConfig, method: Method) -> RunConfig:
    """Differences of losses need float32: `--dtype auto` becomes it, and bfloat16, if typed, is warned about."""
    if not method.rule.differences or config.dtype == "float32":
        return config
    if config.dtype == "auto":
        return config.with_(dtype="float32")
    warnings.warn(
        "--dtype is bfloat16: with it slopes had the right sign in 5 of 8 directions where float32 had 8 of 8 (epsilon 1e-3); "
        "each iteration will say whether the recorded signal-to-noise ratio makes it safe here",
        stacklevel=2,
    )
    return config


def _fit(found: TaskData, loaded: Models, config: RunConfig) -> TaskData:
    """Leave out prompts that are too long, and say how many."""
    prompts, long_train = rollouts.fitting(loaded.tokenizer, found.prompts, config)
    heldout, long_heldout = rollouts.fitting(loaded.tokenizer, found.heldout, config)
    if len(heldout) < 2:
        raise DataError(
            f"--max-prompt-tokens is {config.max_prompt_tokens}, and only {len(heldout)} of {len(found.heldout)} held-out prompts is that short, "
            "but scores need at least 2; raise it, or raise --heldout"
        )
    kept = {prompt.id for prompt in (*prompts, *heldout)}
    pairs = tuple(pair for pair in found.pairs if pair.prompt.id in kept)
    heldout_pairs = tuple(pair for pair in found.heldout_pairs if pair.prompt.id in kept)
    report = {**found.report, "prompts_too_long": long_train + long_heldout, "training_prompts": len(prompts), "heldout_prompts": len(heldout)}
    return TaskData(prompts, heldout, pairs, heldout_pairs, report)


def _steppers(config: RunConfig, method: Method, loaded: Models) -> tuple[Stepper, Stepper | None]:
    rate = method.rule.rate if config.learning_rate is None else config.learning_rate
    policy = method.rule.build(_parameters(loaded.policy), _plan(config, loaded.policy, rate), method.rule_settings)
    if loaded.critic is None:
        return policy, None
    first_order = updates.find("first_order")  # a critic is trained by gradients under every update rule
    planned = _plan(config, loaded.critic, method.objective_settings.value_learning_rate)
    return policy, first_order.build(_parameters(loaded.critic), planned, first_order.settings())


def _plan(config: RunConfig, model: Any, rate: float) -> Plan:
    return Plan(rate, config.iterations * config.updates, config, model, _names(model))


def _names(model: Any) -> tuple[str, ...]:
    return tuple(name for name, _ in reward_model.trainable(model))


def _parameters(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in reward_model.trainable(model)]


def _describe(loaded: Models) -> dict[str, Any]:
    trained = {role: sum(p.numel() for p in _parameters(model)) for role, model in loaded.trained()}
    return {**models.fingerprint(loaded.source), "dtype": str(loaded.dtype).removeprefix("torch."), "trained_parameters": trained}


def _machine(loaded: Models) -> dict[str, Any]:
    device = torch.cuda.get_device_name(loaded.device) if loaded.device.type == "cuda" else platform.machine()
    return {"device": loaded.device.type, "name": device, "threads": torch.get_num_threads(), "system": platform.system()}


def _notes(config: RunConfig, loaded: Models) -> list[str]:
    start = {
        "shared": "all adapters start from the same A (B = 0)",
        "independent": "each adapter drew its own A (B = 0): equal gradients then have an effective cosine of about rank / inputs",
    }[config.adapter_init]
    return [note for note in (loaded.source.note, start if config.tune == "lora" else None) if note]


SAFE = 2.0  # a mean of twice its standard error has the right sign in 97 of 100 draws


def doubt_slopes(session: Session) -> None:
    """Under bfloat16 slopes are worth what their recorded noise says, rounding included: warn, and note it in `run.json`, where it says little."""
    ratios, session.slopes = session.slopes, []
    if session.models.dtype == torch.float32 or not ratios:
        return
    typical = float(np.median(ratios))
    verdict = "safe enough" if typical >= SAFE else "not safe"
    said = f"iteration {session.recorder.iteration}: slopes under bfloat16 are {verdict}: median signal-to-noise ratio {typical:.2f}, wanted {SAFE:g}"
    session.store.update_info(notes=[*session.store.info.notes, said])
    if typical < SAFE:
        warnings.warn(f"{said}; use --dtype float32, more --completions, or --set directions", stacklevel=2)


# --- attaching and resuming ------------------------------------------------------------------------


def attach(session: Session, starts: Mapping[str, Weights] | None = None) -> list[Attachment]:
    """Let the recorder listen to policy and critic; the reward model's optimiser comes with each refinement."""
    starts = starts or {}
    roles = (("policy", session.policy, session.models.policy), ("value", session.critic, session.models.critic))
    return [
        session.recorder.attach(optimizer, model, role, start=starts.get(role))
        for role, stepper, model in roles
        if stepper is not None
        for optimizer in stepper.optimizers.values()
    ]


def state(session: Session) -> dict[str, Any]:
    """What a resumed run must know beside weights; plain JSON."""
    base = session.evaluator.baseline
    return {
        "recorder": session.recorder.state(),
        "tokens": session.tokens,
        "seconds": session.seconds,
        "done": session.done,
        "baseline": vars(base) if base else None,
        "forwards": session.forwards,
        "used": session.used,
        "earlier": {role: rule.earlier for role, rule in first_order(session).items()},
        "offset": list(session.offset),
    }


def restore(session: Session, checkpoint: checkpoints.Loaded) -> dict[str, Weights]:
    """Put a session back to the end of an iteration. Returns the weights at the start of the run."""
    starts = start_weights(session)
    session.unmerged = checkpoints.restore(checkpoint, session.models)
    for name, optimizer in session.optimizers.items():
        checkpoints.restore_optimizer(optimizer, checkpoint.folder / f"optimizer-{name}.safetensors")
    session.guides = checkpoints.read_guides(checkpoint.folder)
    kept = checkpoint.state
    for role, rule in first_order(session).items():
        rule.earlier = kept.get("earlier", {}).get(role, 0)
    session.forwards, session.offset = kept.get("forwards", 0.0), tuple(kept.get("offset", (0, 0)))
    session.recorder.load_state(kept["recorder"])
    session.tokens, session.before, session.done = kept["tokens"], kept["seconds"], kept["done"]
    session.evaluator.baseline = Baseline(**kept["baseline"]) if kept["baseline"] else None
    if session.models.reward is not None:
        session.evaluator.frozen = checkpoints.read(session.models.reward, checkpoints.frozen_folder(session.store.checkpoint_path()))
    return starts


def first_order(session: Session) -> dict[str, FirstOrder]:
    """The first-order rules at work, by role; a guided rule has one for its first iteration."""
    steppers = {"policy": session.policy, "value": session.critic}
    inner = {role: getattr(stepper, "first", stepper) for role, stepper in steppers.items()}
    return {role: rule for role, rule in inner.items() if isinstance(rule, FirstOrder)}


def start_weights(session: Session) -> dict[str, Weights]:
    """Every role's weights at the start of the run: as loaded, or where the run it started from ended."""
    first = session.store.checkpoint_path() / "iteration-0"
    if session.config.start_from is None:
        return {role: reward_model.weights(model) for role, model in session.models.trained()}
    folders = {"reward": "reward_merged"}
    return {role: checkpoints.read(model, first / folders.get(role, role)) for role, model in session.models.trained()}
