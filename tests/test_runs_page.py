"""The Runs page: what is listed, grouped and laid side by side is true, and what is deleted or imported is what was meant."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis import figures, tables
from app.compare import standings
from app.queue.job import Job
from app.reading import loading, naming
from app.runs import again, bringing, curves, grouping, trash
from app.train import launch
from interplay import compare
from interplay.config import RunConfig
from interplay.errors import InterplayError, StoreError
from interplay.store import Runs, RunSummary
from tests.fabricate import Fabricated
from tests.pages import Show, charts, ran


def small(path: Path, iterations: int = 2, **changes: Any) -> Path:
    """A finished run; its held-out gold rises by 0.09 in each iteration, its proxy by 0.4."""
    return Fabricated(path, layers=1, k=4, value=False, **{"updates_each": 1, **changes}).whole(iterations)


def altered(path: Path, config: dict[str, Any] | None = None, **changes: Any) -> None:
    """Other words in a run's `run.json`."""
    raw = json.loads((path / "run.json").read_text())
    raw["config"] |= config or {}
    (path / "run.json").write_text(json.dumps(raw | changes))


def said(path: Path, **changes: Any) -> None:
    """Other words in a run's `status.json`."""
    raw = json.loads((path / "status.json").read_text())
    (path / "status.json").write_text(json.dumps(raw | changes))


def texts(app: AppTest) -> str:
    kinds = (app.text, app.caption, app.warning, app.info, app.error, app.markdown, app.subheader)
    return "\n".join(element.value for kind in kinds for element in kind).replace("\\", "")


def table(app: AppTest, number: int = 0) -> dict[str, list[Any]]:
    frame = app.dataframe[number].value
    return {str(name): frame[name].tolist() for name in frame}


# --- the list ------------------------------------------------------------------------------------


def test_a_row_tells_state_change_and_time(root: Path, show: Show) -> None:
    path = small(root / "one")
    altered(path, created="2026-01-02T03:04:05+00:00")
    row = table(show())
    assert row["run"] == ["one"]
    assert [list(state) for state in row["state"]] == [["finished"]]
    assert row["gold"] == [pytest.approx(0.18)]
    assert row["proxy"] == [pytest.approx(0.8)]
    assert str(row["created"][0]) == str(row["age"][0]) == "2026-01-02 03:04:05+00:00"
    assert not {"progress", "problem", "in"} & set(row), "columns that say nothing are left out"


def test_states_are_decided_by_process_and_heartbeat(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("live", "dead", "away", "failed"):
        small(root / name)
    said(root / "live", state="running", pid=os.getpid(), heartbeat=time.time(), progress={"share": 0.25, "doing": "rolling out"})
    said(root / "dead", state="running", pid=2**22 + 1)
    said(root / "away", state="running", host="another", heartbeat=0.0)
    said(root / "failed", state="failed")
    found = table(show())
    states = {name: state[0] for name, state in zip(found["run"], found["state"], strict=True)}
    assert states == {"live": "running", "dead": "interrupted", "away": "stalled", "failed": "failed"}
    assert [share for share in found["progress"] if not math.isnan(share)] == [25.0]
    assert "rolling out" in texts(show(selected="live"))


def test_whatever_run_json_holds_the_list_is_shown(root: Path, show: Show) -> None:
    small(root / "odd")
    altered(root / "odd", {"seed": 10**30, "method": "<b>", "task": ["x"], "settings": ["no", "mapping"]}, created="yesterday")
    said(root / "odd", state="running", pid=os.getpid(), heartbeat=1e300, progress={"share": "many", "doing": {"x": "$y$"}})
    (root / "bad").mkdir()
    (root / "bad" / "run.json").write_text("{ not json")
    found = table(show())
    assert set(found["run"]) == {"odd", "bad"}
    assert any("is not JSON" in str(problem) for problem in found["problem"])
    assert not show(show="configurations").exception
    assert "the same settings" not in texts(show(selected=["odd", "bad"]))


def test_numbers_that_are_none_are_left_out(root: Path, show: Show) -> None:
    small(root / "nan", bad_numbers=True)
    with_gap = Fabricated(root / "gap", layers=1, k=4)
    with_gap._metrics(with_gap._place("policy", 0), "heldout", {"gold": float("nan")})
    with_gap._metrics(with_gap._place("policy", 1), "heldout", {"gold": 0.5, "proxy": float("inf")})
    with_gap._metrics(with_gap._place("policy", 2), "heldout", {"gold": 0.4, "proxy": 1.0})
    with_gap.store.close("finished")
    found = table(show())
    gold, proxy = (dict(zip(found["run"], found[name], strict=True)) for name in ("gold", "proxy"))
    assert gold["gap"] == pytest.approx(-0.1)
    assert math.isnan(proxy["gap"])


def test_fifty_runs_are_read_once(root: Path, show: Show) -> None:
    first = small(root / "r0")
    for number in range(1, 50):
        shutil.copytree(first, root / f"r{number}")
    app = show()
    assert len(table(app)["run"]) == 50
    before = loading._ends.cache_info().misses
    ran(app)
    assert loading._ends.cache_info().misses == before


# --- search and filters --------------------------------------------------------------------------


def summary(name: str, state: str = "finished", **config: Any) -> RunSummary:
    known = {"method": "rloo", "task": "chat", "seed": 0, **config}
    return RunSummary(name, Path("/nowhere/runs") / name, state, known["method"], known["task"], known["seed"], config=known)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["a", "b", "c:d"]),
        ("method:ppo", ["b"]),
        ("method:ppo,rloo seed:1", ["b"]),
        ("METHOD:PPO", ["b"]),
        ("state:finished", ["a", "c:d"]),
        ("updates:12", ["c:d"]),
        ("learning_rate:none", ["a"]),
        ("in:runs", ["a", "b", "c:d"]),
        ("in:elsewhere", []),
        ("c:d", ["c:d"]),  # a name may hold a colon
        ("ppo seed 1", ["b"]),
        ("method:pp", []),
    ],
)
def test_a_search_asks_for_words_or_settings(words: str, names: list[str]) -> None:
    runs = [summary("a", learning_rate=None), summary("b", "running", method="ppo", seed=1), summary("c:d", updates=12)]
    assert [run.run for run in naming.search(runs, words)] == names


