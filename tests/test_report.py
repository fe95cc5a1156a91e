"""The verdicts on recordings whose answer is known, and on those that cannot have one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import evidence, forecast, geometry, report
from analysis.evidence import Alignment, Recording
from app.cli import main
from app.commands import reporting
from app.reading import recordings
from tests.fabricate import Fabricated
from tests.planted import MODULES, Kind, planted, recording

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(path.parent for path in (ROOT / "data" / "recordings").glob("*/run.json"))
TRIES = 20


@cache
def told(kind: Kind) -> list[dict[str, str]]:
    """What the report says of 20 draws: label -> answer."""
    return [{verdict.label: verdict.answer for verdict in report.report([planted(kind, seed)])} for seed in range(TRIES)]


PLANTED: list[tuple[str, Kind, str]] = [
    ("C1", "aligned", "no"),
    ("C1", "orthogonal", "yes"),
    ("C1", "policy leads", "yes"),
    ("C1", "nothing", "not enough evidence"),
    ("C2", "persistent", "yes"),
    ("C2", "orthogonal", "yes"),  # updates of one iteration share a drift
    ("C2", "nothing", "not enough evidence"),
    ("C3", "policy leads", "policy leads"),
    ("C3", "reward leads", "reward model leads"),
    ("C3", "orthogonal", "nobody leads"),
    ("C3", "nothing", "not enough evidence"),
]


@pytest.mark.parametrize(("label", "kind", "answer"), PLANTED, ids=lambda word: word)
def test_a_planted_answer_is_found_nine_times_of_ten(label: str, kind: Kind, answer: str) -> None:
    found = [answers[label] for answers in told(kind)]
    assert found.count(answer) >= 0.9 * TRIES, found


def test_updates_that_share_nothing_do_not_persist() -> None:
    random = np.random.default_rng(0)
    assert [persist(random) for _ in range(TRIES)].count("no") >= 0.9 * TRIES


def persist(random: np.random.Generator) -> str:
    made = planted("orthogonal", int(random.integers(1 << 30)), each=1, iterations=60)
    return report.persistent([evidence.persistence(made)]).answer


@pytest.mark.parametrize("answer", [lambda made: report.orthogonal([evidence.alignment(made)]), lambda made: report.persistent([evidence.persistence(made)])])
def test_a_short_run_gets_no_answer_however_clear_its_number_is(answer: Callable[[Recording], report.Verdict]) -> None:
    short, long = (answer(planted("aligned", each=each, iterations=1, strength=0.9)) for each in (2, report.FEWEST + 1))
    assert short.answer == "not enough evidence"
    assert f"from {short.count} cosine" in short.sentence
    assert np.isfinite(short.value), "the number is shown nevertheless"
    assert long.answer != "not enough evidence"


def test_what_counts_as_orthogonal_is_said_before_what_is_more_than_chance() -> None:
    coupled = report.orthogonal([evidence.alignment(planted("policy leads", seed)) for seed in range(3)])
    assert "within ±0.1, which counts as orthogonal" in coupled.sentence
    assert coupled.answer == "yes"
    assert coupled.sentence.index("±0.1") < coupled.sentence.index("than chance gives")


# --- long runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [0.0, 0.1, 0.6])
def test_correlations_of_all_lags_are_means_over_their_pairs(unknown: float) -> None:
    path = planted("persistent", 0).policy
    assert path is not None
    random, still = np.random.default_rng(0), np.ones((len(path.updates_U), 1), dtype=np.float32)
    still[3] = 0  # one update does not move
    lost_UT = random.random(path.norms_UT.shape) < unknown
    norms_UT, sketches_UTK = np.where(lost_UT, np.nan, path.norms_UT * still), np.where(lost_UT[..., None], 0, path.sketches_UTK * still[..., None])
    path = replace(path, norms_UT=norms_UT, sketches_UTK=sketches_UTK)
    lagged_LU = geometry.lagged_cosines(path, len(path.updates_U) - 1)[:, :, 0]
    means = [row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0 for row in lagged_LU]
    np.testing.assert_allclose(evidence.correlations(path), means, atol=1e-12)


def test_who_leads_needs_no_table_of_all_pairs_of_steps() -> None:
    made = planted("orthogonal", 0, each=1, iterations=2000, k=16)
    tracemalloc.start()
    assert evidence.lead(made).steps >= 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000**2 * 8, "a table of cosines alone has 32 MB"


# --- what the numbers rest on --------------------------------------------------------------------------


def test_alignment_is_the_mean_of_the_recorded_cosines_with_the_null_of_all_modules() -> None:
    made = planted("aligned", 3, iterations=4)
    found = evidence.alignment(made)
    policy, reward = made.policy, made.reward
    assert policy is not None
    assert reward is not None
    cosines = []
    for clock, own in zip(policy.clocks_U, policy.sketches_UTK, strict=True):
        other = reward.sketches_UTK[np.searchsorted(reward.clocks_U, clock) - 1]
        cosines.append(float((own * other).sum() / np.linalg.norm(own) / np.linalg.norm(other)))
    assert found.whole.value == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.whole.count == len(cosines)
    assert found.whole.chance == "recorded"
    single = (policy.spec.k * len(policy.modules_T)) ** -0.5  # of one cosine; modules are nearly equally long here
    assert single / len(cosines) ** 0.5 < found.whole.sd < single


@pytest.fixture(scope="module")
def uncoupled() -> list[Alignment]:
    """What is found in sixty recordings of roles that have nothing to do with each other."""
    return [evidence.alignment(planted("orthogonal", seed, iterations=4)) for seed in range(60)]


def test_the_chance_spread_of_a_mean_is_that_of_means_under_no_coupling(uncoupled: list[Alignment]) -> None:
    spread, told = np.std([one.whole.value for one in uncoupled]), np.median([one.whole.sd for one in uncoupled])
    assert 0.7 < told / spread < 1.4


def test_no_coupling_is_called_coupling_one_time_in_twenty(uncoupled: list[Alignment]) -> None:
    assert np.mean(np.array([one.excess_p for one in uncoupled]) < 0.05) <= 0.15


def test_a_recording_without_nulls_is_read_against_its_sketches_and_says_so() -> None:
    made = planted("orthogonal")
    old = replace(made, updates=made.updates.drop(columns=[name for name in made.updates if name.startswith("null_")]))
    found = evidence.alignment(old)
    assert found.whole.chance == "sketch"
    assert np.isnan(found.excess)
    assert reporting._chance(old).startswith("error of the sketches")


# --- degenerate recordings -----------------------------------------------------------------------------

Change = Callable[[Recording], Recording]
POOR: dict[str, Change] = {
    "no sketches": lambda r: replace(r, policy=None, reward=None),
    "policy alone": lambda r: replace(r, reward=None, updates=r.updates[r.updates["role"] == "policy"].assign(cos_other_update=np.nan)),
    "one update": lambda r: replace(r, updates=r.updates[r.updates["clock"] == 1], policy=None),
    "no rows": lambda r: replace(r, updates=r.updates[:0], policy=None, reward=None),
    "not finite": lambda r: replace(r, updates=r.updates.assign(cos_other_update=np.nan, update_norm=np.inf, cos_previous=np.nan)),
    "nothing moved": lambda r: replace(r, updates=r.updates.assign(update_norm=0.0, cos_previous=np.nan, cos_other_update=np.nan, null_other_update=np.nan)),
}


@pytest.mark.parametrize("change", POOR.values(), ids=POOR.keys())
def test_a_poor_recording_gets_words_and_no_number_that_is_not_there(change: Change) -> None:
    verdicts = report.report([change(planted("aligned", iterations=3))])
    assert [v.label for v in verdicts] == list(report.QUESTIONS)
    for verdict in verdicts:
        assert "nan" not in verdict.sentence
        assert verdict.sentence.endswith(".")
    if change is not POOR["no sketches"]:
        assert verdicts[0].answer == "not enough evidence"


# --- gains and costs -------------------------------------------------------------------------------------


def arm(method: str, seed: int, gain: float, *, seconds: float, memory: float) -> Recording:
    """A run with eight held-out prompts whose frozen reward model rises by `gain` standard deviations."""
    rows, random = [], np.random.default_rng(5)
    base = random.standard_normal(8)
    base = (base - base.mean()) / base.std(ddof=1)
    for iteration, change in ((0, 0.0), (1, gain)):
        noise = 0.02 * np.random.default_rng([seed, len(method)]).standard_normal(8) * iteration
        for prompt in range(8):
            score = base[prompt] + change + noise[prompt]
            rows.append({"iteration": iteration, "update": iteration * 4, "split": "heldout", "prompt_id": str(prompt), "gold": score / 10, "proxy": score})
    completions = pd.DataFrame(rows).assign(kl=0.5, tokens=9, finished=True)
    names = {"alarm": ("heldout", 0.0), "peak_memory": ("train", memory * 2**30), "forwards": ("train", 8.0)}
    metrics = pd.DataFrame(
        [{"iteration": 1, "update": 4, "role": "policy", "split": s, "name": n, "value": v, "seconds": seconds} for n, (s, v) in names.items()]
    )
    return replace(planted("orthogonal", iterations=2), run=f"{method}-{seed}", method=method, seed=seed, completions=completions, metrics=metrics)


def verdicts(gains: dict[str, float], *, zo_seconds: float = 100.0, zo_memory: float = 1.0) -> dict[str, report.Verdict]:
    made = [
        arm(
            method, seed, gain + 0.01 * seed, seconds=100 + seed if method == "rloo" else zo_seconds, memory=2.0 if method == "rloo" else zo_memory + seed / 1e3
        )
        for method, gain in gains.items()
        for seed in range(4)
    ]
    return {verdict.label: verdict for verdict in report.report(made)}


def test_gains_costs_and_memory_are_judged_with_their_intervals() -> None:
    found = verdicts({"zopro": 0.8, "mezo": 0.2, "extrapolate": 0.3, "rloo": 0.8})
    assert [found[label].answer for label in ("C4", "C5", "C6")] == ["yes", "yes", "yes"]
    assert found["C4"].value == pytest.approx(0.6, abs=0.1)
    assert found["C6"].value == pytest.approx(0.5, abs=0.01)
    found = verdicts({"zopro": 0.3, "mezo": 0.1, "extrapolate": 0.9, "rloo": 1.5}, zo_seconds=300, zo_memory=4.0)
    assert [found[label].answer for label in ("C4", "C5", "C6")] == ["no", "no", "no"]  # better than blind probes, but not than asking nothing
    assert found["C5"].value == pytest.approx(3, abs=0.2)
    assert found["C5"].sentence.startswith("It does not get as far")


def test_the_time_verdict_says_which_of_its_two_numbers_decided() -> None:
    slower = verdicts({"zopro": 0.8, "mezo": 0.1, "rloo": 0.8}, zo_seconds=300)["C5"]
    assert slower.answer == "no"
    assert slower.sentence.startswith("It takes longer")
    behind = verdicts({"zopro": 0.3, "mezo": 0.1, "rloo": 0.8}, zo_seconds=101.5)["C5"]
    assert behind.answer == "no"
    assert behind.interval[0] < 1 < behind.interval[1]
    assert behind.sentence.endswith("which shows no difference.")


def test_one_seed_has_no_answer_on_memory_and_says_why() -> None:
    made = [arm(method, 0, 0.5, seconds=100, memory=memory) for method, memory in (("zopro", 1.0), ("mezo", 1.0), ("rloo", 2.0))]
    leaner = {one.label: one for one in report.report(made)}["C6"]
    assert (leaner.answer, leaner.value) == ("not enough evidence", pytest.approx(0.5))
    assert leaner.sentence.endswith("Without an interval there is no answer.")


@pytest.mark.parametrize("gains", [{"zopro": 0.3}, {"zopro": 0.3, "extrapolate": 0.3}, {"mezo": 0.3, "rloo": 0.3}])
def test_without_rivals_there_is_no_verdict(gains: dict[str, float]) -> None:
    found = verdicts(gains)
    assert {found[label].answer for label in ("C4",)} == {"not enough evidence"}


# --- the forecast ----------------------------------------------------------------------------------------


def test_the_gain_is_the_ratio_of_squared_slopes() -> None:
    """A quadratic's gradient, 20,000 directions of each kind: mean squared slope along z over that along isotropic noise of the same length."""
    random, n, alpha = np.random.default_rng(0), 400, 0.8
    gradient, p = random.standard_normal((2, n))
    p = p / np.linalg.norm(p) + 0.1 * gradient / np.linalg.norm(gradient)
    rho = float(p @ gradient / np.linalg.norm(p) / np.linalg.norm(gradient))
    noise_DN = random.standard_normal((20_000, n))
    noise_DN /= np.linalg.norm(noise_DN, axis=1, keepdims=True)
    z_DN = alpha * p / np.linalg.norm(p) + (1 - alpha**2) ** 0.5 * noise_DN
    ratio = ((z_DN @ gradient) ** 2).mean() / ((noise_DN @ gradient) ** 2).mean()
    assert float(forecast.gain(rho, n, alpha)) == pytest.approx(ratio, rel=0.05)


