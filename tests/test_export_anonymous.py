"""Figures of nobody: no name, place, token or address of who made them is left in any format, and what still tells is refused."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_paper import curve, unpacked

from app.commands import figure
from app.export import anonymous, export, inside
from app.export.export import Size
from app.reading.recorded import Recorded
from interplay.errors import ConfigError
from tests.exporting import command, edit, inside_of, redrawn, root
from tests.fabricate import Fabricated

__all__ = ["root"]  # the fixture

#: Put together here, so that no file of the project holds the path of a machine.
HOMES = "/" + "home/"
SECRETS = ("alice", "smith", "gpu17", "hf_" + "a" * 30, HOMES, "/scratch/team7", "lab.example", "alicelab", "s3cr3t-value", "5c9e102fddc615fb")


@pytest.fixture
def personal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """Two runs that tell much about who made them, in a checkout that does so too."""
    monkeypatch.setattr("getpass.getuser", lambda: "alice")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu17.lab.example")
    monkeypatch.setenv("SOME_TOKEN", "s3cr3t-value")
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    (work / ".git" / "config").write_text(
        '[remote "origin"]\n\turl = git@github.com:alicelab/secret.git\n[user]\n\tname = Alice Smith\n\temail = al@lab.example\n'
    )
    monkeypatch.chdir(work)
    found = []
    for number, name in enumerate(("alice-ppo", "Smith_gpu17 s3cr3t-value")):
        made = Fabricated(work / name, layers=1, k=8, updates_each=3, seed=number).whole()
        config = json.loads((made / "run.json").read_text())["config"] | {"out": "/scratch/team7/runs", "model": f"{HOMES}alice/models/x"}
        told = {"notes": [f"token {SECRETS[3]}"], "machine": {"host": "gpu17.lab.example"}, "command": [f"{HOMES}alice/bin/interplay", "train"]}
        edit(made / "run.json", config=config, commit="5c9e102fddc615fb49a16803d3c25d09c141aa28", **told)
        found.append(Recorded(made))
    return found


def readable(name: str, content: bytes) -> str:
    """All texts, by a way of its own: PDF through pieces, UTF-16 by leaving out its zeros."""
    raw = unpacked(content) if name.endswith(".pdf") else content
    if name.endswith(".html"):
        from plotly.offline import get_plotlyjs

        raw = raw.replace(get_plotlyjs().encode(), b"")
    joined = re.sub(rb"\) ?-?[\d.]+ ?\(", b"", raw)
    return (name + raw.decode("latin-1") + joined.decode("latin-1") + raw.replace(b"\0", b"").decode("latin-1")).lower()


def tells(files: dict[str, bytes]) -> dict[str, list[str]]:
    texts = {name: readable(name, content) for name, content in files.items()}
    return {secret: [name for name, text in texts.items() if secret in text] for secret in SECRETS}


def test_an_anonymous_zip_tells_nothing_and_proves_it(personal: list[Recorded]) -> None:
    spec = export.panel("trajectories", personal, {"roles": ("policy",)})
    told = replace(spec.spec, caption=f"Read from /scratch/team7/runs/x with {SECRETS[3]} by al@lab.example, see https://github.com/alicelab/secret.")
    both = [replace(spec, spec=told), export.panel("kl_curve", personal[:1], {})]
    open_files = inside_of(export.made(both, "zip", Size("icml")))
    assert all(tells(open_files)[secret] for secret in ("alice", "smith", "gpu17", "/scratch/team7", "s3cr3t-value", "5c9e102fddc615fb"))
    files = inside_of(export.made(both, "zip", Size("icml"), personal))
    assert {secret: names for secret, names in tells(files).items() if names} == {}
    report = files["figures/anonymity.txt"].decode()
    assert re.findall(r": (\d+) files; (\d+) known", report)
    assert {count for count, _ in re.findall(r": (\d+) files; (\d+) known", report)} == {"0"}
    for kind in ("access tokens", "addresses of repositories", "e-mail addresses", "paths of machines", "host names", "user names"):
        assert re.search(rf"  {kind}: 0 files; [1-9]\d* known", report), report
    series = set(pd.read_csv(io.BytesIO(files["figures/trajectories.csv"]))["series"])
    assert len(series) == 2, "two runs stay two"
    assert json.loads(files["figures/manifest.json"])["anonymous"] is True
    for kind in ("pdf", "svg", "png", "html", "tex", "json"):
        assert "spec sha256" in inside.about(f"a.{kind}", files[f"figures/trajectories.{kind}"])


def test_an_anonymous_zip_draws_itself_again(personal: list[Recorded], tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(export.made([export.panel("trajectories", personal, {})], "zip", Size(), personal))) as archive:
        archive.extractall(tmp_path / "out")
    done = redrawn(tmp_path / "out" / "figures")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [*figure.FORMATS, "zip"])
def test_each_format_can_be_anonymous(personal: list[Recorded], tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"a.{kind}"
    assert command("kl-curve", personal[0].path, "--anonymous", "--out", out) == 0
    files = inside_of(out.read_bytes()) if kind == "zip" else {out.name: out.read_bytes()}
    assert {secret: names for secret, names in tells(files).items() if names} == {}


def test_what_still_tells_is_refused(personal: list[Recorded]) -> None:
    clues = anonymous.clues(personal)
    for content in (
        b"by Alice.",
        b"at gpu17",
        f"in {HOMES}bob/x".encode(),
        b"C:\\\\Users\\\\bob",
        b"mail to x@y.org",
        b"key " + SECRETS[3].encode(),
        b"https://github.com/a/b",
    ):
        with pytest.raises(ConfigError, match=r"--anonymous: a\.txt still holds one of the"):
            export.proof({"b.txt": b"fine", "a.txt": content}, clues)
    assert "0 files" in export.proof({"a.txt": b"malice in gpu170, an alicelike word, and 5 @ 3"}, clues)
    with pytest.raises(ConfigError, match="still holds one of the user names"):
        export.proof({"alice.txt": b""}, clues)


def test_a_name_of_nobody_hides_no_word(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    run = Recorded(root / "first")
    one = export.panel("kl_curve", [run], {})
    assert anonymous.Hiding(anonymous.clues([run])).text(one.spec.caption) == one.spec.caption


def test_texts_inside_are_found_in_every_format() -> None:
    spec = curve(series="Zoë", runs=("Zoë",), alt="by Zoë")
    spec = replace(spec, data=pd.concat([spec.data, spec.data.assign(series="other")]))
    for kind in figure.FORMATS:
        assert "Zoë" in inside.text_of(f"a.{kind}", figure.content(spec, kind)), kind
