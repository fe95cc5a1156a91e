"""Comparisons on the Compare page: found on disk, told apart, and shown in every state with the numbers of the printed table."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from app.commands import comparison
from app.compare import standings
from app.compare.planning import Form, argv, plan_of
from app.compare.standings import Entry, entries, waiting
from app.queue.job import Job
from interplay import compare
from interplay.errors import InterplayError
from tests.comparing import SHIPPED, Scored, button, engine, fabricated, planned, root, show, tables, texts, whole
from tests.fabricate import HOSTILE, Fabricated
from tests.pages import Show, charts

__all__ = ["engine", "root", "show"]  # the fixtures


# --- comparisons on disk ---------------------------------------------------------------------------


def test_comparisons_are_found_newest_first_and_told_apart(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for place in (root, other):
        whole(place / "one", methods=("rloo",), seeds=(0,))
    whole(root / "two", methods=("rloo",), seeds=(0,))
    Fabricated(root / "run", layers=1, k=8, updates_each=1).whole(1)
    (root / "empty").mkdir()
    (root / "away").symlink_to(other / "one")
    found = entries([root, other, other / "one"])
    assert sorted(entry.name for entry in found) == ["other/one", "runs/one", "two"]
    assert [entry.created for entry in found] == sorted((entry.created for entry in found), reverse=True)
    assert standings.find("two", found).name == "two"  # type: ignore[union-attr]
    assert standings.find("one", found).path.name == "one"  # type: ignore[union-attr]
    assert standings.find("", found) is found[0]
    assert standings.find("nothing like it", found) is None
    assert standings.find("", []) is None
    assert entries([tmp_path / "nowhere"]) == []


def test_rows_are_shown_as_they_stand(root: Path) -> None:
    plan = planned(root / "x", seeds=(0, 1, 2))
    done, failed, stopped, bad, live, _ = plan.rows
    fabricated(done).whole(1)
    for row, state in ((failed, "failed"), (stopped, "interrupted")):
        fabricated(row).store.close(state, error="the loss is nan" if state == "failed" else None)
    bad.folder.mkdir()
    (bad.folder / "run.json").write_text("{ no")
    running = fabricated(live)
    running.step("policy", 1, 1)
    running.store.flush()
    (entry,) = entries([root])
    assert [row.state for row in entry.rows] == ["finished", "failed", "interrupted", "unreadable", "running", "to do"]
    assert (entry.done, len(entry.arms)) == (1, 6)
    assert entry.rows[1].why == "the loss is nan"
    assert entry.rows[0].share == 1
    assert entry.state(None) == "running"
    running.store.close("finished")
    (entry,) = entries([root])
    assert entry.state(None) == "failed"
    assert entry.rows[4].state == "finished"


@pytest.mark.parametrize("text", ["{ no", "[]", "{}", '{"out": "x", "rows": []}', '{"out": "x", "rows": [{"name": 1}]}', '{"out": 5, "rows": "no"}'])
def test_a_broken_plan_is_listed_with_its_reason(root: Path, text: str) -> None:
    (root / "x").mkdir()
    (root / "x" / "plan.json").write_text(text)
    (entry,) = entries([root])
    assert entry.problem
    assert entry.state(None) == "unreadable"
    assert entry.recordings() == []


def test_a_changed_row_is_read_again(root: Path) -> None:
    plan = planned(root / "x", seeds=(0,))
    assert entries([root])[0].state(None) == "interrupted"
    for row in plan.rows:
        fabricated(row).whole(1)
    assert entries([root])[0].state(None) == "finished"


def test_methods_keep_their_order_whichever_row_is_first(root: Path) -> None:
    plan = planned(root / "x", methods=("zopro", "rloo", "dpo"))
    for row in plan.rows[2:]:
        fabricated(row).whole(1)
    (entry,) = entries([root])
    assert [(one.method, one.seed) for one in entry.recordings()] == [("zopro", 1), ("rloo", 1), ("dpo", 0), ("dpo", 1)]


def test_a_job_stands_for_a_comparison_that_has_not_begun_to_write(root: Path) -> None:
    words = argv(Form(("rloo", "dpo"), "2").words, root / "x")
    job = Job("0" * 16, words, "2026-11-21T10:00:00+00:00", cwd=str(Path.cwd()), queued=True)
    (entry,) = waiting([job], [])
    assert (entry.name, entry.done, len(entry.arms), entry.state(job)) == ("x", 0, 4, "queued")
    assert standings.job_of(entry, [job]) is job
    over = replace(job, queued=False, ended=True, exit=2)
    assert [one.name for one in waiting([over], [])] == ["x"]
    assert waiting([replace(over, exit=0)], []) == []
    assert waiting([job, over], [entry]) == []
    planned(root / "x")
    assert waiting([job], entries([root])) == []
    odd = replace(job, argv=[*words[:4], "--methods", "", "--out", "runs/y"])
    assert waiting([odd], [])[0].problem


# --- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "word"), [((0.1, 0.2), "more"), ((-0.2, -0.1), "less"), ((-0.1, 0.2), "not shown"), ((0.0, 0.2), "not shown"), ((None, None), "unknown")]
)
def test_the_verdict_is_that_of_the_interval(ends: tuple[float, float], word: str) -> None:
    assert comparison.verdict({"student": ends}) == word


# --- the page --------------------------------------------------------------------------------------


def test_an_empty_root_says_which_command_fills_it(root: Path, show: Show) -> None:
    app = show()
    assert "There is no comparison" in texts(app)
    assert str(root) in texts(app)
    assert app.code[0].value.startswith("interplay compare")


def test_a_comparison_opens_with_its_numbers(root: Path, show: Show) -> None:
    whole(root / "x", methods=("dpo", "rloo", "extrapolate"), seeds=(0, 1, 2))
    app = show()
    assert app.query_params["out"] == "x"
    found = tables(app)
    assert list(found["method"]["method"]) == ["dpo", "rloo", "extrapolate (control)"]
    assert list(found["comparison"]["rows"]) == ["9 of 9"]
    assert list(found["difference"]["verdict"]) == ["more", "not shown"]
    assert "Shown in proxy: rloo gains more than dpo (+" in texts(app)
    assert "Not shown, either way: extrapolate against dpo" in texts(app)
    assert "bootstrap" not in texts(app)  # such intervals are in the printed table alone
    assert len(charts(app)) == 5
    assert button(app, "Stop") is None
    assert any(code.value.startswith("interplay compare --methods dpo,rloo,extrapolate") for code in app.code)


def test_numbers_are_those_of_the_printed_table(root: Path, show: Show) -> None:
    plan = whole(root / "x", seeds=(0, 1, 2))
    found = comparison.load(plan)
    assert found
    shown = tables(show())["method"]
    for row, (_, line) in zip(found.numbers.methods, shown.iterrows(), strict=True):
        assert line["method"] == row["method"]
    app = show()
    (scores,) = [table.value for table in app.dataframe if "proxy IQM" in table.value]
    assert scores["proxy"].tolist() == pytest.approx([row["proxy"]["mean"] for row in found.numbers.methods])
    assert scores["gold"].tolist() == pytest.approx([row["gold"]["mean"] for row in found.numbers.methods])
    for line in comparison.claims(found.numbers):
        assert line in [text.value for text in app.text]


def test_header_and_caption_of_times_name_the_same_method(root: Path, show: Show) -> None:
    whole(root / "x", seeds=(0, 1))
    app = show()
    (costs,) = [table.value for table in app.dataframe if "forwards" in table.value]
    assert [name for name in costs if name.startswith("to ")] == ["to rloo's proxy", "to rloo's gold"]
    assert "To rloo's score: time until" in texts(app).replace("\\", "")


def test_a_column_that_nobody_can_fill_is_one_line(root: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gained, and nobody went away from the reference: neither a time to a gain nor a score at equal KL can be told."""
    monkeypatch.setattr(Scored, "pace", -1.0)
    whole(root / "x", seeds=(0, 1))
    app = show()
    names = [name for table in app.dataframe for name in table.value]
    assert not [name for name in names if name.startswith(("to ", "gold at", "proxy at"))]
    assert "nothing is compared at equal KL" in texts(app)
    assert "rloo ends with no gain in proxy or gold" in texts(app)
    assert "smallest final KL" not in texts(app)