def test_rho_is_that_of_what_the_newest_gradient_added() -> None:
    """Updates made like AdamW's first moment, 0.9 m + 0.1 g: rho is the cosine of the new part with the whole first iteration, by vectors."""
    random, k = np.random.default_rng(4), 64
    first = random.standard_normal((MODULES, k))
    gradients = [first + 0.5 * random.standard_normal((MODULES, k)) for _ in range(8)]
    moment, policy = np.zeros((MODULES, k)), []
    for number, gradient in enumerate(gradients):
        moment = 0.9 * moment + 0.1 * gradient
        policy.append((number + 2, 1 if number < 5 else 2, moment.copy()))
    reward = [(1, 0, random.standard_normal((MODULES, k))), (99, 1, random.standard_normal((MODULES, k)))]
    whole = sum(own for _, iteration, own in policy if iteration == 1)
    last, now = policy[4][2], policy[5][2]
    new = now - (now * last).sum() / (last * last).sum() * last
    expected = float((new * whole).sum() / np.linalg.norm(new) / np.linalg.norm(whole))
    found = forecast.forecast(recording({"policy": policy, "reward": reward}, k))
    assert found.whole["rho"] == pytest.approx(expected, abs=1e-6)
    assert list(found.rows["layer"]) == ["0", "1", "2"]


