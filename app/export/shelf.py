"""The Streamlit parts of the Export page: sizes, figures of the basket with their previews and settings, and what can be downloaded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis import recipes, screen, venues
from analysis.recipes import Setting
from app.export import anonymous, basket, export, wanted
from app.export.export import Panel, Size
from app.export.wanted import Item
from app.parts import widgets
from app.reading import loading
from app.reading.recorded import Recorded
from interplay.errors import InterplayError
from interplay.records import STREAMS

_NAMES = {"acl": "ACL", "icml": "ICML", "neurips": "NeurIPS", "iclr": "ICLR", "aaai": "AAAI", "cvpr": "CVPR", "tmlr": "TMLR"}
_PIXELS = 96  # of a browser, in one inch
_FORMATS = {
    "pdf": ("PDF", "application/pdf"),
    "svg": ("SVG", "image/svg+xml"),
    "png": ("PNG", "image/png"),
    "html": ("HTML", "text/html"),
    "csv": ("CSV", "text/csv"),
    "tex": ("LaTeX", "text/x-tex"),
    "json": ("JSON", "application/json"),
}
_ITS_OWN = "as recorded"
_BLIND = "takes user and host names, paths, addresses and tokens out of all files, and puts a report of the search into the zip"
_MOST_TOLD = 6  # runs that a card names; README.txt names all


def count() -> None:
    """How many figures lie in the basket, and a way to empty it."""
    number = len(basket.held())
    if number:
        with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
            st.text(f"{number} figure{'' if number == 1 else 's'}", width="content")
            st.button("Empty the basket", icon=":material/delete:", key="clear", type="tertiary", on_click=basket.clear)


def choose() -> tuple[Size, bool]:
    """Venue, width and height for all figures that have none of their own, and whether the files must not tell who made them."""
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            name = st.selectbox(
                "Venue",
                list(venues.VENUES),
                index=list(venues.VENUES).index(Size.venue),
                key="venue",
                bind="query-params",
                format_func=lambda word: _NAMES.get(word, word),
                width=160,
            )
            venue = venues.find(name or Size.venue)
            width = widgets.choice("Width", venues.WIDTHS, "width")
            height = st.number_input("Height (inches)", *wanted.HEIGHTS, None, 0.1, key="height", bind="query-params", placeholder="what suits", width=170)
            blind = st.toggle("Anonymous, for double-blind review", key="anonymous", bind="query-params", help=_BLIND)
        wide = " and ".join(f"{word} {venue.inches(word):.2f} in" for word in venues.WIDTHS)
        letters = f"letters of {venue.small} to {venue.label} pt beside text of {venue.body} pt"
        st.caption(widgets.escape(f"{_NAMES.get(venue.name, venue.name)}: {wide}, {letters}. Source: {venue.source}."))
    return Size(venue.name, "text" if width == "text" else "column", height), blind


# --- adding a figure ---------------------------------------------------------------------------


def add_figure() -> None:
    """Any figure by its name, of any runs."""
    with st.expander("Add a figure", icon=":material/add:", expanded=not basket.held(), key="adding"):
        name = recipes.find(str(st.selectbox("Figure", [name.replace("_", "-") for name in recipes.names()], key="add-figure", bind="query-params")))
        st.caption(widgets.escape(recipes.about(name)))
        names = _pick_runs(recipes.several(name))
        st.button("Add to the basket", icon=":material/bookmark_add:", key="add", on_click=_add, args=(name, names), disabled=not names)
        for line in st.session_state.pop("_not_added", ()):
            st.error(widgets.escape(line))


def _pick_runs(many: bool) -> list[str]:
    options = wanted.choices(many=many)
    if many:
        return list(
            st.multiselect("Runs and comparisons", options, key="of", bind="query-params", placeholder="one or several; a comparison is its finished rows")
        )
    picked = st.selectbox("Run", options, index=None, key="of-run", bind="query-params", placeholder="this figure shows one run")
    return [picked] if picked else []


def _add(name: str, names: Sequence[str]) -> None:
    try:
        recordings = [one for word in names for one in wanted.expand(word)]
    except InterplayError as reason:
        st.session_state["_not_added"] = [str(reason)]
        return
    if not basket.put(Item.of(name, recordings, {})):
        st.session_state["_not_added"] = [f"This figure is in the basket already, or the basket holds {wanted.MOST} figures."]


# --- the figures -------------------------------------------------------------------------------


def place() -> DeltaGenerator:
    """Room above the figures for what is known only when they are drawn."""
    return st.container()


def cards(size: Size, blind: bool) -> list[tuple[Panel, list[Recorded]]]:
    """All figures of the basket in their order; returns those that can be drawn, with their runs."""
    if not basket.held():
        widgets.nothing("The basket is empty. Figures on the other pages have a button that puts them here; or add one above.")
    found = [_card(number, place, item, size, blind) for place, (number, item) in enumerate(list(basket.held().items()), 1)]
    return [one for one in found if one is not None]


def _card(number: int, place: int, item: Item, size: Size, blind: bool) -> tuple[Panel, list[Recorded]] | None:
    """One figure as it will be printed, with its settings and files; None if it cannot be drawn."""
    with st.container(border=True, key=f"card-{number}"):
        try:
            recordings = item.recordings()
            panel = _panel(item, recordings)
            picture = _picture(panel, size.of(item), _versions(recordings))
        except (InterplayError, ValueError) as reason:
            _head(number, place, item.figure.replace("_", " "))
            widgets.nothing(f"{reason}.")
            _settings(number, item, size)
            return None
        _head(number, place, panel.spec.title)
        with st.container(horizontal=True, gap="large"):
            _show(panel, picture, size.of(item))
            with st.container(width="stretch"):
                _caption(panel)
                _settings(number, item, size)
                _downloads(number, panel, size, recordings if blind else None)
        return panel, recordings


def _head(number: int, place: int, title: str) -> None:
    """Number and title, with buttons that move the figure and take it out."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xxsmall"):
        st.markdown(f"**{place}\\. {widgets.escape(title)}**", width="stretch")
        last = place == len(basket.held())
        for icon, word, places, off in (("arrow_upward", "up", -1, place == 1), ("arrow_downward", "down", 1, last)):
            st.button(
                "",
                icon=f":material/{icon}:",
                key=f"{word}-{number}",
                type="tertiary",
                help=f"move {word}",
                disabled=off,
                on_click=basket.move,
                args=(number, places),
            )
        st.button("", icon=":material/close:", key=f"remove-{number}", type="tertiary", help="take out of the basket", on_click=basket.remove, args=(number,))


