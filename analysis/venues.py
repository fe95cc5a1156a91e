"""How wide a figure may be where, how large its letters are, and matplotlib's settings for it. A new venue is one row.

Widths are those of the style file, in inches, so that `\\includegraphics` needs no scaling: a scaled figure has letters of another size.
Where a paper has one column, its column is its text, as in LaTeX. Look up the style file of your year: venues change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from interplay.errors import ConfigError, allowed, nearest

Width = Literal["column", "text"]
WIDTHS: tuple[Width, ...] = ("column", "text")
_CM = 1 / 2.54
#: Both come with matplotlib, so every machine has them; what the first has not is taken from the second.
_LETTERS = {"serif": ["STIXGeneral", "DejaVu Sans"], "sans": ["DejaVu Sans"]}
GREY, _GRID = "#555555", "#DDDDDD"
#: How much is seen of values behind their moving average, as on the screen.
FAINT = 0.35


@dataclass(frozen=True)
class Venue:
    """Column and text width in inches, body text in points, the kind of its letters, and where that is written."""

    name: str
    column: float
    text: float
    body: float
    letters: Literal["serif", "sans"]
    source: str

    def inches(self, width: Width) -> float:
        """Raises `ConfigError` for another word than column or text."""
        if width not in WIDTHS:
            raise ConfigError(f"width is {width!r}{nearest(width, WIDTHS)}; allowed: {allowed(WIDTHS)}")
        return self.column if width == "column" else self.text

    @property
    def label(self) -> float:
        """Points of axis titles: two less than the text around the figure, as captions are one less."""
        return self.body - 2

    @property
    def small(self) -> float:
        """Points of tick labels and legends."""
        return self.body - 3

    @property
    def breadth(self) -> float:
        """How wide a letter is on average, in parts of its size."""
        return 0.45 if self.letters == "serif" else 0.58

    def settings(self) -> dict[Any, Any]:
        """What matplotlib calls rcParams: sizes, thin lines, and files that are the same each time."""
        return {
            "font.family": _LETTERS[self.letters],
            "font.size": self.small,
            "axes.labelsize": self.label,
            "axes.linewidth": 0.6,
            "axes.edgecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": _GRID,
            "grid.linewidth": 0.4,
            "lines.markeredgewidth": 0.9,
            "legend.frameon": False,
            "legend.borderaxespad": 0.1,
            "legend.handlelength": 2,
            "legend.handletextpad": 0.5,
            "legend.columnspacing": 1,
            "legend.labelspacing": 0.2,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "text.parse_math": False,  # a dollar in a name is a dollar
            "path.simplify": False,  # every point is in the file
            "agg.path.chunksize": 10_000,  # a long line is too much for the rasteriser in one piece
            "pdf.fonttype": 42,  # TrueType: many venues refuse matplotlib's own default, Type 3
            "svg.fonttype": "none",  # letters stay letters
            "svg.hashsalt": "interplay",  # names inside the file would otherwise be drawn by lot
        }


VENUES: dict[str, Venue] = {
    venue.name: venue
    for venue in (
        Venue("acl", 7.7 * _CM, 16 * _CM, 11, "serif", "acl.sty of acl-org/acl-style-files: A4 with margins of 2.5 cm, columnsep 0.6 cm; article at 11pt"),
        Venue("icml", 3.25, 6.75, 10, "serif", "icml2025.sty: textwidth 6.75in, columnsep 0.25in"),
        Venue("neurips", 5.5, 5.5, 10, "serif", "neurips_2025.sty: textwidth 5.5in, one column"),
        Venue("iclr", 5.5, 5.5, 10, "serif", "iclr2026_conference.sty of ICLR/Master-Template: textwidth 5.5in, one column"),
        Venue("aaai", 3.3125, 7.0, 10, "serif", "aaai25.sty: textwidth 7in, columnsep 0.375in; its instructions say 3.3 inches"),
        Venue("cvpr", 3.28125, 6.875, 10, "serif", "cvpr.sty of cvpr-org/author-kit (2025): textwidth 6.875in, columnsep 0.3125in"),
        Venue("tmlr", 6.5, 6.5, 10, "sans", "tmlr.sty of JmlrOrg/tmlr-style-file: textwidth 6.5in, one column, cmbright"),
    )
}


def find(name: str) -> Venue:
    """The row of that name. Raises `ConfigError` with the nearest one."""
    if name not in VENUES:
        raise ConfigError(f"venue is {name!r}{nearest(name, VENUES)}; allowed: {allowed(VENUES)}")
    return VENUES[name]