def test_alpha_is_suggested_only_where_the_recording_can_tell() -> None:
    strong = forecast.forecast(planted("persistent", strength=0.9))
    assert forecast.suggested_alpha(strong) == forecast.ALPHA
    assert strong.whole["low"] > 1
    weak = [forecast.suggested_alpha(forecast.forecast(planted("orthogonal", seed, k=4))) for seed in range(8)]
    assert np.mean(np.isnan(weak)) > 0.5
    none = forecast.forecast(planted("orthogonal", iterations=1))
    assert none.reason
    assert np.isnan(forecast.suggested_alpha(none))


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", SHIPPED, ids=lambda path: path.name)
def test_shipped_recordings_are_reported_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in told["verdicts"]] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert told["verdicts"][1]["answer"] == "yes"


def test_a_comparison_is_reported_on_as_a_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(ROOT / "data" / "recordings" / "comparison"), "--out", str(tmp_path / "o")]) == 0
    text = capsys.readouterr().out
    assert all(f"{label} " in text for label in report.QUESTIONS)
    assert text.startswith("25 runs: zopro: 5 seeds, mezo: 5 seeds, extrapolate: 5 seeds, rloo: 5 seeds, zopro_adaptive: 5 seeds\n")
    assert "zopro-s0" not in text
    assert "Recorded before nulls" not in text, "where there are no cosines, nothing can be wrong with their chance"
    told = json.loads((tmp_path / "o" / "report.json").read_text())
    by = {row["label"]: row for row in told["verdicts"]}
    shipped = json.loads((ROOT / "data" / "recordings" / "comparison" / "comparison.json").read_text())["methods"]
    for row, expected in zip(told["methods"], shipped, strict=True):
        assert (row["method"], row["forwards"]) == (expected["method"], expected["forwards"])
        assert row["proxy"]["student"] == pytest.approx(expected["proxy"]["student"])
        assert f"{expected['gold']['mean']:+.3f} [{expected['gold']['student'][0]:+.3f}, " in text
    assert by["C6"]["answer"] == "yes"
    assert by["C6"]["value"] < 1
    assert by["C5"]["answer"] == "no"  # first order gains more, which is the one claim that was shown
    assert sorted(path.name for path in (tmp_path / "o").glob("*.pdf")) == ["arm_differences.pdf", "arms.pdf"]


