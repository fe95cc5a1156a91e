"""Pages of the dashboard, opened as a link opens them, without server and browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

PAGES = Path(__file__).parents[1] / "app" / "pages"
#: As the server does it: beside a folder of pages, Streamlit would open a page without the frame around it.
_FRAME = "from app import main\nmain.run()\n"
Show = Callable[..., AppTest]


def open_page(page: str = "runs", /, **link: Any) -> AppTest:
    """The page `app/pages/PAGE.py` in a session of its own; `link` is what stands behind the question mark."""
    app = AppTest.from_string(_FRAME, default_timeout=60)
    if page != "runs":  # the page that opens by itself
        app.switch_page(str(PAGES / f"{page}.py"))
    for name, value in link.items():
        app.query_params[name] = value
    return ran(app)


def ran(what: Any) -> AppTest:
    """The page, run again, by itself or after a click; it shows no exception."""
    app: AppTest = what.run()
    assert not app.exception, [error.message for error in app.exception]
    return app


def charts(app: AppTest) -> list[dict[str, Any]]:
    """What the charts of the page are sent: `name`, `alt` and plotly's JSON as `figure`."""
    sent = [json.loads(mounted.proto.json) for mounted in app.get("bidi_component")]
    return [one for one in sent if "figure" in one]
