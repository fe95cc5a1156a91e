"""Export: figures for a paper, at the size of its venue, one by one or all as a zip that draws itself again."""

from __future__ import annotations

from app.export import basket, opening, shelf
from app.parts import widgets


def page() -> None:
    notes = basket.follow_link()
    with widgets.title("Export", "Figures as they go into the paper: true size, with their numbers and what draws them again."):
        shelf.count()
    widgets.problems(notes)
    size, blind = shelf.choose()
    shelf.add_figure()
    opening.figures()
    place = shelf.place()
    drawn = shelf.cards(size, blind)
    with place:
        shelf.whole(drawn, size, blind)
    basket.keep_in_link()


page()