def test_runs_that_are_no_comparison_are_named_once_and_have_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [Fabricated(tmp_path / name, method=name, layers=1, k=8, updates_each=2).whole(1) for name in ("rloo", "ppo")]
    assert main(["report", *map(str, runs)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 runs: rloo, ppo\n")
    assert "peak memory" not in text


def test_a_report_brings_the_figures_behind_it(tmp_path: Path) -> None:
    run = Fabricated(tmp_path / "run", layers=2, k=16, updates_each=4).whole(2)
    assert main(["report", str(run), "--out", str(tmp_path / "o")]) == 0
    made = {path.name for path in (tmp_path / "o").glob("*.pdf")}
    assert {"run-alignment_curve.pdf", "run-module_coupling.pdf", "run-persistence_lags.pdf"} <= made
    assert all(path.read_bytes().startswith(b"%PDF") for path in (tmp_path / "o").glob("*.pdf"))


def test_bad_words_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no such run" in capsys.readouterr().err
    assert main(["report", "nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_seeds_of_one_configuration_are_one_group(tmp_path: Path) -> None:
    runs = [Fabricated(tmp_path / f"r{seed}", seed=seed, layers=1, k=8, updates_each=2).whole(1) for seed in (0, 1)]
    other = Fabricated(tmp_path / "other", method="dpo", layers=1, k=8, updates_each=2).whole(1)
    groups = [recordings.load(path).group for path in (*runs, other)]
    assert groups[0] == groups[1] != groups[2]