def test_filters_come_from_the_url_and_can_be_dropped_at_once(root: Path, show: Show) -> None:
    small(root / "a", method="ppo")
    small(root / "b")
    said(root / "b", state="failed")
    assert table(show(only_method="ppo"))["run"] == ["a"]
    assert table(show(only_state=["failed", "stalled"]))["run"] == ["b"]
    assert set(table(show(only_state="no such state"))["run"]) == {"a", "b"}
    app = show(q="nothing like it", only_task="chat")
    assert "No run matches" in texts(app)
    ran(app.button(key="show-all").click())
    assert set(table(ran(app))["run"]) == {"a", "b"}


# --- configurations ------------------------------------------------------------------------------


def test_seeds_of_one_configuration_are_one_line_with_mean_and_interval(root: Path, show: Show) -> None:
    for seed, iterations in enumerate((1, 2, 3)):
        small(root / f"s{seed}", iterations, seed=seed)
    small(root / "s2-again", 3, seed=2)  # the same seed twice is one seed
    unfinished = small(root / "s3", 9, seed=3)
    said(unfinished, state="interrupted")
    found = table(show(show="configurations"))
    assert found["configuration"] == ["rloo on chat"]
    assert found["seeds"] == [3]
    assert found["runs"] == ["4 finished, 1 interrupted"]
    assert found["gold"] == [pytest.approx(0.18)]
    half = 4.302652729911275 * 0.09 / math.sqrt(3)  # Student's t, two degrees of freedom, 97.5 %
    assert found["gold interval"] == [f"[{0.18 - half:+.3f}, {0.18 + half:+.3f}]"]


def test_one_seed_has_no_interval_and_says_so(root: Path, show: Show) -> None:
    small(root / "a")
    small(root / "b", updates_each=2)
    found = table(show(show="configurations"))
    assert found["gold interval"] == ["one seed: no interval"] * 2
    assert sorted(found["differs"]) == ["updates 1", "updates 2"]


def test_equal_seeds_and_no_finished_run_have_their_reasons() -> None:
    assert grouping.mean_over_seeds([0.5, 0.5]).reason == "all seeds gave the same value"
    assert "no finished score" in grouping.mean_over_seeds([]).reason
    assert grouping.mean_over_seeds([]).value is None


def test_a_configuration_opens_into_its_runs_and_several_into_what_differs(root: Path, show: Show) -> None:
    for seed in (0, 1):
        small(root / f"few{seed}", seed=seed)
        small(root / f"many{seed}", seed=seed, updates_each=2)
    keys = [group.key for group in grouping.configurations(loading.summaries())]
    one = show(show="configurations", group=keys[0])
    assert len(table(one, 1)["run"]) == 2
    two = show(show="configurations", group=keys)
    differing, scores = two.dataframe[1].value, two.dataframe[2].value
    assert list(differing.index) == ["updates"], "seeds are no difference between configurations"
    assert scores["gold"].tolist() == [pytest.approx(0.54)] * 2


def test_configurations_are_told_apart_by_the_first_words(root: Path, show: Show) -> None:
    """Each differs from the others somewhere else, the last two only in a setting that all the others share."""
    changes: list[dict[str, Any]] = [{"learning_rate": 0.1}, {"lora_rank": 4}, {"pairs": 8}, {"settings": {"beta": 0.1}}]
    for number, config in enumerate([{}, *changes, {"pairs": 8, "temperature": 0.5}]):
        altered(small(root / f"r{number}", 1), config)
    told = {group.runs[0].run: group.differs for group in grouping.configurations(loading.summaries())}
    assert len({words[:60] for words in told.values()}) == len(told) == 6
    assert told["r1"] == "learning_rate 0.1, and 4 more"
    assert told["r4"] == "settings.beta 0.1, and 4 more"
    assert told["r3"].startswith("temperature ")
    assert told["r5"].startswith("temperature 0.5")
    altered(small(root / "other", 1, method="ppo"))
    assert {group.runs[0].run: group.differs for group in grouping.configurations(loading.summaries())}["other"] == "", "alone of its method"


