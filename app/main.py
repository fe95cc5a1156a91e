"""The dashboard's frame: which pages there are. Everything else is in `app/pages`."""

from __future__ import annotations

import functools
import gc
from pathlib import Path

import streamlit as st

from app.parts import canvas

#: Two paths that part and come close again. Drawn here, because Streamlit fetches icon names and emoji from the network.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke-width="4" stroke-linecap="round">'
    '<path d="M4 26C10 4 20 4 28 12" stroke="#4477AA"/><path d="M4 26C14 30 20 26 28 20" stroke="#EE6677"/></svg>'
)
_PAGES = Path(__file__).with_name("pages")


def run() -> None:
    """Show the page that the URL names."""
    st.set_page_config(page_title="Interplay", page_icon=_ICON, layout="wide", initial_sidebar_state="auto")
    runs = st.Page(_PAGES / "runs.py", title="Runs", icon=":material/list:", url_path="home", default=True)

    def same() -> None:
        st.switch_page(runs, query_params={name: st.query_params.get_all(name) for name in st.query_params})

    pages = [
        runs,
        st.Page(same, title="Runs", url_path="runs", visibility="hidden"),  # the first page has no address of its own but /
        st.Page(_PAGES / "replay.py", title="Replay", icon=":material/play_circle:", url_path="replay"),
        st.Page(_PAGES / "interplay.py", title="Interplay", icon=":material/compare_arrows:", url_path="interplay"),
        st.Page(_PAGES / "train.py", title="Train", icon=":material/model_training:", url_path="train"),
        st.Page(_PAGES / "compare.py", title="Compare", icon=":material/balance:", url_path="compare"),
        st.Page(_PAGES / "export.py", title="Export", icon=":material/ios_share:", url_path="export"),
    ]
    page = st.navigation(pages, position="top")
    canvas.ready()
    page.run()
    _spare(page.title)


@functools.cache
def _spare(page: str) -> None:  # noqa: ARG001 - once for each page, when its imports have been made
    """Leave what is imported by now out of garbage collection: Streamlit collects after every run, and searching all modules took it 0.1 s."""
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    run()
