"""The Interplay page, opened in a test, and what is written and drawn on it."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from tests.pages import Show, charts


@pytest.fixture
def show(show: Show) -> Show:
    return partial(show, "interplay")


def words_on(app: AppTest) -> str:
    return "\n".join(element.value for kind in (app.text, app.caption, app.warning, app.markdown) for element in kind).replace("\\", "")


def figures_on(app: AppTest) -> dict[str, dict[str, Any]]:
    """Figures on the page, the strips of verdicts among them, by their text alternatives."""
    return {one["alt"]: json.loads(one["figure"]) for one in charts(app)}


def figure_on(app: AppTest, start: str) -> dict[str, Any]:
    return next(figure for alt, figure in figures_on(app).items() if alt.startswith(start))


def numbers_in(values: Any) -> Any:
    """plotly writes arrays as base64."""
    return np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"])) if isinstance(values, dict) else np.array(values)
