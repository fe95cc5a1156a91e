"""Gold scores must be meaningful, must vary, and must not be won by repetition, shuffled words or copying.

The yardstick is what the bundled model writes before training: 60 prompts of each task, two samples of
each, recorded in data/base_completions.jsonl, so that these tests load no model.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, pstdev, quantiles

import pytest

from interplay import data, tasks
from interplay.errors import ConfigError
from interplay.tasks import Prompt, _text
from interplay.tasks._english import ENGLISH
from interplay.tasks._german import GERMAN, germanness

NAMES = ("chat", "summarisation", "translation")

GOOD = {
    "chat-004": "No, rice left out overnight can grow bacteria that make you ill.",
    "chat-020": "Rain smells of wet earth, cool stone and fresh leaves, as if the world had just been washed.",
    "chat-036": "There are seven continents, and Australia is the smallest.",
    "chat-068": "No, goldfish can remember food and faces for months.",
    "chat-084": "In autumn the leaves lose their green pigment, so the yellow and red colours underneath appear.",
    "chat-100": "People yawn together because the brain copies what it sees in others, a sign of empathy.",
    "chat-116": "Sharks kill only a few people each year, and most bites are mistakes.",
    "chat-148": "The longest bone in the body is the femur, which runs through the thigh.",
    "chat-180": "Let your breath out below the scarf, or rub a little soap on the glasses so that they do not fog.",
    "chat-212": "Jazz gets easier when you begin with calm songs such as those on Kind of Blue.",
    "summarisation-003": "Sponges are simple animals that feed by filtering bacteria from sea water, and this keeps reefs clear.",
    "summarisation-019": "My parents want me to pay towards their debt for my sister's failed restaurant, and my father is angry.",
    "summarisation-035": "The staff meeting ended early, but the late shift will begin at one on trial until New Year.",
    "summarisation-051": "A goose that bit visitors may stay in the town hall car park after thousands signed a petition.",
    "summarisation-067": "The pan was perfect for half a year, but the dishwasher ruined it because it is hand wash only.",
    "summarisation-083": "A widow asks the town not to play music in the quiet botanical garden.",
    "summarisation-099": "The Halden backpack is excellent, but the grey fabric shows marks, so get the black one.",
    "summarisation-115": "Parents will guard the Fenn Road crossing until Easter, and the head will write to the council about it.",
    "summarisation-131": "The museum stays free for children, while adults will pay four pounds and the gift shop goes to an outside firm.",
    "summarisation-147": "A lamp in Dray that switched on at noon is off until spring because dormice sleep against its sensor.",
    "translation-122": "Julia ist mit ihren zwei Töchtern in die Schweiz gezogen.",
    "translation-012": "Sie war so müde, dass sie auf dem Sofa eingeschlafen ist.",
    "translation-124": "Ist es wahr, dass der Laden um acht schließt?",
    "translation-014": "Wasser gefriert bei null Grad und kocht bei einhundert Grad.",
    "translation-126": "Wir haben zwei Pizzas und einen großen Salat bestellt.",
    "translation-016": "Obwohl er krank war, ist Peter heute zur Arbeit gegangen.",
    "translation-018": "Am Sonntag retteten Feuerwehrleute einen Hund aus dem eisigen Fluss.",
    "translation-130": "Er hat mich gefragt, ob ich ihm zehn Euro leihen könnte.",
    "translation-020": "Wenn am Wochenende die Sonne scheint, können die Kinder im See baden.",
    "translation-132": "Lachen ist gesund und kostet gar nichts.",
}


@cache
def prompts(name: str) -> dict[str, Prompt]:
    return {prompt.id: prompt for prompt in data.own_prompts(tasks.find(name))}


@cache
def base(name: str) -> tuple[tuple[Prompt, str, bool], ...]:
    lines = (Path(__file__).parent / "data" / "base_completions.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    rows = [row for row in map(json.loads, lines) if row["task"] == name]
    return tuple((prompts(name)[row["prompt_id"]], row["completion"], row["finished"]) for row in rows)


@cache
def base_scores(name: str) -> tuple[float, ...]:
    return tuple(tasks.find(name).gold(prompt, text) for prompt, text, _ in base(name))


def good(name: str) -> list[tuple[Prompt, str]]:
    return [(prompts(name)[key], text) for key, text in GOOD.items() if key.startswith(name)]


def shuffles(text: str, seeds: int) -> Iterator[str]:
    """Shuffled words: once with case and punctuation left on them, once as a neat sentence."""
    for seed in range(seeds):
        rng = random.Random(seed)
        kept = text.split()
        rng.shuffle(kept)
        yield " ".join(kept)
        neat = [word.strip(".,!?;:\"'").lower() for word in text.split()]
        rng.shuffle(neat)
        joined = " ".join(neat)
        yield joined[:1].upper() + joined[1:] + "."


# --- cannot be won --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("joint", [" ", ". ", ", ", "! ", "\n"])
def test_one_repeated_word_scores_below_the_base_median(name: str, joint: str) -> None:
    task, line = tasks.find(name), median(base_scores(name))
    for prompt in list(prompts(name).values())[::30]:
        frequent = prompt.text.replace(",", "").replace(".", "").split()[:6]
        for word in [*frequent, *(w.capitalize() for w in frequent), "Paris", "yes", "the", "gut", "Haus", "und"]:
            for count in (1, 2, 3, 5, 12, 24):
                for end in ("", "."):
                    assert task.gold(prompt, joint.join([word] * count) + end) < line, (prompt.id, word, count)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("phrase", ["the cat is", "very good", "the main point of the text", "das ist gut"])
def test_a_repeated_phrase_scores_below_the_base_median(name: str, phrase: str) -> None:
    task, line = tasks.find(name), median(base_scores(name))
    for prompt in list(prompts(name).values())[::20]:
        for count in (3, 5, 8):
            text = " ".join([phrase] * count).capitalize() + "."
            assert task.gold(prompt, text) < line, (prompt.id, text)


@pytest.mark.parametrize("name", NAMES)
def test_shuffled_words_score_below_the_base_median(name: str) -> None:
    """Every text's shuffles lie below it on average and in the middle, and 19 of 20 single shuffles do.

    Not all of them can: a shuffle is a sentence now and then, and nobody can tell.
    """
    task, line = tasks.find(name), median(base_scores(name))
    references = [(prompt, prompt.reference) for prompt in prompts(name).values() if prompt.reference]
    singles: list[float] = []
    for prompt, text in [*good(name), *((p, t) for p, t, _ in base(name)), *references[::3]]:
        if len(text.split()) < 6:
            continue
        scores = [task.gold(prompt, shuffled) for shuffled in shuffles(text, seeds=6)]
        assert mean(scores) < line, (prompt.id, text)
        assert median(scores) < line, (prompt.id, text)
        singles += scores
    assert mean(score < line for score in singles) >= 0.95


@pytest.mark.parametrize("name", NAMES)
def test_shuffling_a_good_answer_costs_most_of_its_score(name: str) -> None:
    task = tasks.find(name)
    for prompt, text in good(name):
        assert mean(task.gold(prompt, shuffled) for shuffled in shuffles(text, seeds=10)) < 0.25 * task.gold(prompt, text), text


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_prompt_scores_below_the_base_median(name: str) -> None:
    task, line = tasks.find(name), median(base_scores(name))
    for prompt in prompts(name).values():
        first = prompt.text.split(". ")[0].rstrip(".?!")
        for copy in (prompt.text, prompt.text.rstrip(".?!") + ".", first, first + ".", first.capitalize() + ".", f"{prompt.text} {prompt.text}"):
            assert task.gold(prompt, copy) < line, copy


@pytest.mark.parametrize("name", NAMES)
def test_other_cheap_texts_score_below_the_base_median(name: str) -> None:
    task, line = tasks.find(name), median(base_scores(name))
    for prompt in list(prompts(name).values())[::10]:
        nouns = ENGLISH.content(_text.words(prompt.text))
        for text in (
            " ".join(nouns[:8]).capitalize() + ".",
            ". ".join(w.capitalize() for w in nouns[:6]) + ".",
            "...",
            "?",
            "\n",
            "🙂 🙂 🙂",
            "1 2 3 4 5 6 7 8.",
        ):
            assert task.gold(prompt, text) < line, text


def test_the_example_of_the_translation_request_is_no_translation() -> None:
    """The conversation shows one German sentence; repeating it must not pay more than any other German sentence."""
    task = tasks.find("translation")
    shown = next(m["content"] for m in task.messages("x") if m["role"] == "assistant")
    copied = [task.gold(prompt, shown) for prompt in prompts("translation").values()]
    true = [task.gold(prompt, prompt.reference or "") for prompt in prompts("translation").values()]
    assert median(copied) < 0.5 < 0.9 < median(true)


# --- worth winning --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_good_answers_score_above_three_quarters_of_the_base(name: str) -> None:
    third_quartile = quantiles(base_scores(name), n=4)[2]
    assert len(good(name)) == 10
    for prompt, text in good(name):
        assert tasks.find(name).gold(prompt, text) > third_quartile, (prompt.text, text)


@pytest.mark.parametrize("name", NAMES)
def test_two_samples_of_a_prompt_differ(name: str) -> None:
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for (prompt, _, _), score in zip(base(name), base_scores(name), strict=True):
        by_prompt[prompt.id].append(score)
    assert mean(abs(first - second) > 0.01 for first, second in by_prompt.values()) > 0.6
    assert pstdev(base_scores(name)) >= 0.08
    assert 0.1 < median(base_scores(name)) < 0.7  # room below for the bad, above for training


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_loses_but_is_not_zero(name: str) -> None:
    task = tasks.find(name)
    for prompt, text in good(name):
        cut = " ".join(text.rstrip(".?!").split()[:-1])
        assert 0.0 < task.gold(prompt, cut) < task.gold(prompt, text), cut


def test_hollow_and_off_topic_replies_lose() -> None:
    task, prompt = tasks.find("chat"), prompts("chat")["chat-148"]
    best = task.gold(prompt, GOOD["chat-148"])
    assert task.gold(prompt, "Great question, I would be happy to tell you about the longest bone in the body today.") < best
    assert task.gold(prompt, "My sister went to the market and bought a basket of ripe pears.") < best - 0.2
    assert task.gold(prompt, "Femur.") < 0.5 * best


def test_a_summary_of_another_passage_loses() -> None:
    task = tasks.find("summarisation")
    own = good("summarisation")
    for (prompt, text), (other, _) in zip(own, own[1:] + own[:1], strict=True):
        assert task.gold(other, text) < task.gold(prompt, text) - 0.2


def test_talking_about_the_text_is_no_summary() -> None:
    task, prompt = tasks.find("summarisation"), prompts("summarisation")["summarisation-147"]
    assert task.gold(prompt, "This text explores a touching story about animals and the people who care for them.") < median(base_scores("summarisation"))


def test_a_translation_of_another_sentence_loses() -> None:
    task, rows = tasks.find("translation"), list(prompts("translation").values())
    gaps = [task.gold(a, a.reference or "") - task.gold(a, b.reference or "") for a, b in pairwise(rows)]
    assert mean(gap > 0 for gap in gaps) > 0.9
    assert median(gaps) > 0.5


def test_translation_without_a_reference_still_refuses_english() -> None:
    task = tasks.find("translation")
    for prompt in list(prompts("translation").values())[::10]:
        bare = Prompt(prompt.id, prompt.text, prompt.messages)
        assert task.gold(bare, prompt.text) == 0.0
        assert task.gold(bare, "They went home because it was getting late and cold.") == 0.0


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gold_is_a_number_from_0_to_1_and_the_same_each_time(name: str) -> None:
    task = tasks.find(name)
    for prompt, text, _ in base(name):
        score = task.gold(prompt, text)
        assert 0.0 <= score <= 1.0
        assert score == task.gold(prompt, text)
    prompt = base(name)[0][0]
    assert [task.gold(prompt, text) for text in ("", " ", "\n", ".", "!?", "\u0000", "，。")] == [0.0] * 7


@pytest.mark.parametrize("name", NAMES)
def test_gold_is_fast(name: str) -> None:
    task, rows = tasks.find(name), base(name)
    task.gold(rows[0][0], rows[0][1])  # builds tables once
    start = time.process_time()
    for prompt, text, _ in rows:
        task.gold(prompt, text)
    assert (time.process_time() - start) / len(rows) < 0.005  # about 0.2 to 1 ms on the machine that wrote this


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_of_a_task_shows_its_formula(name: str) -> None:
    assert "gold = " in (type(tasks.find(name)).__doc__ or "")


@pytest.mark.parametrize("name", NAMES)
def test_the_scores_in_the_docstring_are_true(name: str) -> None:
    """`label   text   (0.4)` below the source: the text must score 0.4."""
    task = tasks.find(name)
    doc = sys.modules[type(task).__module__].__doc__ or ""
    source = re.split(r"\s{2,}", doc.splitlines()[2].strip(), maxsplit=1)[1]
    prompt = next(p for p in prompts(name).values() if p.text.startswith(source))
    examples = re.findall(r"^ *\w+(?: \w+)?\s{2,}(\S.*?)\s+\((\d\.\d)\)$", doc, re.MULTILINE)
    assert len(examples) >= 2
    for text, shown in examples:
        assert task.gold(prompt, text) == pytest.approx(float(shown), abs=0.051), text


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    assert tasks.names() == sorted(NAMES)
    with pytest.raises(ConfigError, match=r"--task is 'chatt'; allowed: chat, summarisation, translation; did you mean 'chat'\?"):
        tasks.find("chatt")


def test_messages_begin_with_a_short_system_message_and_end_with_the_source() -> None:
    for name in NAMES:
        messages = tasks.find(name).messages("A source text.")
        assert messages[0]["role"] == "system"
        assert len(messages[0]["content"].split()) <= 12
        assert messages[-1]["role"] == "user"
        assert "A source text." in messages[-1]["content"]


def test_the_source_of_a_reddit_post_loses_its_labels() -> None:
    source = tasks.find("summarisation").source("SUBREDDIT: r/tifu\nTITLE: I lost my keys\nPOST: They were in the fridge.\n\nTL;DR:")
    assert source == "I lost my keys\nThey were in the fridge."


# --- the measures, by hand ------------------------------------------------------------------------


def test_measures_against_values_worked_out_by_hand() -> None:
    assert _text.ramp(3, 2, 4) == 0.5
    assert _text.words("It's 3.5 km, isn’t it?") == ["It's", "3.5", "km", "isn’t", "it"]
    assert _text.longest_run(list("abcdx"), list("zbcdy")) == 3
    assert _text.distinct(["Paris"] * 3) == 0.0
    assert _text.distinct(list("abcd")) == 1.0
    assert _text.fresh(list("abcdefghijkl"), list("abcdefghijkl"), 6) == 0.0
    assert _text.fresh(list("abcdefghijkl"), list("ABCDEFzzz"), 6) == 1.0
    assert _text.finished("It rains.") == 1.0
    assert _text.finished("It rains. And then the") == pytest.approx(0.5 * 3 / 6)  # three of six tokens: It, rains, full stop
    assert _text.stem("stopped") == _text.stem("stops") == "stop"
    assert germanness(["the", "house"]) == 0.0
    assert germanness(_text.words("Die Katze schläft im Garten.")) == 1.0


def test_order_tells_sentences_from_shuffled_ones() -> None:
    for grammar, texts in ((ENGLISH, [t for n in NAMES[:2] for _, t in good(n)]), (GERMAN, [t for _, t in good("translation")])):
        whole = [grammar.order(text) for text in texts]
        mixed = [grammar.order(shuffled) for text in texts for shuffled in shuffles(text, seeds=5)]
        assert mean(whole) > 0.75
        assert mean(mixed) < 0.15