def _show(panel: Panel, picture: bytes, size: Size) -> None:
    """The picture at the size in which it will be printed."""
    inches = venues.find(size.venue).inches(size.width)
    with st.container(width=round(inches * _PIXELS)):
        st.image(picture, width=round(inches * _PIXELS), alt=panel.spec.alt)


def _caption(panel: Panel) -> None:
    runs = panel.spec.runs
    told = f"Runs: {', '.join(runs)}" if len(runs) <= _MOST_TOLD else f"{len(runs)} runs"
    st.caption(widgets.escape(f"{screen.caption(panel.spec)} n = {panel.spec.n}. {told}."))


def _versions(recordings: Sequence[Recorded]) -> tuple[Any, ...]:
    return tuple(one.version(STREAMS) for one in recordings)


def _panel(item: Item, recordings: Sequence[Recorded]) -> Panel:
    """Made anew when a file of its runs has changed."""
    key = f"export {item.figure} {item.runs} {item.settings} {item.width} {item.height}"
    return cast(Panel, widgets.memo(key, _versions(recordings), lambda: export.wanted(item, recordings)))


def _picture(panel: Panel, size: Size, versions: tuple[Any, ...]) -> bytes:
    return _drawn(panel, size, str((panel.item, size, versions)))


@st.cache_data(max_entries=128, show_spinner=False)
def _drawn(_panel: Panel, _size: Size, key: str) -> bytes:  # noqa: ARG001 - the key alone says which picture it is
    return export.content(_panel, "png", _size)


# --- settings of one figure --------------------------------------------------------------------


