"""What Streamlit runs for every visit.

Not `app/main.py` itself: a folder named `pages` beside the started script makes Streamlit 1.67 answer
the first deep link of a server with its old multipage mode, which never reaches `st.navigation`.
"""

from app import main
from app.reading import catalogue

catalogue.prefetch()
main.run()
