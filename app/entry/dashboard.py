"""What `streamlit run` is pointed at: the dashboard behind its guard."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from app.server import guard

guard.mark_exposed()
app = st.App(Path(__file__).with_name("frame.py"), middleware=[Middleware(guard.Guard)])