# --- side by side --------------------------------------------------------------------------------


def test_selected_runs_are_laid_side_by_side(root: Path, show: Show) -> None:
    small(root / "a", method="ppo", seed=1)
    small(root / "b", 1)
    altered(root / "b", {"settings": {"beta": 0.1}})
    app = show(selected=["a", "b"])
    differing = app.dataframe[1].value
    assert list(differing.index) == ["method", "seed", "settings.beta"]
    assert differing.loc["method", ["a", "b"]].tolist() == ["ppo", "rloo"]
    assert differing.loc["settings.beta", ["a", "b"]].tolist() == ["not set", "0.1"]
    scores = app.dataframe[2].value
    assert scores.loc[["a", "b"], "Δ gold"].tolist() == [pytest.approx(0.18), pytest.approx(0.09)]
    assert scores.loc[["a", "b"], "gold"].tolist() == [pytest.approx(0.54), pytest.approx(0.45)]


def test_runs_that_differ_in_nothing_say_so(root: Path, show: Show) -> None:
    small(root / "a")
    shutil.copytree(root / "a", root / "b")
    assert "They have the same settings and the same seed." in texts(show(selected=["a", "b"]))


def test_ends_are_the_first_and_the_last_value_by_the_clock(root: Path) -> None:
    small(root / "a", 3)
    metrics = loading.Feed(root / "a")
    metrics.refresh()
    frame = metrics.frame("metrics").sample(frac=1, random_state=0)
    found = tables.ends(frame)
    assert (found["gold"].first, found["gold"].last, found["gold"].count) == (pytest.approx(0.36), pytest.approx(0.63), 4)
    assert tables.Ends(0.5, 0.5, 1).change is None
    assert tables.Ends(0.5, math.inf, 2).change is None


def test_a_change_is_called_so_and_says_from_what_to_what(root: Path, show: Show) -> None:
    small(root / "a")
    small(root / "b", seed=1)
    for app, number in ((show(), 0), (show(show="configurations"), 0), (show(selected=["a", "b"]), 2)):
        columns = json.loads(app.dataframe[number].proto.columns)
        named = {told.get("label", key): told.get("help", "") for key, told in columns.items()}
        assert "last held-out gold score minus the first" in named["Δ gold"]
        assert "frozen reward model 0 minus the first" in named["Δ proxy"]
        assert not [label for label in named if label.startswith(("held-out", "change of"))]


def test_an_empty_folder_says_how_a_run_comes_into_it(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "my runs", tmp_path / "other"
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(map(str, (folder, other))))
    app = show()
    assert f"There are no runs in {folder}, {other}." in texts(app)
    assert app.code[0].value == f"interplay train --method rloo --task chat --out '{folder}/first'"


# --- curves of several runs --------------------------------------------------------------------------


def test_curves_of_selected_runs_are_in_one_picture_with_a_free_choice_of_metric(root: Path, show: Show) -> None:
    small(root / "a", 3)
    small(root / "b", 2, method="ppo")
    assert not charts(show()), "nothing is drawn before several are selected"
    assert not charts(show(selected="a"))
    app = show(selected=["a", "b"])
    assert app.selectbox(key="metric").options[:3] == ["Reward", "Gold score", "KL from the reference"]
    (shown,) = charts(app)
    assert "a, held-out prompts" in shown["alt"]
    assert "b, held-out prompts" in shown["alt"]
    ran(app.selectbox(key="metric").select("entropy"))
    (other,) = charts(app)
    assert other["alt"].startswith("entropy: ")
    assert charts(show(selected=["a", "b"], metric="entropy", x="seconds"))[0]["alt"].startswith("entropy: ")


def test_metrics_are_what_any_of_the_runs_recorded() -> None:
    def of(*names: str) -> pd.DataFrame:
        return pd.DataFrame({"role": "policy", "split": "train", "name": list(names), "seconds": math.nan, "clock": 1, "value": 0.0})

    found = figures.recorded_metrics([of("kl", "clip"), of("gold", "gold_se", "loose_se")])
    assert found == ["gold", "kl", "clip", "loose_se"], "the known scores first; an error goes with its mean"
    other = of("loss").assign(role="reward")
    assert figures.recorded_metrics([other]) == []
    assert curves.axes([of("kl").assign(seconds=1.0), of("kl")]) == ["update"], "an axis that all have"


def test_curves_of_runs_of_one_name_are_told_apart(two: tuple[Path, Path], show: Show) -> None:
    names = [name for name in naming.names(loading.summaries()) if name.endswith("same")]
    (drawn,) = charts(show(selected=names))
    told = [f"{root.name}/same" for root in two]
    assert all(name in drawn["alt"] for name in told)


def test_curves_say_when_some_are_left_out(two: tuple[Path, Path], show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in naming.names(loading.summaries()) if name.endswith("same")]
    small(two[0] / "third")
    monkeypatch.setattr("app.runs.curves.MOST_BESIDE", 2)
    app = show(selected=["other", "third", names[0]])
    assert "2 of 3 runs are drawn" in texts(app)
    assert len(charts(app)) == 1


# --- a run again -------------------------------------------------------------------------------------


