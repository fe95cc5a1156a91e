"""What becomes of rows in every layout, which of them cannot be used, and how prompts are held out; then the real files, where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interplay import data, tasks
from interplay.config import RunConfig
from interplay.errors import DataError
from tests.rows import CHAT, jsonl, load

TRANSLATION = tasks.find("translation")
REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def repeat(make: Callable[[int], dict[str, Any]], count: int = 12) -> list[dict[str, Any]]:
    return [make(i) for i in range(count)]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- the task's own prompts -----------------------------------------------------------------------


@pytest.mark.parametrize("name", tasks.names())
def test_own_prompts_split_the_same_way_for_every_seed(name: str) -> None:
    one, two = (data.load(RunConfig(task=name, seed=seed), tasks.find(name)) for seed in (0, 5))
    assert [p.id for p in one.heldout] == [p.id for p in two.heldout]
    assert len(one.heldout) == 64
    assert {p.id for p in one.heldout}.isdisjoint(p.id for p in one.prompts)
    assert len(one.heldout) + len(one.prompts) == one.report["rows"]
    assert one.pairs == () == one.heldout_pairs


def test_a_smaller_held_out_set_is_part_of_the_larger() -> None:
    small, large = (data.load(RunConfig(heldout=n), CHAT) for n in (16, 64))
    assert {p.id for p in small.heldout} < {p.id for p in large.heldout}


def test_translation_prompts_bring_their_references() -> None:
    assert all(p.reference for p in data.load(RunConfig(), TRANSLATION).prompts)


def test_too_many_held_out_prompts_are_refused() -> None:
    with pytest.raises(DataError, match=r"--data is 'chat.jsonl' with 240 usable prompts, but --heldout is 233 .* use --heldout 232 or fewer"):
        data.load(RunConfig(heldout=233), CHAT)


def test_missing_own_prompts_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "PROMPTS", tmp_path)
    with pytest.raises(DataError, match=r"the prompts of --task chat are missing: .*chat\.jsonl; run from a complete checkout, or give --data"):
        data.load(RunConfig(), CHAT)


# --- layouts --------------------------------------------------------------------------------------


def test_explicit_preference_as_text(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": f"Question {i}?", "chosen": f" Good {i}.", "rejected": "Bad.", "margin": 0.5, "note": "x"})
    found = load(jsonl(tmp_path, rows))
    assert found.report["layout"] == "preference"
    assert found.report["ignored_columns"] == ["note"]
    pair = found.pairs[0]
    number = pair.prompt.text.split()[1].rstrip("?")
    assert (pair.chosen, pair.rejected, pair.margin) == (f"Good {number}.", "Bad.", 0.5)
    assert pair.prompt.messages == CHAT.messages(pair.prompt.text)
    assert len(found.pairs) == 10
    assert len(found.heldout_pairs) == 2


def test_explicit_preference_as_conversations_keeps_the_turns(tmp_path: Path) -> None:
    turns = [user("Hello there."), says("Hi!"), user("How tall is that old tower?")]
    rows = repeat(lambda i: {"prompt": [user(f"I am guest {i}."), says("Welcome."), *turns], "chosen": [says("Ten metres.")], "rejected": [says("No.")]})
    prompt = load(jsonl(tmp_path, rows)).pairs[0].prompt
    assert [m["role"] for m in prompt.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt.messages[0] == CHAT.messages("")[0]
    assert prompt.text == "How tall is that old tower?"


def test_a_system_message_of_the_data_replaces_the_task_s(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Speak like a pirate."}
    rows = repeat(lambda i: {"prompt": [own, user(f"Question {i}?")], "chosen": [says("a")], "rejected": [says("b")]})
    messages = load(jsonl(tmp_path, rows)).prompts[0].messages
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[0] == own


def test_a_last_turn_without_a_topic_is_joined_to_the_one_before(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": [user(f"Suggest prank number {i} for a friend."), says("Which friend?"), user("any")]})
    assert load(jsonl(tmp_path, rows)).prompts[0].text.endswith("for a friend. any")


def test_answers_that_repeat_the_prompt_lose_it(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": f"Q {i}", "chosen": [user(f"Q {i}"), says("good")], "rejected": [user(f"Q {i}"), says("bad")]})
    pair = load(jsonl(tmp_path, rows)).pairs[0]
    assert (pair.chosen, pair.rejected) == ("good", "bad")
    assert [m["role"] for m in pair.prompt.messages] == ["system", "user"]


def test_implicit_preference_as_conversations(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"chosen": [user(f"Q {i}"), says("good")], "rejected": [user(f"Q {i}"), says("bad")]})
    found = load(jsonl(tmp_path, rows))
    assert found.report["layout"] == "implicit"
    assert (found.pairs[0].chosen, found.pairs[0].rejected) == ("good", "bad")


def test_implicit_preference_of_spoken_text_is_cut_at_the_last_speaker(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hi {}\n\nAssistant: Hello.\n\nHuman: What is the best pie?\n\nAssistant: I think "
    rows = repeat(lambda i: {"chosen": talk.format(i) + "apple.", "rejected": talk.format(i) + "none."})
    pair = load(jsonl(tmp_path, rows)).pairs[0]
    assert (pair.chosen, pair.rejected) == ("I think apple.", "I think none.")
    assert [m["role"] for m in pair.prompt.messages] == ["system", "user", "assistant", "user"]
    assert pair.prompt.text == "What is the best pie?"


def test_implicit_preference_of_plain_text_is_cut_at_a_word(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"chosen": f"Sky number {i} is blue.", "rejected": f"Sky number {i} is black."})
    pair = load(jsonl(tmp_path, rows)).pairs[0]
    assert pair.prompt.text.endswith(" is")
    assert (pair.chosen, pair.rejected) == ("blue.", "black.")


def test_prompts_only_and_messages(tmp_path: Path) -> None:
    found = load(jsonl(tmp_path, repeat(lambda i: {"prompt": f"P {i}", "reference": f"R {i}"})))
    assert found.report["layout"] == "prompts"
    assert found.prompts[0].reference == found.prompts[0].text.replace("P", "R")
    found = load(jsonl(tmp_path, repeat(lambda i: {"messages": [user(f"P {i}"), says("the answer is dropped")]}), "m.jsonl"))
    assert found.report["layout"] == "messages"
    assert [m["role"] for m in found.prompts[0].messages] == ["system", "user"]


def test_scores_of_one_prompt_make_pairs_of_the_best_with_each_lower(tmp_path: Path) -> None:
    rows = [{"prompt": f"P {i}", "completion": f"answer {k}", "score": k / 2} for i in range(12) for k in (1, 3, 2)]
    found = load(jsonl(tmp_path, rows))
    mine = [p for p in found.pairs if p.prompt == found.pairs[0].prompt]
    assert [(p.chosen, p.rejected, p.margin) for p in mine] == [("answer 3", "answer 1", 1.0), ("answer 3", "answer 2", 0.5)]


def test_single_scores_are_preferred_over_the_source_from_the_median_on(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": f"Sentence {i}.", "completion": f"Satz {i}.", "score": float(i), "post_edit": f"Satz ( {i} ) ."}, 13)
    found = load(jsonl(tmp_path, rows), TRANSLATION)
    pairs = [*found.pairs, *found.heldout_pairs]
    assert sorted(int(p.prompt.text.split()[1][:-1]) for p in pairs) == list(range(6, 13))  # the median of 0..12 is 6
    assert all(p.rejected == p.prompt.text and p.chosen.startswith("Satz") for p in pairs)
    assert found.report["left_out"] == {"no pair: score below the median": 6}
    assert found.prompts[0].reference == found.prompts[0].text.replace("Sentence ", "Satz (").replace(".", ").")
    assert len(found.prompts) + len(found.heldout) == 13


def test_labelled_completions(tmp_path: Path) -> None:
    both = [{"prompt": "both", "completion": text, "label": label} for text, label in (("yes", True), ("no", False))]
    rows = both + repeat(lambda i: {"prompt": f"P {i}", "completion": "fine", "label": i % 2 == 0})
    found = load(jsonl(tmp_path, rows))
    pairs = {p.prompt.text: (p.chosen, p.rejected) for p in [*found.pairs, *found.heldout_pairs]}
    assert pairs["both"] == ("yes", "no")
    assert pairs["P 0"] == ("fine", "P 0")
    assert "P 1" not in pairs


# --- rows that cannot be used ---------------------------------------------------------------------


def test_unusable_rows_are_counted_by_reason(tmp_path: Path) -> None:
    good = repeat(lambda i: {"prompt": f"P {i}", "chosen": "a", "rejected": "b"})
    bad = [
        {"prompt": "x", "chosen": "same", "rejected": "same"},
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": "x", "chosen": "a"},
        {"prompt": "x", "chosen": "a", "rejected": "b", "margin": "wide"},
        {"prompt": [says("I begin and end")], "chosen": "a", "rejected": "b"},
        {"prompt": 5, "chosen": "a", "rejected": "b"},
    ]
    found = load(jsonl(tmp_path, good + bad))
    assert found.report["left_out"] == {
        "chosen and rejected are the same": 1,
        "margin is not a number": 1,
        "no prompt": 1,
        "no rejected": 1,
        "prompt is neither text nor a list of {role, content}": 1,
        "the prompt does not end with a user's turn": 1,
    }
    assert found.report["rows"] == 18
    assert found.report["pairs"] == 12


def test_scores_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": f"P {i}", "completion": "c", "score": i})
    found = load(jsonl(tmp_path, [*rows, {"prompt": "x", "completion": "c", "score": float("nan")}]))
    assert found.report["left_out"]["score is not finite"] == 1


def test_no_usable_row_is_an_error(tmp_path: Path) -> None:
    path = jsonl(tmp_path, repeat(lambda i: {"prompt": f"P {i}", "chosen": "a", "rejected": "a"}))
    with pytest.raises(DataError, match=r"none of its 12 rows can be used \(12 x chosen and rejected are the same\); accepted layouts: prompt \+ chosen"):
        load(path)


def test_duplicated_prompts_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"P {i % 15}", "chosen": f"a {i}", "rejected": "b"} for i in range(60)]
    found = load(jsonl(tmp_path, rows), heldout=5)
    assert {p.prompt.id for p in found.pairs}.isdisjoint(p.prompt.id for p in found.heldout_pairs)
    assert (len(found.prompts), len(found.heldout), len(found.pairs), len(found.heldout_pairs)) == (10, 5, 40, 20)


def test_data_rows_takes_the_same_rows_in_any_order_of_the_file(tmp_path: Path) -> None:
    rows = repeat(lambda i: {"prompt": f"P {i}", "chosen": "a", "rejected": "b"}, 60)
    one = load(jsonl(tmp_path, rows), data_rows=20)
    two = load(jsonl(tmp_path, rows[::-1], "back.jsonl"), data_rows=20)
    texts = {p.text for p in (*one.prompts, *one.heldout)}
    assert texts == {p.text for p in (*two.prompts, *two.heldout)}
    assert len(texts) == 20
    assert texts != {f"P {i}" for i in range(20)}
    assert [p.id for p in one.heldout] == [p.id for p in two.heldout]
    assert (one.report["rows"], one.report["rows_read"]) == (60, 20)


def test_unknown_columns_name_the_nearest_mapping(tmp_path: Path) -> None:
    path = jsonl(tmp_path, repeat(lambda i: {"question": "q", "answer_a": "a", "answer_b": "b"}))
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert "found columns: answer_a, answer_b, question; accepted layouts: prompt + chosen + rejected; chosen + rejected;" in message
    for words in ("rename 'question' to 'prompt'", "rename 'answer_a' to 'chosen'", "rename 'answer_b' to 'rejected'"):
        assert words in message
    assert "\n" not in message


# --- the real files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "least_prompts", "least_pairs"),
    [("chat", "preference", 1700, 1700), ("summarisation", "preference", 150, 1900), ("translation", "scored", 6000, 3000)],
)
def test_real_preference_data(name: str, layout: str, least_prompts: int, least_pairs: int) -> None:
    path = REAL / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}: the real data sets are not part of the project")
    task = tasks.find(name)
    found = load(str(path), task, heldout=64)
    assert found.report["layout"] == layout
    assert found.report["prompts"] >= least_prompts
    assert found.report["pairs"] >= least_pairs
    assert len(found.heldout) == 64
    assert {p.id for p in found.heldout}.isdisjoint(p.id for p in found.prompts)
    assert all(0.0 <= task.gold(pair.prompt, text) <= 1.0 for pair in found.pairs[:100] for text in (pair.chosen, pair.rejected))
    assert not any(p.text.endswith("TL;DR:") for p in found.prompts)
    unexpected = {reason: n for reason, n in found.report["left_out"].items() if not reason.startswith(("no pair", "chosen and rejected"))}
    assert sum(unexpected.values()) < 0.02 * found.report["rows"], unexpected


def test_gold_prefers_human_judged_translations_over_the_source() -> None:
    path = REAL / "translation.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path}: the real data sets are not part of the project")
    pairs = load(str(path), TRANSLATION, data_rows=400).pairs
    right = [TRANSLATION.gold(p.prompt, p.chosen) > TRANSLATION.gold(p.prompt, p.rejected) for p in pairs]
    assert sum(right) > 0.85 * len(right)
