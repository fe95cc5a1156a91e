"""Train: describe a run, see what it would read and need, start it, and watch what was started."""

from __future__ import annotations

import streamlit as st

from app.parts import widgets
from app.reading import catalogue
from app.train import form, launch, started

SECONDS = 2.0


def page() -> None:
    with widgets.title("Train", "Choose, look, start. It is the same command that you would type, and it goes on when this page is closed."):
        st.empty()
    form.note()
    with st.spinner("Asking the engine for its methods"):
        methods = catalogue.methods()
    first, middle, rest = st.container(), st.container(), st.container()
    filled = form.show(methods, launch.upload_button, first, rest)
    order = launch.order(filled)
    with middle:
        needs, data = launch.foresee(order), launch.look(order)
        launch.start_row(order, needs, launch.unusable(order, data))
        launch.details(order, needs, data)
    with widgets.section("Started from here"):
        st.empty()
    st.fragment(started.show, run_every=SECONDS)()


page()