def _stopped(path: Path, *complete: int) -> Path:
    run = Fabricated(path, layers=1, k=4, value=False, updates_each=1)
    run.step("policy", 1, 2)
    run.store.close("interrupted")
    for number in complete:
        (path / "checkpoints" / f"iteration-{number}").mkdir(parents=True)
        (path / "checkpoints" / f"iteration-{number}" / "COMPLETE").write_text("{}")
    return path


def _resume(app: AppTest) -> Any:
    return next((button for button in app.button if button.key == "resume"), None)


def test_a_run_that_ended_early_can_be_resumed_from_its_line(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _stopped(root / "stopped", 0, 2)
    asked: list[list[str]] = []
    monkeypatch.setattr("app.queue.jobs.Jobs.start_argv", lambda self, argv, key="", cwd=None, alone=False: asked.append(argv))
    monkeypatch.setattr("streamlit.switch_page", lambda page: asked.append([Path(page).name]))
    button = _resume(show(selected="stopped"))
    assert "goes on after iteration 2" in button.help.replace("\\", "")
    ran(button.click())
    assert asked == [[sys.executable, "-m", "app.cli", "train", "--resume", str(path)], ["train.py"]]


def test_resume_is_offered_for_nothing_else_and_says_why_it_is_off(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    small(root / "whole")
    said(small(root / "live"), state="running", pid=os.getpid(), heartbeat=time.time())
    _stopped(root / "stopped")
    for names in ("whole", "live", ["whole", "stopped"]):
        assert _resume(show(selected=names)) is None
    assert "begins anew" in _resume(show(selected="stopped")).help
    job = Job("0" * 16, [sys.executable, "-m", "app.cli", "train", "--resume", str(root / "stopped")], "2026", queued=True)
    with monkeypatch.context() as queued:
        queued.setattr("app.queue.jobs.Jobs.list", lambda self: [job])
        button = _resume(show(selected="stopped"))
        assert button.disabled
        assert "queued" in button.help
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    button = _resume(show(selected="stopped"))
    assert button.disabled
    assert "no login" in button.help.replace("\\", "")


@pytest.mark.parametrize(
    ("words", "pasted"),
    [
        (["interplay", "train", "--seed", "1", "--out", "runs/a"], "interplay train --seed 1 --out '{root}/a-3'"),
        (["interplay", "train", "--out=runs/a"], "interplay train '--out={root}/a-3'"),
        (["interplay", "train"], "interplay train"),
        (["interplay", "import", "/x", "--as", "a", "--runs", "old"], "interplay import /x --as a-3 --runs '{root}'"),
        (["python", "mine.py", "--out", "x"], "python mine.py --out x"),
        ([], ""),
    ],
)
def test_the_command_that_runs_it_again_names_a_folder_that_is_free(tmp_path: Path, words: list[str], pasted: str) -> None:
    root = tmp_path / "my runs"
    for name in ("a", "a-2"):
        (root / name).mkdir(parents=True)
    assert again.command(words, "a", root) == pasted.format(root=root)


# --- two roots -----------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    mine, theirs = tmp_path / "mine" / "runs", tmp_path / "theirs" / "runs"
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(map(str, (mine, theirs))))
    small(mine / "same", 1)
    altered(mine / "same", created="2026-02-01T00:00:00+00:00")
    small(theirs / "same", 2, method="ppo")
    altered(theirs / "same", created="2026-01-01T00:00:00+00:00")
    small(theirs / "other", 3)
    altered(theirs / "other", created="2025-01-01T00:00:00+00:00")
    return mine, theirs


def test_runs_of_one_name_are_told_apart_by_their_root(two: tuple[Path, Path], show: Show) -> None:
    runs = loading.summaries()
    assert naming.names(runs) == ["mine/runs/same", "theirs/runs/same", "other"]
    assert naming.find("theirs/runs/same", runs).path == two[1] / "same"
    assert naming.find("same", runs).path == two[0] / "same", "an old link means the first"
    found = table(show())
    assert (found["run"], found["in"]) == (["mine/runs/same", "theirs/runs/same", "other"], ["mine/runs", "theirs/runs", "theirs/runs"])
    assert str(two[1] / "same") in show(selected="theirs/runs/same").code[1].value
    assert str(two[0] / "same") in show(selected="same").code[1].value


def test_a_name_that_only_one_run_has_needs_no_root(two: tuple[Path, Path]) -> None:
    with pytest.raises(StoreError, match="there is no run 'nowhere/same'"):
        naming.find("nowhere/same", loading.summaries())
    assert naming.find("other", loading.summaries()).path == two[1] / "other"


def test_replay_opens_the_run_that_was_meant(two: tuple[Path, Path], show: Show) -> None:
    assert "ppo on chat" in texts(show("replay", run="theirs/runs/same"))
    assert "rloo on chat" in texts(show("replay", run="same"))


# --- comparisons ---------------------------------------------------------------------------------


@pytest.fixture
def compared(root: Path) -> Path:
    """A comparison of two methods and two seeds, one row of which has not begun."""
    small(root / "single")
    plan = compare.plan(RunConfig(updates=1, sketch=4), ["rloo", "ppo"], [0, 1], root / "compare-x")
    compare.settle(plan)
    for row in plan.rows[:-1]:
        small(row.folder, method=row.config.method, seed=row.seed)
    (root / "compare-x" / "stray").mkdir()
    return root


def test_a_comparison_is_one_line_and_opens_into_its_rows(compared: Path, show: Show) -> None:
    app = show()
    assert table(app)["run"] == ["single"], "its rows do not flood the list"
    line = table(app, 1)
    assert (line["comparison"], line["methods"], line["rows"]) == (["compare-x"], ["rloo, ppo"], ["3 of 4 finished"])
    assert [list(state) for state in line["state"]] == [["interrupted"]]
    opened = show(comparison="compare-x")
    assert set(table(opened, 2)["run"]) == {"compare-x/rloo-s0", "compare-x/rloo-s1", "compare-x/ppo-s0"}
    assert any(link.proto.query_string == "out=compare-x" for link in opened.get("page_link"))


def test_a_plan_that_cannot_be_read_is_one_line_with_its_reason(compared: Path, show: Show) -> None:
    (compared / "compare-x" / compare.PLAN).write_text("{}")
    line = table(show(comparison="compare-x"), 1)
    assert ([list(state) for state in line["state"]], "damaged" in line["problem"][0]) == ([["unreadable"]], True)


def test_a_row_of_a_comparison_opens_in_replay(compared: Path, show: Show) -> None:
    assert "ppo on chat, seed 0" in texts(show("replay", run="compare-x/ppo-s0"))
    for name in ("compare-x/nothing", "../runs/compare-x/ppo-s0", "compare-x/../single", "single/metrics", "/", ""):
        assert naming.inside(name) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", True),
        ("compare-x", True),
        ("METHOD:PPO", True),
        ("method:dpo", False),
        ("method:dpo,rloo seed:1", True),
        ("seed:2", False),
        ("task:chat", True),
        ("model:bundled", True),
        ("model:other", False),
        ("state:interrupted", True),
        ("state:finished", False),
        ("updates:1", True),
        ("in:runs", True),
        ("in:elsewhere", False),
        ("ppo chat seed 1", True),
        ("ppo:updates=2", True),  # the name of an arm holds a colon
        ("method:ppo:updates=2", True),
        ("zopro", False),
    ],
)
def test_a_search_asks_comparisons_for_words_or_settings(root: Path, words: str, found: bool) -> None:
    shared = RunConfig(updates=1, sketch=4, model="bundled")
    compare.settle(compare.plan(shared, ["rloo", "ppo", "ppo:updates=2"], [0, 1], root / "compare-x", controls=("ppo:updates=2",)))
    small(root / "compare-x" / "rloo-s0")
    said(root / "compare-x" / "rloo-s0", state="interrupted")
    known = standings.entries([root])
    assert grouping.search(known, [], words) == (known if found else [])