def test_judge_cost_and_comparison_come_from_the_url(root: Path, show: Show) -> None:
    whole(root / "x")
    whole(root / "y", methods=("rloo", "mezo"))
    app = show(out="x", judged="gold", cost="tokens")
    assert "Paired differences in gold" in texts(app)
    assert "Gold score over tokens" in texts(app)
    assert [one.value for one in app.subheader] == ["x"]


@pytest.mark.parametrize("value", ["-1", "../..", "<script>", "", "x" * 400, "\0"])
def test_nonsense_in_the_url_is_ignored(root: Path, show: Show, value: str) -> None:
    whole(root / "x", seeds=(0,))
    app = show(out="x", judged=value, cost=value, side=value)
    assert [one.value for one in app.subheader] == ["x"]
    lost = show(out=value)
    assert [one.value for one in lost.subheader] == ([] if value else ["x"])
    assert ("There is no comparison" in texts(lost)) == bool(value)
    new = show(side="New", methods=value, seeds=value, warm=value, start=value, controls=value, updates=value, device=value, name=value, task=value)
    assert new.code or new.error


def test_one_finished_row_compares_nothing(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    fabricated(plan.rows[0]).whole(1)
    app = show()
    assert "nothing is compared yet" in texts(app)
    assert tables(app)["row"]["state"].tolist() == ["finished", "to do", "to do", "to do"]


def test_rows_fill_in_while_it_runs(root: Path, show: Show) -> None:
    plan = planned(root / "x", seeds=(0,))
    first, second = plan.rows
    live = fabricated(first)
    live.heldout(0)
    live.store.set_status(progress={"doing": "policy update 1", "share": 0.25, "reward": 0.5, "kl": 0.125})
    live.store.flush()
    log = plan.log(first)
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"\x1b[31m{HOSTILE}\x1b[0m\nupdate 1 of 2\n")
    app = show()
    assert "No row is finished yet" in texts(app)
    assert tables(app)["row"]["state"].tolist() == ["running", "to do"]
    assert "update 1 of 2" in app.code[-1].value
    live.iterate(1)
    live.store.close("finished")
    app.run()
    assert tables(app)["row"]["state"].tolist() == ["finished", "to do"]
    fabricated(second).whole(1)
    app.run()
    assert tables(app)["comparison"]["state"].tolist() == ["finished"]
    assert len(tables(app)["method"]) == 2


