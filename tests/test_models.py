"""Policy, reward model and critic from one base: what is shared, what is refused, what is adapted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from interplay import models, rollouts
from interplay.config import RunConfig
from interplay.errors import ConfigError, ModelError
from interplay.models import Models
from interplay.tasks import Prompt

CONFIG = RunConfig(max_prompt_tokens=64, max_pair_tokens=12, dtype="float32", device="cpu", lora_rank=4, lora_alpha=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny")


def load(folder: Path | str, **changes: Any) -> Models:
    return models.load(CONFIG.with_(model=str(folder), **changes), critic=True, reward=True)


def factors(model: Any, side: str) -> dict[str, torch.Tensor]:
    """Module path from the numbered blocks on -> factor A or B."""
    found = {name: p for name, p in model.named_parameters() if f"lora_{side}" in name}
    return {models._bare(name): p for name, p in found.items()}


def adapted(model: Any) -> set[str]:
    return {name.split(".lora_A")[0].split("layers.")[-1] for name, _ in model.named_parameters() if "lora_A" in name}


# --- what is shared --------------------------------------------------------------------------------


def roles(found: Models) -> Iterator[Any]:
    return (model for _, model in found.trained())


def check_one_base(found: Models) -> None:
    """Frozen weights of all roles lie at the same place in memory, and none of them is trained."""
    places = [
        {models._bare(n.replace(".base_layer", "")): p for n, p in model.named_parameters() if ".layers." in n and "lora_" not in n} for model in roles(found)
    ]
    assert len(places) == 3
    assert len(places[0]) > 10
    for name, p in places[0].items():
        assert places[1][name].data_ptr() == places[2][name].data_ptr() == p.data_ptr(), name
        assert not any(place[name].requires_grad for place in places)


def check_start(found: Models, init: str) -> None:
    """B is zero everywhere; A is the same for all roles, or another draw for each."""
    policy, reward, critic = (factors(model, "A") for model in roles(found))
    assert policy.keys() == reward.keys() == critic.keys()
    for name, A in policy.items():
        assert A.dtype == torch.float32
        assert A.abs().max() > 0
        for other in (reward[name], critic[name]):
            assert torch.equal(A, other) == (init == "shared")
            assert A.data_ptr() != other.data_ptr()
    assert not torch.equal(*(A.flatten()[:64] for A in list(policy.values())[:2]))
    for model in roles(found):
        assert all(torch.equal(B, torch.zeros_like(B)) for B in factors(model, "B").values())


def check_head(model: Any, *, quiet: bool = False) -> None:
    """One label, trained and computed in float32 whatever the base computes in; a quiet one says 0 until it has learnt."""
    (head,) = [m for name, m in model.named_modules() if name.endswith("modules_to_save.default")]
    assert head.weight.dtype == torch.float32
    assert head.weight.requires_grad
    assert head.weight.shape[0] == 1
    assert float(head.weight.detach().std()) == (0 if quiet else pytest.approx(head.weight.shape[1] ** -0.5, rel=0.5))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert logits.dtype == torch.float32
    assert (float(logits.abs().max()) == 0) == quiet


@pytest.mark.parametrize("init", ["shared", "independent"])
def test_roles_share_the_base_and_start_at_it(folder: Path, init: str) -> None:
    found = load(folder, adapter_init=init)
    check_one_base(found)
    check_start(found, init)
    check_head(found.reward)
    check_head(found.critic, quiet=True)
    assert [role for role, _ in found.trained()] == ["policy", "reward", "value"]
    assert not any(model.training for model in roles(found))


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
def test_the_untrained_policy_is_the_base(tmp_path: Path, make: Any) -> None:
    found = load(tiny.save(tmp_path / "m", make()))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        torch.testing.assert_close(found.policy(input_ids=ids).logits, make()(input_ids=ids).logits)


def test_one_seed_gives_one_start_and_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, again, other = load(folder), load(folder), load(folder, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b, c in zip(roles(first), roles(again), roles(other), strict=True):
        ours, same, different = (dict(m.named_parameters()) for m in (a, b, c))
        assert all(torch.equal(ours[name], same[name]) for name in ours)
        assert not all(torch.equal(ours[name], different[name]) for name in ours)


def test_only_what_is_needed_is_built(folder: Path) -> None:
    found = models.load(CONFIG.with_(model=str(folder)), critic=False, reward=False)
    assert (found.reward, found.critic, found.reference) == (None, None, None)
    assert [role for role, _ in found.trained()] == ["policy"]


def test_bfloat16_base_with_adapters_and_heads_in_float32(folder: Path) -> None:
    found = load(folder, dtype="bfloat16")
    check_one_base(found)
    check_head(found.reward)
    for model in roles(found):
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in model.parameters() if not p.requires_grad and p.dim() > 1} >= {torch.bfloat16}


def test_full_tuning_trains_everything_and_keeps_a_reference(folder: Path) -> None:
    found = load(folder, tune="full")
    assert found.reference is not None
    assert not any(p.requires_grad for p in found.reference.parameters())
    places = [{p.data_ptr() for p in model.parameters()} for model in (*roles(found), found.reference)]
    assert len(set.union(*places)) == sum(map(len, places))  # nobody shares memory with anybody
    for model in roles(found):
        assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    sequences = rollouts.written(found, [(Prompt("p", "p", ({"role": "user", "content": "p"},)), "yes", True)], CONFIG)
    before = rollouts.reference_logprobs(found, sequences, 1.0)
    with torch.no_grad():
        for p in found.policy.parameters():
            p.add_(0.1)
    assert torch.equal(rollouts.reference_logprobs(found, sequences, 1.0), before)
    assert not torch.allclose(rollouts.token_logprobs(found.policy, sequences, 1.0)[0], before)


def test_full_tuning_is_float32_unless_asked() -> None:
    assert models.pick_dtype(RunConfig(tune="full"), torch.device("cpu")) == torch.float32
    assert models.pick_dtype(RunConfig(tune="full", dtype="bfloat16"), torch.device("cpu")) == torch.bfloat16


# --- what is adapted -------------------------------------------------------------------------------

ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("changes", "blocks", "kinds"),
    [
        ({}, {"0", "1"}, ALL),
        ({"layers": "1"}, {"1"}, ALL),
        ({"layers": "0-40"}, {"0", "1"}, ALL),
        ({"lora_targets": "q_proj, down_proj"}, {"0", "1"}, {"q_proj", "down_proj"}),
        ({"lora_targets": "v_proj", "layers": "0"}, {"0"}, {"v_proj"}),
    ],
)
def test_filters_choose_blocks_and_modules_for_all_roles(folder: Path, changes: dict[str, str], blocks: set[str], kinds: set[str]) -> None:
    for model in roles(load(folder, **changes)):
        names = adapted(model)
        assert {name.split(".")[0] for name in names} == blocks
        assert {name.split(".")[-1] for name in names} == kinds
        assert len(names) == len(blocks) * len(kinds)


def test_rank_and_scale(folder: Path) -> None:
    found = load(folder, lora_rank=3, lora_alpha=12)
    assert {A.shape[0] for A in factors(found.policy, "A").values()} == {3}
    module = next(m for m in found.policy.modules() if isinstance(getattr(m, "scaling", None), dict) and m.scaling)
    assert module.scaling["default"] == 4


def test_filters_that_match_nothing(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--layers is '5,9', which matches no block; this model has blocks 0-1"):
        load(folder, layers="5,9")
    with pytest.raises(ConfigError, match=r"--lora-targets names 'qproj', which this model has not; allowed: all-linear, .*did you mean 'q_proj'"):
        load(folder, lora_targets="qproj")


# --- where a base comes from -----------------------------------------------------------------------


def test_an_adapter_folder_is_merged_into_its_base(folder: Path, tmp_path: Path) -> None:
    made = get_peft_model(tiny.llama(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    for name, p in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    made.peft_config["default"].base_model_name_or_path = str(folder)
    made.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        expected = made(input_ids=ids).logits
        plain = tiny.llama()(input_ids=ids).logits
    source = models.locate(str(tmp_path / "adapter"))
    assert (source.folder, source.adapter) == (str(folder), str(tmp_path / "adapter"))
    assert set(models.fingerprint(source)["sha256"]) == {"model.safetensors", "adapter_model.safetensors"}
    found = load(tmp_path / "adapter")
    check_start(found, "shared")
    with torch.no_grad():
        torch.testing.assert_close(found.policy(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, plain, atol=1e-2)
    check_one_base(found)


def test_pickles_are_refused_and_not_opened(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    at = shutil.copytree(folder, tmp_path / "pickled")
    (at / "model.safetensors").rename(at / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds only pytorch_model\.bin, a pickle file that could run code; convert it"):
        load(at)


def test_a_hub_id_without_a_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"--model is 'nobody/no-such-model', which cannot be read: .*; give a model folder, a hub id or `bundled`") as caught:
        load("nobody/no-such-model")
    assert "\n" not in str(caught.value)


CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = "odd"
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


@pytest.fixture
def odd(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model folder that brings code, and the file that the code makes when it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    at, mark = shutil.copytree(folder, tmp_path / "odd"), tmp_path / "ran"
    (at / "odd.py").write_text(CODE.format(mark=str(mark)))
    config = json.loads((at / "config.json").read_text())
    auto = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (at / "config.json").write_text(json.dumps({**config, "model_type": "odd", "architectures": ["OddModel"], "auto_map": auto}))
    return at, mark


def test_code_of_a_model_runs_only_when_asked_for(odd: tuple[Path, Path]) -> None:
    at, mark = odd
    with pytest.raises(ModelError, match="contains custom code") as caught:
        models.load(CONFIG.with_(model=str(at)), critic=False, reward=False)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    found = models.load(CONFIG.with_(model=str(at), trust_remote_code=True), critic=False, reward=False)
    assert mark.exists()
    assert "OddModel" in str(type(found.policy.base_model.model))


def test_the_refusal_of_code_names_the_flag(odd: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="--trust-remote-code"):
        models.load(CONFIG.with_(model=str(odd[0])), critic=False, reward=False)


def test_a_tokenizer_without_an_end_token_is_refused(folder: Path, tmp_path: Path) -> None:
    at = shutil.copytree(folder, tmp_path / "endless")
    words = tiny.tokenizer()
    words.eos_token = None
    words.save_pretrained(at)
    with pytest.raises(ModelError, match="whose tokenizer has no end token; set eos_token"):
        load(at)


def test_a_model_without_chat_template_gets_a_plain_one(folder: Path, tmp_path: Path) -> None:
    at = shutil.copytree(folder, tmp_path / "base")
    (at / "chat_template.jinja").unlink()
    words = load(at).tokenizer
    assert words.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True) == "user:\nhi\nassistant:\n"


def test_a_killed_conversion_leaves_nothing_half_made(tmp_path: Path) -> None:
    def dies(at: Path) -> None:
        (at / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models._write_aside(tmp_path / "cache" / "m", dies)
    assert not list((tmp_path / "cache").iterdir())
    models._write_aside(tmp_path / "cache" / "m", lambda at: (at / "model.safetensors").write_text("x"))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["m"]


# --- the bundled model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Models:
    return load("bundled", dtype="bfloat16", layers="0-1")


@pytest.mark.model
def test_the_bundled_model_shares_its_base_and_starts_at_it(bundled: Models) -> None:
    check_one_base(bundled)
    check_start(bundled, "shared")
    check_head(bundled.reward)
    check_head(bundled.critic, quiet=True)


@pytest.mark.model
def test_the_bundled_tokenizer_pads_with_what_no_turn_ends_with(bundled: Models) -> None:
    words = bundled.tokenizer
    assert (words.pad_token, words.eos_token, words.padding_side) == ("<|endoftext|>", "<|im_end|>", "left")
    assert {model.config.pad_token_id for model in roles(bundled)} == {words.pad_token_id}
    ids = rollouts.encode(words, Prompt("p", "p", ({"role": "user", "content": "Hello"},)))
    assert words.eos_token_id in ids
    assert words.pad_token_id not in ids


@pytest.mark.model
def test_the_bundled_model_is_the_one_of_the_wheel_and_speaks(bundled: Models) -> None:
    assert "Q4_1" in str(bundled.source.note)
    assert models.fingerprint(bundled.source)["name"] == models.BUNDLED
    found = rollouts.sample(
        bundled, [Prompt("p", "p", ({"role": "user", "content": "What is the capital of France?"},))], CONFIG.with_(temperature=0.01), completions=1, seed=0
    )
    assert "Paris" in found.texts[0]