def test_a_comparison_whose_plan_cannot_be_read_is_found_by_name_and_state(compared: Path) -> None:
    (compared / "compare-x" / compare.PLAN).write_text("{}")
    known = standings.entries([compared])
    assert grouping.search(known, [], "compare state:unreadable") == known
    assert grouping.search(known, [], "method:rloo") == []


def test_search_and_filters_hold_for_comparisons_too(compared: Path, show: Show) -> None:
    app = show(q="method:ppo")
    assert "No run matches" in texts(app)
    assert table(app)["comparison"] == ["compare-x"]
    assert table(show(only_method="ppo"))["comparison"] == ["compare-x"], "a method that only a comparison has can be chosen"
    app = show(only_state="finished")
    assert table(app)["run"] == ["single"]
    assert "No comparison matches" in texts(app)
    assert len(app.dataframe) == 1
    assert table(show(q="single"))["run"] == ["single"]
    ran(app.button(key="show-all").click())
    assert table(ran(app), 1)["comparison"] == ["compare-x"]


def test_comparisons_alone_can_be_filtered(compared: Path, show: Show) -> None:
    shutil.rmtree(compared / "single")
    assert "No comparison matches" in texts(show(only_task="chat", q="seed:7"))
    assert table(show(only_task="chat"))["comparison"] == ["compare-x"]


def test_hidden_folders_are_no_comparisons(compared: Path, show: Show) -> None:
    shutil.copytree(compared / "compare-x", compared / ".trash" / "compare-x-20260101-000000")
    assert table(show(), 1)["comparison"] == ["compare-x"]


# --- delete, undo, restore, empty ----------------------------------------------------------------


def thrown(*names: str) -> list[trash.Thrown]:
    return list(trash.throw(names))


def test_a_deleted_run_lies_in_the_trash_and_comes_back_whole(root: Path) -> None:
    small(root / "a")
    files = sorted((path.relative_to(root / "a"), path.read_bytes()) for path in (root / "a").rglob("*.parquet"))
    (one,) = thrown("a")
    assert not (root / "a").exists()
    assert one.path.parent == root / ".trash"
    assert one.id.startswith("a-2")
    assert loading.summaries() == Runs(root).list() == [], "the trash is no run"
    assert trash.contents() == [one]
    assert trash.nbytes([one]) >= sum(len(content) for _, content in files)
    assert trash.restore(trash.find(one.id, "runs")) == root / "a"
    assert sorted((path.relative_to(root / "a"), path.read_bytes()) for path in (root / "a").rglob("*.parquet")) == files
    assert trash.contents() == []


