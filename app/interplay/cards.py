"""The verdicts as cards, and the forecast of what sampling along the previous update may gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import streamlit as st

from analysis import explain, screen, verdicts
from analysis.explain import Explanation
from analysis.report import Verdict
from analysis.verdicts import Claim
from app.parts import canvas, widgets
from app.reading.reported import Told, Worth

#: Icon and colour of each answer: neither alone.
ANSWERS: dict[str, tuple[str, Any]] = {
    "yes": (":material/check_circle:", "green"),
    "no": (":material/cancel:", "orange"),
    "not enough evidence": (":material/help:", "gray"),
    "policy leads": (":material/arrow_forward:", "blue"),
    "reward model leads": (":material/arrow_back:", "blue"),
    "nobody leads": (":material/drag_handle:", "gray"),
}
#: Runs whose forecast is shown by layer.
MOST_FORECASTS = 5


def show(told: Told) -> None:
    """One card for each verdict; comparisons that are missing share a line."""
    missing = [one for one in told.verdicts if one.label in ("C4", "C5", "C6") and not np.isfinite(one.value)]
    shown = [one for one in told.verdicts if one not in missing]
    for start in range(0, len(shown), 3):
        for place, one in zip(st.columns(3, gap="small"), shown[start : start + 3], strict=False):
            with place, st.container(border=True, height="stretch", gap="xsmall"):
                _card(one)
    if missing:
        labels, why = ", ".join(one.label for one in missing), " ".join(dict.fromkeys(one.sentence for one in missing))
        st.caption(widgets.escape(f"{labels} (what ZOPrO's sampling gains, what time it takes, what memory it saves) need a comparison. {why}"))
    for line in told.cautions:
        st.caption(f":material/warning: {widgets.escape(line)}")


def _card(one: Verdict) -> None:
    icon, colour = ANSWERS[one.answer]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(one.answer, icon=icon, color=colour)
        st.space("stretch")
        with st.popover("How", type="tertiary", help="how it is decided, and when it misleads"):
            explained(explain.CLAIMS[one.label])
    st.markdown(f"**{one.label}** {widgets.escape(one.question)}")
    if np.isfinite(one.value):
        _strip(one)
    st.caption(widgets.escape(one.sentence))


def _strip(one: Verdict) -> None:
    """The number with its interval, above what there would be if there were nothing."""
    spec = verdicts.picture([one], cast(Claim, one.label), [])
    chart = screen.draw(spec, height=86).update_layout(showlegend=False, margin={"t": 4, "b": 4, "l": 4, "r": 14})
    chart.update_xaxes(title=None, nticks=6).update_yaxes(title=None)
    canvas.show(chart, f"strip-{one.label}", screen.CONFIG | {"displayModeBar": False}, spec.alt)


def forecasts(worths: Sequence[Worth]) -> None:
    """What the previous update may be worth as a direction: the whole in a sentence, layers as a table."""
    with st.expander("Forecast: what sampling along the previous update may gain", icon=":material/insights:"):
        st.caption(widgets.escape(explain.FORECAST.what))
        told = [one for one in worths if one.forecast.whole]
        for one in told[:MOST_FORECASTS]:
            _forecast(one)
        for reason in dict.fromkeys(one.forecast.reason for one in worths if not one.forecast.whole):
            st.text(f"None for {sum(one.forecast.reason == reason for one in worths)} of {len(worths)} runs: {reason}.")
        if len(told) > MOST_FORECASTS:
            st.text(f"Shown: {MOST_FORECASTS} of {len(told)} runs.")
        how(explain.FORECAST)


def _forecast(one: Worth) -> None:
    whole, rows = one.forecast.whole, one.forecast.rows
    start = f"an alpha to begin with: {one.alpha:g}" if np.isfinite(one.alpha) else "the recording cannot tell an alpha to begin with"
    measured = f"; measured {one.measured.low:.3g} to {one.measured.high:.3g}" if one.measured else ""
    size = f"{whole['gain']:.3g} [{whole['low']:.3g}, {whole['high']:.3g}] times that of isotropic sampling"
    st.text(f"{one.run}: squared slope {size} (ρ {whole['rho']:+.4f}, alpha {one.forecast.alpha}){measured}; {start}.")
    form: dict[str, Any] = {name: st.column_config.NumberColumn(format="%.1f") for name in ("gain", "low", "high")}
    form |= {"rho": st.column_config.NumberColumn("ρ", format="%+.3f"), "sd": st.column_config.NumberColumn("chance SD", format="%.3f")}
    shown = rows[["layer", "rho", "sd", "gain", "low", "high"]]
    st.dataframe(shown, column_config=form, hide_index=True, width="content", height=245, alt=f"Forecast of {one.run} by layer")


def how(told: Explanation, caption: str = "") -> None:
    """What stands behind a figure, on demand."""
    with st.popover("How, and when it misleads", icon=":material/info:", type="tertiary"):
        explained(told)
        if caption:
            st.caption("Caption for a paper")
            st.text(caption)


def explained(told: Explanation) -> None:
    """Formula and warning, as far as they are written."""
    for heading, text in (("How it is computed", told.formula), ("When it misleads", told.misleads)):
        if text:
            st.caption(heading)
            st.text(text)