def test_a_failed_row_shows_why_and_how_to_go_on(root: Path, show: Show) -> None:
    out = root / "x"
    plan = plan_of(Form(("rloo", "dpo"), "1", None, settings={"updates": 2}).words, out)
    compare.settle(plan)
    log = plan.log(plan.rows[0])
    log.parent.mkdir()
    log.write_text("interplay: rloo: the loss is nan\n")
    run = Scored(plan.rows[0].folder, layers=1, k=8)
    run.store.close("failed", error="the loss is nan")
    app = show()
    assert "the loss is nan" in tables(app)["row"]["why"].tolist()
    assert "the loss is nan" in app.code[0].value
    assert not button(app, "Go on").disabled


def test_numbers_that_are_none(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    for row in plan.rows:
        fabricated(row, bad_numbers=True).whole(1)
    app = show()
    assert tables(app)["comparison"]["state"].tolist() == ["finished"]
    assert "Shown in gold" in texts(app)


def test_rows_without_held_out_completions_say_so(root: Path, show: Show) -> None:
    plan = planned(root / "x")
    for row in plan.rows:
        Fabricated(row.folder, layers=1, k=8, seed=row.seed, method=row.method, updates_each=2).whole(1)
    assert "recorded no held-out completions" in texts(show())


def test_many_rows(root: Path, show: Show) -> None:
    plan = planned(root / "x", methods=tuple(f"m{number}" for number in range(9)), seeds=tuple(range(30)))
    for row in plan.rows[:18]:
        fabricated(row).whole(1)
    app = show()
    assert tables(app)["comparison"]["rows"].tolist() == ["18 of 270"]
    assert len(tables(app)["method"]) == 9


def test_a_broken_plan_does_not_take_the_page_down(root: Path, show: Show) -> None:
    (root / "x").mkdir()
    (root / "x" / "plan.json").write_text("{ no")
    app = show()
    assert "damaged" in texts(app)
    assert tables(app)["comparison"]["state"].tolist() == ["unreadable"]


def test_hostile_names_are_shown_letter_by_letter(root: Path, show: Show) -> None:
    name = "![x](evil.example) <b>$x$"
    whole(root / name, methods=("[a](//evil.example)", "**b**"))
    app = show()
    assert "difference" in tables(app)
    for element in [*app.markdown, *app.caption, *app.subheader, *app.warning]:
        assert "](" not in element.value
        assert "<b>" not in element.value.replace("\\<b\\>", "")


def test_the_shipped_comparisons_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, show: Show) -> None:
    monkeypatch.setenv("INTERPLAY_RUNS", str(SHIPPED))
    monkeypatch.chdir(tmp_path)
    app = show()
    assert tables(app)["comparison"]["comparison"].tolist() == ["comparison-controls", "comparison", "comparison-first"]
    assert tables(app)["comparison"]["rows"].tolist() == ["24 of 24", "25 of 25", "15 of 15"]
    assert "rloo gains more than zopro (+0.247 [+0.074, +0.420]" in texts(app)
    (scores,) = [table.value for table in app.dataframe if "proxy IQM" in table.value]
    assert list(scores)[5:8] == ["KL", "proxy at KL 0.56", "gold at KL 0.56"]  # a narrow window cuts off what stands last
    assert "zopro ends with no gain in proxy or gold" in texts(app).replace("\\", "")
    app.query_params["judged"] = "gold"
    begun = time.process_time()
    app.run()
    assert time.process_time() - begun < 1.0
    assert list(tmp_path.iterdir()) == []


def test_nothing_here_raises_but_what_a_person_can_mend(root: Path) -> None:
    (root / "plan.json").write_text(json.dumps({"out": "x", "rows": [{"name": "a", "method": "a", "control": False, "argv": ["train", "--nonsense"]}]}))
    (entry,) = entries([root])
    assert isinstance(entry, Entry)
    assert "nonsense" in entry.problem
    with pytest.raises(InterplayError):
        compare.read(root)