def test_one_name_may_be_deleted_twice_and_is_not_restored_over_another(root: Path) -> None:
    made = []
    for _ in range(3):
        small(root / "a-20260101-000000")  # the name itself looks like one in the trash
        made += thrown("a-20260101-000000")
    assert len({one.id for one in made}) == 3
    assert {one.run for one in trash.contents()} == {"a-20260101-000000"}
    trash.restore(made[0])
    with pytest.raises(StoreError, match="exists already"):
        trash.restore(made[1])
    assert len(trash.contents()) == 2


def test_what_is_being_written_stays(root: Path) -> None:
    live = Fabricated(root / "live", layers=1, k=4)
    with pytest.raises(StoreError, match="is running"):
        thrown("live")
    said(root / "live", heartbeat=0.0, host="another")
    assert Runs(root).list()[0].state == "stalled"
    with pytest.raises(StoreError, match="is being written by"):
        thrown("live")
    live.store.close("interrupted")
    thrown("live")


def test_what_came_with_the_project_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(root / "shipped")
    monkeypatch.setattr(loading, "RECORDINGS", root)
    with pytest.raises(StoreError, match="came with the project"):
        thrown("shipped")
    assert (root / "shipped").is_dir()


def test_links_stay(root: Path, tmp_path: Path) -> None:
    real = small(tmp_path / "elsewhere")
    (root / "inner").symlink_to(small(root / "a"))
    (root / "outer").symlink_to(real)
    for name in ("inner", "outer"):
        with pytest.raises(StoreError, match="symbolic link"):
            thrown(name)
    (root / ".trash").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="symbolic link"):
        thrown("a")
    assert trash.contents() == []
    assert real.is_dir()


def test_an_exposed_server_deletes_restores_and_empties_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(root / "a")
    small(root / "b")
    (one,) = thrown("a")
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    for act in (lambda: thrown("b"), lambda: trash.restore(one), lambda: trash.empty([one])):
        with pytest.raises(StoreError, match="other machines"):
            act()
    assert one.path.is_dir()
    assert (root / "b").is_dir()


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "/etc", "a/../a", ".trash", "runs/../a", "a\0b", "nothing", "x" * 300])
def test_a_name_that_is_not_listed_reaches_nothing(root: Path, tmp_path: Path, name: str) -> None:
    small(root / "a")
    small(tmp_path / "outside")
    with pytest.raises(StoreError, match="there is no run"):
        thrown("a", name)
    assert (root / "a").is_dir(), "nothing moves if one of the names is wrong"
    assert (tmp_path / "outside").is_dir()


def test_of_two_runs_of_one_name_the_right_one_goes(two: tuple[Path, Path]) -> None:
    with pytest.raises(StoreError, match="there is no run 'same'"):
        thrown("same")
    made = thrown("theirs/runs/same", "mine/runs/same")
    assert [one.root for one in made] == [two[1], two[0]]
    assert [run.run for run in loading.summaries()] == ["other"]


def test_emptying_takes_only_what_was_deleted_here(root: Path, tmp_path: Path) -> None:
    small(root / "a")
    small(tmp_path / "kept")
    (one,) = thrown("a")
    (root / ".trash" / "notes").mkdir()
    (root / ".trash" / "linked-20260101-000000").symlink_to(tmp_path / "kept")
    (one.path / "inside").symlink_to(tmp_path / "kept")
    size = trash.nbytes(trash.contents())
    assert trash.empty(trash.contents()) == size > 0
    assert sorted(path.name for path in (root / ".trash").iterdir()) == ["linked-20260101-000000", "notes"]
    assert (tmp_path / "kept" / "run.json").is_file()


def test_deleting_asks_once_and_can_be_undone(root: Path, show: Show) -> None:
    small(root / "a")
    small(root / "b")
    app = show(selected="a")
    ran(app.button(key="delete").click())
    assert (root / "a").is_dir(), "the first click only asks"
    ran(app.button(key="delete-really").click())
    assert not (root / "a").exists()
    assert table(ran(app))["run"] == ["b"]
    assert "In the trash: a" in texts(app)
    ran(app.button(key="undo").click())
    assert (root / "a").is_dir()
    assert "In the trash" not in texts(ran(app))


def test_several_are_deleted_together_and_the_trash_restores_and_empties(root: Path, show: Show) -> None:
    for name in ("a", "b", "c"):
        small(root / name)
    app = show(selected=["a", "b"], trash="true")
    assert app.button(key="delete").label == "Delete 2 runs"
    ran(app.button(key="delete").click())
    ran(app.button(key="delete-really").click())
    ran(app)
    restore = [button.key for button in app.button if str(button.key).startswith("restore-")]
    assert len(restore) == 2
    ran(app.button(key=next(key for key in restore if "-a-" in key)).click())
    assert (root / "a").is_dir()
    ran(app)
    ran(app.button(key="empty").click())
    assert trash.contents(), "the first click only asks"
    assert "1 run," in texts(app)
    ran(app.button(key="empty-really").click())
    assert trash.contents() == []
    assert not (root / "b").exists()


