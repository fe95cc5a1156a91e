"""Every page opens on every kind of run, says why a place is empty, and shows hostile text as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.fabricate import HOSTILE, Fabricated
from tests.pages import Show, ran


def _texts(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.warning, app.info, app.markdown) for element in kind)


def _charts(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(found["figure"]) for found in (json.loads(part.proto.json) for part in app.get("bidi_component")) if "figure" in found]


# --- an empty root -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["runs", "replay"])
def test_an_empty_root_shows_the_command_that_fills_it(root: Path, show: Show, page: str) -> None:
    app = show(page)
    assert "interplay train" in app.code[0].value
    assert str(root) in _texts(app)


# --- runs of every kind --------------------------------------------------------------------------


def test_a_finished_run(root: Path, show: Show) -> None:
    Fabricated(root / "done", layers=2, k=16, updates_each=3).whole()
    app = show("replay", run="done")
    assert len(_charts(app)) == 3 + 3 + 1
    assert "random walks" in _texts(app)
    assert "update 6, iteration 2" in _texts(app)
    assert app.dataframe[0].value.shape[0] == 3


def test_a_live_run_grows_without_a_reload(root: Path, show: Show) -> None:
    live = Fabricated(root / "live", layers=2, k=16)
    live.heldout(0)
    live.step("policy", 1, 2)
    live.store.flush()
    app = show("replay", run="live")
    assert "update 2, iteration 1" in _texts(app)
    live.step("policy", 1, 3)
    live.store.flush()
    app.run()
    assert not app.exception
    assert "update 5, iteration 1" in _texts(app)
    live.store.close("finished")


def test_a_run_before_its_first_update(root: Path, show: Show) -> None:
    Fabricated(root / "new", layers=2, k=16)
    app = show("replay", run="new")
    assert "The policy has not moved yet" in _texts(app)
    assert "No optimiser step recorded yet" in _texts(app)
    assert "No held-out score yet" in _texts(app)


def test_one_update_only(root: Path, show: Show) -> None:
    one = Fabricated(root / "one", layers=2, k=16, value=False)
    one.step("policy", 1, 1)
    one.store.close("finished")
    app = show("replay", run="one")
    assert "The only update so far" in _texts(app)
    assert "at least two updates" in _texts(app)


@pytest.mark.parametrize("odd", ["bad_numbers", "constant"])
def test_odd_numbers(root: Path, show: Show, odd: str) -> None:
    Fabricated(root / "odd", layers=2, k=16, updates_each=6, **{odd: True}).whole()
    app = show("replay", run="odd")
    assert len(_charts(app)) == 7
    if odd == "bad_numbers":
        assert "are not finite and are not drawn" in _texts(app).replace("\\", "")


def test_a_broken_run_is_listed_with_its_reason(root: Path, show: Show) -> None:
    Fabricated(root / "good", layers=2, k=16, updates_each=2).whole()
    (root / "bad").mkdir()
    (root / "bad" / "run.json").write_text("{ not json")
    app = show("replay", run="bad")
    assert app.warning
    table = show("runs").dataframe[0].value
    assert dict(zip(table["run"], (state[0] for state in table["state"]), strict=True)) == {"bad": "unreadable", "good": "finished"}


def test_a_damaged_part_is_named_and_the_rest_is_shown(root: Path, show: Show) -> None:
    path = Fabricated(root / "hurt", layers=2, k=16, updates_each=3).whole()
    part = next((path / "completions").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    app = show("replay", run="hurt")
    assert "completions" in " ".join(warning.value for warning in app.warning)
    assert len(_charts(app)) == 7


# --- choices -------------------------------------------------------------------------------------


def test_the_url_reproduces_the_view(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=4).whole()
    Fabricated(root / "b", layers=2, k=16, updates_each=4).whole()
    app = show("replay", run="b", update="3", x="seconds", quantity="persistence", rows="kind", dims="3-D")
    assert app.selectbox(key="run").value == "b"
    assert "update 3, iteration 1" in _texts(app)
    charts = _charts(app)
    assert charts[0]["layout"]["xaxis"]["title"]["text"] == "training time (s)"
    assert charts[3]["data"][0]["y"][0] == "down_proj"
    assert -1 <= charts[3]["data"][0]["zmin"] == -charts[3]["data"][0]["zmax"] < 0
    assert charts[-1]["data"][0]["type"] == "scatter3d"


@pytest.mark.parametrize("value", ["-1", "99999999", "abc", "<script>", "1e9", "", "٣"])
def test_nonsense_in_the_url_is_ignored(root: Path, show: Show, value: str) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=3).whole()
    app = show("replay", run="a", update=value, x=value, quantity=value, rows=value, space=value, dims=value, scale=value, split=value, roles=value)
    assert len(_charts(app)) == 7


@pytest.mark.parametrize("name", ["gone", "<script>", "../a", "![x](http://evil.example)"])
def test_a_link_to_a_run_that_has_gone_shows_no_other_in_its_place(root: Path, show: Show, name: str) -> None:
    for one in ("a", "b"):
        Fabricated(root / one, layers=2, k=16, updates_each=3).whole()
    app = show("replay", run=name)
    assert f"There is no run “{name}” here" in app.warning[0].value.replace("\\", "")
    assert "](" not in app.warning[0].value
    assert not _charts(app)
    assert app.selectbox(key="run").value is None
    assert "run" not in app.query_params, "a value that is none of the choices leaves the link"
    assert "There is no run" in ran(app).warning[0].value
    assert len(_charts(ran(app.selectbox(key="run").select("b")))) == 7
    assert not ran(app).warning


def test_runs_can_be_searched(root: Path, show: Show) -> None:
    for name, method in (("a", "ppo"), ("b", "rloo")):
        Fabricated(root / name, layers=2, k=16, updates_each=2, method=method).whole()
    assert list(show("runs", q="ppo").dataframe[0].value["run"]) == ["a"]
    assert "No run matches" in _texts(show("runs", q="nothing like it"))


def test_a_selected_run_shows_how_to_run_it_again(root: Path, show: Show) -> None:
    path = Fabricated(root / "a", layers=2, k=16, updates_each=2, method="ppo").whole()
    codes = [code.value for code in show("runs", selected="a").code]
    assert codes[0] == "interplay train --method ppo --updates 2 --sketch 16"
    assert str(path) in codes[1]
    assert "duckdb" in codes[2]


def test_the_snippets_run(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=2).whole()
    for code in show("runs", selected="a").code[1:]:
        exec(code.value, {})


# --- hostile text --------------------------------------------------------------------------------


def test_completions_reach_the_page_as_plain_text_only(root: Path, show: Show) -> None:
    Fabricated(root / "a", layers=2, k=16, updates_each=2).whole()
    app = show("replay", run="a")
    assert HOSTILE in [text.value for text in app.text]
    for kind in (app.markdown, app.caption, app.html if hasattr(app, "html") else []):
        assert not any("evil.example" in element.value for element in kind)


def test_hostile_run_names_and_settings_are_escaped(root: Path, show: Show) -> None:
    name = "![x](evil.example) <b>$x$"
    path = Fabricated(root / name, layers=2, k=16, updates_each=2).whole()
    raw = json.loads((path / "run.json").read_text())
    raw["config"] |= {"method": "[a](http://evil.example)", "task": ["not", "a", "word"], "seed": {"x": 1}}
    (path / "run.json").write_text(json.dumps(raw))
    for app in (show("runs", selected=name), show("replay", run=name)):
        for element in [*app.markdown, *app.caption, *app.subheader, *app.warning]:
            assert "](" not in element.value
