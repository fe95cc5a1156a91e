"""Train: start a run with another method, seed or data file, and watch what was started."""

from __future__ import annotations

import streamlit as st

from app import launch, widgets

SECONDS = 2.0


def page() -> None:
    with widgets.title("Train", "Start a run. It is the same command that you would type, and it goes on when this page is closed."):
        st.empty()
    config = launch.configure(launch.form())
    launch.start_button(config)
    with widgets.section("Started from here"):
        st.empty()
    st.fragment(launch.job_list, run_every=SECONDS)()


page()