def test_where_a_run_must_stay_the_button_says_why(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Fabricated(root / "live", layers=1, k=4)
    button = show(selected="live").button(key="delete")
    assert button.disabled
    assert "is running" in button.help
    live.store.close("finished")
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    assert "other machines" in show(selected="live").button(key="delete").help


# --- delete a comparison -------------------------------------------------------------------------


def test_deleting_a_comparison_asks_once_and_can_be_undone(compared: Path, show: Show) -> None:
    files = {path.relative_to(compared): path.read_bytes() for path in (compared / "compare-x").rglob("*.parquet")}
    app = show(comparison="compare-x")
    ran(app.button(key="delete-comparison").click())
    assert (compared / "compare-x").is_dir(), "the first click only asks"
    assert "all its runs" in texts(app)
    ran(app.button(key="delete-really").click())
    assert not (compared / "compare-x").exists()
    assert standings.entries([compared]) == []
    assert len(ran(app).dataframe) == 1
    assert "In the trash: compare-x" in texts(app)
    ran(app.button(key="undo").click())
    assert {path.relative_to(compared): path.read_bytes() for path in (compared / "compare-x").rglob("*.parquet")} == files
    assert table(ran(app), 1)["rows"] == ["3 of 4 finished"]


def test_the_trash_tells_comparisons_from_runs(compared: Path, show: Show) -> None:
    thrown("single")
    assert trash.throw_comparison("compare-x", []).kind == "comparison"
    app = show(trash="true")
    assert "comparison from runs" in texts(app)
    assert "run from runs" in texts(app)
    ran(app.button(key="empty").click())
    assert "1 run and 1 comparison," in texts(app)
    ran(app.button(key="empty-really").click())
    assert trash.contents() == []
    assert [path.name for path in compared.iterdir()] == [".trash"]


def test_a_comparison_at_work_stays(compared: Path, show: Show) -> None:
    live = Fabricated(compared / "compare-x" / "ppo-s1", layers=1, k=4)
    button = show(comparison="compare-x").button(key="delete-comparison")
    assert button.disabled
    assert button.help.replace("\\", "") == "ppo-s1 of compare-x is running; stop it first."
    with pytest.raises(StoreError, match="ppo-s1 of compare-x is running"):
        trash.throw_comparison("compare-x", [])
    said(compared / "compare-x" / "ppo-s1", heartbeat=0.0, host="another")
    with pytest.raises(StoreError, match="ppo-s1 is being written by"):
        trash.throw_comparison("compare-x", [])
    live.store.close("interrupted")
    with compare.alone(compared / "compare-x"), pytest.raises(StoreError, match="is being run by"):
        trash.throw_comparison("compare-x", [])
    assert trash.throw_comparison("compare-x", []).path.is_dir()


def test_a_comparison_whose_next_row_is_being_started_stays(compared: Path) -> None:
    (compared / "compare-x" / compare.LOGS).mkdir(exist_ok=True)
    (compared / "compare-x" / compare.LOGS / "ppo-s1.log").write_text("starting")
    with pytest.raises(StoreError, match="compare-x is running; stop it first"):
        trash.throw_comparison("compare-x", [])


@pytest.mark.parametrize(
    "words",
    [["compare", "--methods=rloo,ppo", "--out=compare-x"], ["train", "--resume", "compare-x/ppo-s0"]],
    ids=["the comparison goes on", "a row goes on"],
)
def test_a_comparison_that_a_job_waits_for_stays(compared: Path, words: list[str]) -> None:
    job = Job("0" * 16, [sys.executable, "-m", "app.cli", *words], "2026-01-01T00:00:00+00:00", cwd=str(compared), queued=True)
    with pytest.raises(StoreError, match="A job for compare-x is queued; stop it first"):
        trash.throw_comparison("compare-x", [job])
    over = Job(**{**vars(job), "queued": False, "ended": True})
    elsewhere = Job(**{**vars(job), "cwd": str(compared / "other")})
    assert trash.throw_comparison("compare-x", [over, elsewhere]).run == "compare-x"


def test_a_job_in_the_queue_shows_as_such_and_switches_the_button_off(compared: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [sys.executable, "-m", "app.cli", "compare", "--methods=rloo,ppo", f"--out={compared / 'compare-x'}"]
    job = Job("0" * 16, argv, "2026-01-01T00:00:00+00:00", queued=True)
    monkeypatch.setattr("app.queue.jobs.Jobs.list", lambda self: [job])
    app = show(comparison="compare-x")
    assert [list(state) for state in table(app, 1)["state"]] == [["queued"]]
    assert app.button(key="delete-comparison").disabled
    assert table(show(q="state:queued"))["comparison"] == ["compare-x"]


def test_comparisons_that_must_stay(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (compared / "linked").symlink_to(compared / "compare-x")
    for name, why in (("linked", "symbolic link"), ("nothing", "there is no comparison"), ("../runs/compare-x", "there is no comparison")):
        with pytest.raises(StoreError, match=why):
            trash.throw_comparison(name, [])
    (compared / "linked").unlink()
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join([str(compared), str(compared / "compare-x")]))
    with pytest.raises(StoreError, match="is itself a folder of runs"):
        trash.throw_comparison("compare-x", [])
    monkeypatch.setenv("INTERPLAY_RUNS", str(compared))
    with monkeypatch.context() as changed:
        changed.setattr(loading, "RECORDINGS", compared)
        with pytest.raises(StoreError, match="came with the project"):
            trash.throw_comparison("compare-x", [])
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    with pytest.raises(StoreError, match="other machines"):
        trash.throw_comparison("compare-x", [])
    assert (compared / "compare-x").is_dir()


def test_two_comparisons_of_one_name_are_told_apart_by_their_folders_and_none_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [tmp_path / owner / "runs" for owner in ("mine", "theirs")]
    monkeypatch.setenv("INTERPLAY_RUNS", os.pathsep.join(map(str, roots)))
    for place in roots:
        compare.settle(compare.plan(RunConfig(), ["rloo", "ppo"], [0], place / "x"))
    for name in ("x", "runs/x"):
        with pytest.raises(StoreError, match="there is no comparison"):
            trash.throw_comparison(name, [])
    assert all((place / "x").is_dir() for place in roots)
    assert {entry.name for entry in standings.entries(roots)} == {"mine/runs/x", "theirs/runs/x"}
    trash.throw_comparison("theirs/runs/x", [])
    assert [(place / "x").is_dir() for place in roots] == [True, False]


# --- import --------------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: True)


def test_the_import_form_shows_the_exact_command(root: Path, tmp_path: Path, show: Show, engine: None) -> None:
    (tmp_path / "out puts").mkdir()
    small(root / "a")
    app = show(**{"import": "true"}, import_folder=str(tmp_path / "out puts"), import_name="theirs", import_policy="epoch_*/step_{step}")
    assert app.code[0].value == f"interplay import '{tmp_path}/out puts' --as=theirs --runs={root} '--policy=epoch_*/step_{{step}}'"


def test_the_command_is_one_that_the_command_line_takes(root: Path, tmp_path: Path) -> None:
    from app import cli

    wish = bringing.Wish(str(tmp_path), "-x", "--reward", "-r", str(root))
    arguments = cli._parse(wish.argv(root)[3:])
    assert (arguments.folder, arguments.name, arguments.runs) == (str(tmp_path), "-x", str(root))
    assert (arguments.policy, arguments.reward, arguments.base) == ("--reward", "-r", str(root))
    assert cli._parse(bringing.Wish("--as", "n").argv(root)[3:]).folder == os.path.abspath("--as")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folder": "/nowhere at all"}, "folder is '/nowhere at all', which is not a folder on this machine"),
        ({"folder": "~nobody-such/x"}, "not a folder"),
        ({"folder": "a\0b"}, "not a folder"),
        ({"base": "/nowhere"}, "base is '/nowhere'"),
        ({"name": "../x"}, "must be the name of a folder directly in"),
        ({"name": ".hidden"}, "must be the name"),
        ({"name": "taken"}, "exists already"),
        ({"policy": "a\0b"}, "null character"),
    ],
)
def test_what_cannot_be_imported_is_refused_before_it_starts(root: Path, tmp_path: Path, change: dict[str, str], words: str) -> None:
    (root / "taken").mkdir()
    with pytest.raises(InterplayError, match=words):
        bringing.Wish(**{"folder": str(tmp_path), "name": "new", **change}).check(root)


