"""What Streamlit runs for every visit.

Not `app/main.py` itself: a folder named `pages` beside the started script makes Streamlit 1.67 answer
the first deep link of a server with its old multipage mode, which never reaches `st.navigation`.
"""

from app.entry import warming

warming.wait()

from app import main  # noqa: E402 - not while another thread imports the same
from app.reading import catalogue  # noqa: E402

catalogue.prefetch()
main.run()
