"""Starts the dashboard: one Streamlit process on loopback, closed when its parent is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from app.queue import jobs
from app.reading import loading
from app.server import theme
from interplay.config import RunConfig
from interplay.errors import ConfigError

DEFAULT_PORT = 8501
MAIN = Path(__file__).parents[1] / "entry" / "dashboard.py"


def run(folders: Sequence[str] | None, *, port: int | None, demo: bool, open_browser: bool) -> int:
    """What `interplay dash` does: serve the folders, and with `demo` train beside them until the end."""
    roots = [Path(folder) for folder in folders or ("runs", str(loading.RECORDINGS))]
    port = choose_port(port)
    _say_missing(folders or ())
    if not demo:
        return serve(roots, port, open_browser=open_browser)
    roots[0].mkdir(parents=True, exist_ok=True)
    queue = jobs.Jobs(roots[0] / ".jobs")
    started = _start_demo(queue, roots[0])
    try:
        return serve(roots, port, open_browser=open_browser)
    finally:
        if started is not None:
            queue.stop(started.id, wait=True)


def _say_missing(folders: Sequence[str]) -> None:
    """A mistyped folder looks like one without runs, so it is said which of those that were typed do not exist."""
    for folder in folders:
        if not Path(folder).is_dir():
            print(f"--runs {folder}: there is no such folder yet; it is shown as empty until a run is in it", flush=True)


def _start_demo(queue: jobs.Jobs, root: Path) -> jobs.Job | None:
    """A small live run; if another run is going on already, that one is the live run."""
    config = RunConfig(out=str(root / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"), pairs=16, heldout_pairs=12, reward_batch=4)
    try:
        job = queue.start(config, alone=True)
    except ConfigError as error:
        print(f"no new demo run: {error}", flush=True)
        return None
    print(f"demo run: {job.command}", flush=True)
    return job


def serve(runs: Sequence[Path], port: int | None = None, address: str = "127.0.0.1", open_browser: bool = False) -> int:
    """Run the dashboard over these folders until it is interrupted; returns its exit status."""
    port = choose_port(port, address)
    # In a group of its own: Ctrl-C would reach it twice, and it answers that with a traceback.
    process = subprocess.Popen(command(address, port), env=environment(runs, address), process_group=0)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda _number, _frame: _end(process))
    threading.Thread(
        target=_announce, args=(process, f"http://{'127.0.0.1' if address in theme.LOOPBACK else address}:{port}", open_browser), daemon=True
    ).start()
    status = process.wait()
    return 0 if status in (0, -signal.SIGTERM) else status


def command(address: str, port: int) -> list[str]:
    """The words that start Streamlit with every setting of `theme`."""
    return [sys.executable, "-m", "streamlit", "run", str(MAIN), *theme.flags(address, port)]


def environment(runs: Sequence[Path], address: str = "127.0.0.1") -> dict[str, str]:
    """The child's environment: which folders it shows, and whether others can reach it."""
    extra = {"INTERPLAY_RUNS": os.pathsep.join(str(Path(root).resolve()) for root in runs)} if runs else {}
    exposed = {} if address in theme.LOOPBACK else {"INTERPLAY_EXPOSED": "1"}
    return {**os.environ, **extra, **exposed}


def choose_port(port: int | None, address: str = "127.0.0.1") -> int:
    """The wanted port, or 8501, or a free one. Raises `ConfigError` if a wanted port is taken."""
    if port is not None:
        if not 0 < port < 65536:
            raise ConfigError(f"--port is {port}; it must be between 1 and 65535")
        if not _free(port, address):
            raise ConfigError(f"--port is {port}, which is taken on {address}; choose another, or leave --port out to get a free one")
        return port
    return DEFAULT_PORT if _free(DEFAULT_PORT, address) else any_port(address)


def wait_until_up(url: str, seconds: float = 30.0) -> bool:
    """Whether the server answers its health check within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:  # noqa: S310 - our own loopback URL
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.15)
    return False


def _announce(process: subprocess.Popen[bytes], url: str, open_browser: bool) -> None:
    if not wait_until_up(url, 60) or process.poll() is not None:
        return
    print(f"Interplay dashboard: {url}  (stop with Ctrl-C)", flush=True)
    if open_browser:
        webbrowser.open(url)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()


def _free(port: int, address: str) -> bool:
    with socket.socket(_family(address)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def any_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on; another one for each who asks at the same time."""
    with socket.socket(_family(address)) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