def test_an_import_starts_one_job_and_shows_its_lines(root: Path, tmp_path: Path, show: Show, engine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = [sys.executable, "-m", "app.cli", "import", "/nowhere/at/all", "--as=x", f"--runs={root}"]
    monkeypatch.setattr(bringing.Wish, "argv", lambda self, root: stub)
    app = show(**{"import": "true"}, import_folder=str(tmp_path), import_name="x")
    for _ in range(3):
        ran(app.button(key="import-start").click())
    assert len(launch.here().list()) == 1
    for _ in range(300):
        if launch.here().list()[0].ended:
            break
        time.sleep(0.1)
    ran(app)
    assert any("interplay:" in code.value for code in app.code)


def test_an_exposed_server_and_one_without_the_engine_import_nothing(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: False)
    app = show(**{"import": "true"})
    assert "pip install" in texts(app)
    monkeypatch.setattr("app.reading.catalogue.engine_installed", lambda: True)
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    app = show(**{"import": "true"}, import_folder="/", import_name="x")
    assert "importing is off" in texts(app)
    assert not app.code or "import" not in app.code[-1].value


# --- hostile text --------------------------------------------------------------------------------


def test_hostile_names_are_text_wherever_they_stand(root: Path, show: Show) -> None:
    name = "![x](evil.example) <b>$x$ [y](z)"
    small(root / name, method="ppo")
    altered(root / name, {"method": "[a](http://evil.example)"})
    small(root / "plain")
    app = show(selected=name, trash="true")
    ran(app.button(key="delete").click())
    shown = [app]
    ran(app.button(key="delete-really").click())
    ran(app)
    for view in [*shown, show(trash="true"), show(selected=["plain", name]), show(show="configurations")]:
        for element in [*view.markdown, *view.caption, *view.subheader, *view.warning, *view.error]:
            assert "](" not in element.value
