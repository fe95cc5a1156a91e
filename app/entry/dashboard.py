"""What `streamlit run` is pointed at: the dashboard behind its guard."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from app.entry import warming
from app.server import guard, library

warming.begin()
guard.mark_exposed()
app = st.App(Path(__file__).with_name("frame.py"), routes=[library.route()], middleware=[Middleware(guard.Guard)])
