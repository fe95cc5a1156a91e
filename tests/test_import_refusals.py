"""What cannot be imported: one line, nothing left behind, and no code of other people is run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interplay import tensor_files
from interplay.checkpoint_folders import Checkpoint
from interplay.errors import ConfigError, InterplayError, ModelError, StoreError
from tests.foreign import imported, lines, plain_walk, updates, walk, write_adapter, write_plain, write_steps


def _empty(root: Path) -> None:
    root.mkdir()


def _missing(_: Path) -> None:
    pass


def _file(root: Path) -> None:
    root.write_text("")


def _one(root: Path) -> None:
    write_steps(root, walk(1))


def _one_unnumbered(root: Path) -> None:
    write_adapter(root, walk(1)[0])


def _other_names(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", {name: pair for name, pair in walk(1)[0].items() if "down" not in name})


def _other_shape(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", {name: (A[:2], B[:, :2]) for name, (A, B) in walk(1)[0].items()})


def _other_scale(root: Path) -> None:
    write_steps(root, walk(2))
    write_adapter(root / "checkpoint-30", walk(1)[0], lora_alpha=99)


def _no_config(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-10" / "adapter_config.json").unlink()


def _config_of_words(root: Path) -> None:
    write_steps(root, walk(2), lora_alpha="much")


def _expression(root: Path) -> None:
    write_steps(root, walk(2), alpha_pattern={"(a+)+$": 3})


def _truncated(root: Path) -> None:
    write_steps(root, walk(2))
    file = root / "checkpoint-20" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _empty_file(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(b"")


def _huge_header(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}" * 100)


def _deep_header(root: Path) -> None:
    write_steps(root, walk(2))
    header = b'{"a":' * 100_000
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def _absurd_shape(root: Path) -> None:
    write_steps(root, walk(2))
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    (root / "checkpoint-20" / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)


def _no_numbers(root: Path) -> None:
    for step in (1, 2):
        write_plain(root / f"checkpoint-{step}", {"a": np.arange(3)})


def _shard_outside(root: Path) -> None:
    for step in (1, 2):
        write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (root / f"checkpoint-{step}" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


def _shard_missing(root: Path) -> None:
    for step in (1, 2):
        folder = write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "shard.safetensors", "b": "gone.safetensors"}}))


def _no_map(root: Path) -> None:
    for step in (1, 2):
        folder = write_plain(root / f"checkpoint-{step}", plain_walk(1)[0], "shard.safetensors")
        (folder / "model.safetensors.index.json").write_text("{}")


def _linked_file(root: Path) -> None:
    write_steps(root, walk(2))
    secret = write_adapter(root.parent / "elsewhere", walk(1)[0])
    (root / "checkpoint-20" / "adapter_model.safetensors").unlink()
    (root / "checkpoint-20" / "adapter_model.safetensors").symlink_to(secret / "adapter_model.safetensors")


def _linked_shard(root: Path) -> None:
    _shard_missing(root)
    for step in (1, 2):
        write_plain(root.parent / "elsewhere", plain_walk(1)[0])
        (root / f"checkpoint-{step}" / "gone.safetensors").symlink_to(root.parent / "elsewhere" / "model.safetensors")


def _linked_inside(root: Path) -> None:
    write_steps(root, walk(2), "checkpoint-{}/pl")
    (root / "checkpoint-30").mkdir()
    (root / "checkpoint-30" / "pl").symlink_to(write_adapter(root.parent / "elsewhere", walk(1)[0]))


def _linked_folder(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-30").symlink_to(write_adapter(root.parent / "elsewhere", walk(1)[0]))


def _linked_config(root: Path) -> None:
    write_steps(root, walk(2))
    (root / "checkpoint-10" / "adapter_config.json").rename(root.parent / "elsewhere.json")
    (root / "checkpoint-10" / "adapter_config.json").symlink_to(root.parent / "elsewhere.json")


BAD: list[tuple[Callable[[Path], None], type[InterplayError], str]] = [
    (_missing, ConfigError, "which does not exist"),
    (_empty, ConfigError, "no folder holds"),
    (_file, ConfigError, "a file"),
    (_one, ConfigError, "only one checkpoint of the policy was found (checkpoint-10)"),
    (_one_unnumbered, ConfigError, "no series of checkpoints was found; there is '.' (1)"),
    (_other_names, ModelError, "checkpoint-30 has no base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"),
    (_other_shape, ModelError, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight has shape (2, 16) in checkpoint-30, and (3, 16)"),
    (_other_scale, ModelError, "lora_alpha is 99 in checkpoint-30, and 7 in checkpoint-10"),
    (_no_config, ModelError, "checkpoint-10/adapter_config.json is missing"),
    (_config_of_words, ModelError, "lora_alpha is 'much'"),
    (_expression, ModelError, "alpha_pattern '(a+)+$'"),
    (_truncated, ModelError, "checkpoint-20 is damaged"),
    (_empty_file, ModelError, "checkpoint-20 is damaged"),
    (_huge_header, ModelError, f"its header would take {2**60} bytes"),
    (_deep_header, ModelError, "checkpoint-20 is damaged"),
    (_absurd_shape, ModelError, "checkpoint-20 is damaged"),
    (_no_numbers, ModelError, "no floating-point tensors"),
    (_shard_outside, ModelError, "names the shard '../../secret.safetensors'"),
    (_shard_missing, ModelError, "names the shard 'gone.safetensors', which is missing"),
    (_no_map, ModelError, "no weight_map"),
    (_linked_file, ModelError, "checkpoint-20/adapter_model.safetensors in"),
    (_linked_shard, ModelError, "names the shard 'gone.safetensors'; shards are"),
    (_linked_folder, ModelError, "checkpoint-30 in"),
    (_linked_inside, ModelError, "checkpoint-30/pl in"),
    (_linked_config, ModelError, "symbolic link"),
]


@pytest.mark.parametrize(("make", "kind", "text"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(tmp_path: Path, make: Callable[[Path], None], kind: type[InterplayError], text: str) -> None:
    make(tmp_path / "in")
    with pytest.raises(kind) as error:
        imported(tmp_path / "in", tmp_path)
    assert text in lines(error)
    assert not (tmp_path / "runs" / "run").exists()


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    for step in (1, 2):
        folder = tmp_path / "in" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(ModelError) as error:
        imported(tmp_path / "in", tmp_path)
    assert f"checkpoint-1 holds its weights in {name}, a pickle file that could run code" in lines(error)
    assert not (tmp_path / "canary").exists()


def test_other_peoples_code_and_other_files_are_never_touched(tmp_path: Path) -> None:
    """auto_map, optimiser states and links that lead nowhere near the weights stay unread."""
    for step, tensors in enumerate(plain_walk(2)):
        folder = write_plain(tmp_path / "in" / f"checkpoint-{step}", tensors, auto_map={"AutoModel": "evil.Evil"})
        (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
        (folder / "optimizer.pt").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    (tmp_path / "in" / "latest").symlink_to(tmp_path / "in" / "checkpoint-1")
    assert len(updates(imported(tmp_path / "in", tmp_path))) == 3
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("pattern", ["/etc", "../other", "a/../../b", "", "  ", "a\0b"])
def test_patterns_stay_inside_the_folder(tmp_path: Path, pattern: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    write_steps(tmp_path / "other", walk(2))
    with pytest.raises(ConfigError, match="it must be a path or pattern below") as error:
        imported(tmp_path / "in", tmp_path, patterns={"policy": pattern})
    lines(error)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("nowhere", "no series of checkpoints was found; there is 'checkpoint-{step}' (2)"),
        ("checkpoint-{n}", "only {step} may stand in braces"),
        ("*", "have the same number"),
    ],
)
def test_a_pattern_that_finds_no_series_says_what_there_is(tmp_path: Path, pattern: str, text: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    with pytest.raises(ConfigError) as error:
        imported(tmp_path / "in", tmp_path, patterns={"policy": pattern})
    assert text in lines(error)


@pytest.mark.parametrize("make", [_missing, _empty, _file], ids=["missing", "empty", "file"])
def test_a_base_that_holds_no_weights_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_steps(tmp_path / "in", walk(2))
    make(tmp_path / "base")
    with pytest.raises(ConfigError, match="--base is") as error:
        imported(tmp_path / "in", tmp_path, base=tmp_path / "base")
    lines(error)


def test_flipped_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    file = write_adapter(tmp_path / "checkpoint-1", walk(1)[0]) / "adapter_model.safetensors"
    whole, random, refused = file.read_bytes(), np.random.default_rng(0), list[str]()
    for _ in range(300):
        torn = bytearray(whole)
        for at in random.integers(0, 700, size=random.integers(1, 4)):
            torn[at] = random.integers(0, 256)
        file.write_bytes(torn)
        try:
            weights = tensor_files.open_weights(Checkpoint(file.parent, "checkpoint-1"))
            tensor_files.plans(weights)
            tensors = weights.tensors(list(weights.shapes))
            assert {key: tuple(x.shape) for key, x in tensors.items()} == weights.shapes
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert not any("\n" in text for text in refused)


HOSTILE = ["[]", "null", "{", '{"lora_alpha": 1e999}', f'{{"lora_alpha": {"9" * 400}}}', '{"lora_alpha": 1, "alpha_pattern": [1]}', "\udcff", "[" * 99_999]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_configuration_is_one_line(tmp_path: Path, text: str) -> None:
    write_steps(tmp_path / "in", walk(2))
    (tmp_path / "in" / "checkpoint-10" / "adapter_config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match="adapter_config") as error:
        imported(tmp_path / "in", tmp_path)
    lines(error)


def test_a_run_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(2))
    first = imported(tmp_path / "in", tmp_path)
    before = {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match="exists already; choose another name") as error:
        imported(tmp_path / "in", tmp_path)
    lines(error)
    assert {path: path.read_bytes() for path in first.path.rglob("*") if path.is_file()} == before


def test_an_import_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    write_steps(tmp_path / "in", walk(3))

    def stop(doing: str, share: float, metrics: Mapping[str, float]) -> None:
        if share > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(tmp_path / "in", tmp_path, report=stop)
    assert not (tmp_path / "runs" / "run").exists()