def _settings(number: int, item: Item, size: Size) -> None:
    """What a figure leaves open, and a width and a height of its own."""
    with st.popover("Settings", icon=":material/tune:", key=f"settings-{number}"):
        known = recipes.settings(item.figure)
        now = dict(item.settings)
        width, height = _own_size(number, item, size)
        words = {name: _setting(number, one, now.get(name, "")) for name, one in known.items()}
        chosen = tuple(sorted((name, word) for name, word in words.items() if word and word != wanted.word_of(known[name].default)))
        if (chosen, width, height) != (item.settings, item.width, item.height):
            _change(number, item.figure, chosen, width, height)


def _change(number: int, figure: str, settings: tuple[tuple[str, str], ...], width: str, height: float) -> None:
    try:
        recipes.read_settings(figure, dict(settings))
    except InterplayError as reason:
        st.error(widgets.escape(reason))
        return
    basket.change(number, settings=settings, width=width, height=height)
    st.rerun()


def _setting(number: int, one: Setting, now: str) -> str:
    """One control; the value as it is typed, empty for the figure's own choice."""
    key, label, usual = f"set-{number}-{one.name}", one.name.replace("_", " "), wanted.word_of(one.default)
    if one.kind is bool:
        return wanted.word_of(st.toggle(label, value=(now or usual) == "true", key=key))
    options = [str(choice) for choice in one.choices]
    if options and one.many:
        return ",".join(st.pills(label, options, selection_mode="multi", default=[word for word in now.split(",") if word in options], key=key))
    if options:
        shown = now or usual
        picked = st.selectbox(label, options, index=options.index(shown) if shown in options else None, key=key, placeholder=_ITS_OWN)
        return picked or ""
    return st.text_input(label, value=now, key=key, placeholder=usual or _ITS_OWN, max_chars=100).strip()


def _own_size(number: int, item: Item, size: Size) -> tuple[str, float]:
    venue = venues.find(size.venue)
    words = {"": "as above"} | {word: f"{word}, {venue.inches(word):.2f} in" for word in venues.WIDTHS}
    width = st.selectbox("Width", list(words), index=list(words).index(item.width), key=f"width-{number}", format_func=lambda word: words.get(word, word))
    height = st.number_input("Height (inches)", *wanted.HEIGHTS, item.height or None, 0.1, key=f"height-{number}", placeholder="as above")
    return width or "", height or 0.0


# --- files -------------------------------------------------------------------------------------


def _downloads(number: int, panel: Panel, size: Size, hide: Sequence[Recorded] | None) -> None:
    """One button for each format; a file is made when it is asked for."""
    stem = export.stem(panel) if hide is None else panel.item.figure.replace("_", "-")
    with st.container(horizontal=True, gap="small"):
        for kind, (word, mime) in _FORMATS.items():
            make = functools.partial(export.made, [panel], kind, size, hide)
            st.download_button(word, make, f"{stem}.{kind}", mime, key=f"get-{kind}-{number}", type="tertiary", icon=":material/download:", on_click="ignore")


def whole(drawn: Sequence[tuple[Panel, list[Recorded]]], size: Size, blind: bool) -> None:
    """Everything as one zip, and the command that makes it again."""
    if not drawn:
        return
    panels = [panel for panel, _ in drawn]
    runs = list(dict.fromkeys(one for _, recordings in drawn for one in recordings))
    left_out = len(basket.held()) - len(drawn)
    make = functools.partial(export.made, panels, "zip", size, runs if blind else None)
    with st.container(border=True):
        name = f"figures-{size.venue}.zip"
        st.download_button(
            "Download all as a zip", make, name, "application/zip", key="get-zip", type="primary", icon=":material/folder_zip:", on_click="ignore"
        )
        what = "Each figure as PDF, SVG, PNG, HTML, CSV, LaTeX and JSON, with captions, commands, and a script that draws them again to the same bytes."
        st.caption(what + (f" {left_out} of the figures cannot be drawn and are left out." if left_out else ""))
        if blind:
            _say_clues(runs)


def _say_clues(runs: Sequence[Recorded]) -> None:
    """How many words are searched for; which, is nobody's business."""
    known = anonymous.clues(runs)
    st.text("Hidden and searched for: " + ", ".join(f"{clue.kind} ({clue.known} known)" for clue in known) + ".")
    if loading.exposed():
        st.text("This server can be reached from other machines: its files are made with the names that it knows, not with yours.")
