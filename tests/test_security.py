"""The real dashboard, asked as a stranger would: foreign names, foreign pages, paths that lead outside, and what it does when others can reach it."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly
import psutil
import pytest

from app.server import dashboard, guard, library, theme
from tests.fabricate import Fabricated

pytestmark = pytest.mark.slow

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
    "evil.example/localhost",
    "0.0.0.0:{port}",
    "[::1",
    "",
]
FOREIGN_ORIGINS = [
    "http://evil.example",
    "http://localhost.evil.example:{port}",
    "http://127.0.0.1:{other}",  # another program of this machine
    "http://localhost:{port}",  # the same server under another name is another origin
    "http://127.0.0.1:{port}.evil.example",
    "ftp://127.0.0.1:{port}",
    "null",
    "",
]
OUTSIDE = [
    "../../../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e/%252e%252e/etc/passwd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "..%00/etc/passwd",
    "../__init__.py",
    "%2e%2e%2f__init__.py",
]


@dataclass
class Trap:
    """Stands where a proxy would: whatever the server asks of the internet by HTTP arrives here."""

    port: int
    caught: list[bytes] = field(default_factory=list)


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    address: str
    port: int
    root: Path

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"

    def raw(self, head: str, body: bytes = b"", seconds: float = 10) -> bytes:
        """Exactly these lines, and what comes back until the header's end and what came with it."""
        with socket.create_connection((self.address, self.port), timeout=seconds) as line:
            line.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
            answer = b""
            while b"\r\n\r\n" not in answer and (piece := line.recv(65536)):
                answer += piece
        return answer

    def status(self, head: str, body: bytes = b"") -> int:
        return int(self.raw(head, body).split(b" ", 2)[1])

    def get(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=20)
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def handshake(self, *lines: str, host: str | None = None) -> int:
        """The status of opening a WebSocket with these further lines."""
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /_stcore/stream HTTP/1.1\nHost: {host or self.host}\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13"
        return self.status("\n".join([head, f"Sec-WebSocket-Key: {key}", *lines]))

    def visit(self, page: str) -> bytes:
        """What a browser is sent when it opens a page."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
        from websockets.sync.client import connect
        from websockets.typing import Origin, Subprotocol

        ask, got = BackMsg(rerun_script={"page_name": page}), b""
        with connect(f"ws://{self.host}/_stcore/stream", origin=Origin(f"http://{self.host}"), subprotocols=[Subprotocol("streamlit")], max_size=None) as line:
            line.send(ask.SerializeToString())
            while True:
                piece = line.recv(timeout=60)
                got += piece if isinstance(piece, bytes) else piece.encode()
                message = ForwardMsg()
                message.ParseFromString(piece if isinstance(piece, bytes) else b"")
                if message.WhichOneof("type") == "script_finished":
                    return got


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        trap = Trap(listening.getsockname()[1])

        def wait() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    line.settimeout(2)
                    trap.caught.append(line.recv(4096))

        threading.Thread(target=wait, daemon=True).start()
        yield trap


def _start(root: Path, trap: Trap, address: str, **environment: str) -> Server:
    Fabricated(root / "finished", layers=2, k=8, updates_each=4).whole()
    port = dashboard.any_port(address)
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"), f"http://127.0.0.1:{trap.port}")
    env = {**dashboard.environment([root]), **proxies, "no_proxy": "", "NO_PROXY": "", **environment}
    process = subprocess.Popen(dashboard.command(address, port), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root.parent)
    server = Server(process, address, port, root)
    for _ in range(600):
        try:
            if server.get("/_stcore/health")[0] == 200:
                return server
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError("the dashboard did not start")


def _end(server: Server) -> None:
    server.process.terminate()
    server.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, trap: Trap) -> Iterator[Server]:
    server = _start(tmp_path_factory.mktemp("safe") / "runs", trap, "127.0.0.1")
    yield server
    _end(server)


def _fill(text: str, server: Server) -> str:
    return text.replace("{port}", str(server.port)).replace("{other}", str(server.port + 1))


# --- who may ask -----------------------------------------------------------------------------------


def test_only_loopback_is_listened_on(server: Server) -> None:
    family = [(leader := psutil.Process(server.process.pid)), *leader.children(recursive=True)]
    listening = [line.laddr for process in family for line in process.net_connections("inet") if line.status == psutil.CONN_LISTEN]
    assert [tuple(address) for address in listening] == [("127.0.0.1", server.port)]


@pytest.mark.skipif(sys.platform != "linux", reason="only there is it told which libraries a process has in memory")
def test_small_answers_are_not_held_back(server: Server) -> None:
    """asyncio's own loop leaves Nagle's algorithm on for the socket that Streamlit makes: 40 ms for each file of a page."""
    held = {part for line in psutil.Process(server.process.pid).memory_maps() for part in Path(line.path).parts}
    assert {"uvloop", "httptools"} <= held


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/static/index.html", "/media/x.png", "/replay"])
@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_name_is_refused(server: Server, path: str, host: str) -> None:
    assert server.status(f"GET {path} HTTP/1.1\nHost: {_fill(host, server)}") in (400, 403)


def test_a_request_needs_one_name(server: Server) -> None:
    assert server.status("GET / HTTP/1.0") in (400, 403)
    assert server.status(f"GET / HTTP/1.1\nHost: {server.host}\nHost: evil.example") in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "localhost:9999"])
def test_its_own_names_are_answered(server: Server, host: str) -> None:
    """Any port: a tunnel has one of its own."""
    assert server.status(f"GET /_stcore/health HTTP/1.1\nHost: {_fill(host, server)}") == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS[:4])
def test_a_socket_under_a_foreign_name_is_refused(server: Server, host: str) -> None:
    name = _fill(host, server)
    assert server.handshake(f"Origin: http://{name}", host=name) in (400, 403)
    assert server.handshake(host=name) in (400, 403)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_page_opens_no_socket(server: Server, origin: str) -> None:
    assert server.handshake(f"Origin: {_fill(origin, server)}") == 403


def test_two_origins_are_refused(server: Server) -> None:
    assert server.handshake(f"Origin: http://{server.host}", "Origin: http://evil.example") in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "localhost:9999"])
def test_its_own_page_opens_a_socket(server: Server, host: str) -> None:
    name = _fill(host, server)
    assert server.handshake(f"Origin: http://{name}", host=name) == 101


# --- where paths lead ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["/component/", "/static/", "/media/", "/_stcore/bidi-components/interplay_canvas/", "/app/static/", "/"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_outside(server: Server, start: str, path: str) -> None:
    status, headers, body = server.get(start + path)
    assert b"root:" not in body
    assert b"import" not in body or b"<!doctype html>" in body.lower(), "only Streamlit's own page is sent for an unknown path"
    assert status in (200, 301, 307, 400, 403, 404)
    assert not str(headers.get("location", "")).startswith("//"), "a browser would go to another host"


@pytest.mark.parametrize("session", ["x", "..%2f..%2f..", "%2e%2e"])
@pytest.mark.parametrize("name", ["y", "..%2f..%2fharm", "%2ftmp%2fharm"])
@pytest.mark.parametrize("token", [False, True])
def test_an_upload_needs_a_session_and_writes_no_file(server: Server, session: str, name: str, token: bool) -> None:
    before = sorted(server.root.parent.rglob("*"))
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../harm"\r\n\r\nharm\r\n--b--\r\n'
    head = (
        f"PUT /_stcore/upload_file/{session}/{name} HTTP/1.1\nHost: {server.host}\nContent-Type: multipart/form-data; boundary=b\nContent-Length: {len(body)}"
    )
    cookie = server.get("/_stcore/health")[1]["set-cookie"].split(";")[0]  # the token against forged requests, as any visitor is given one
    own = f"\nCookie: {cookie}\nX-Xsrftoken: {cookie.split('=', 1)[1]}" if token else ""
    assert server.status(head + own, body) in (400, 403, 404, 405)
    assert server.status(f"{head}{own}\nOrigin: http://evil.example", body) == 403
    assert sorted(server.root.parent.rglob("*")) == before
    assert not Path("/tmp/harm").exists()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/_stcore/stream", "/static/index.html", "/_stcore/upload_file/x/y"])
def test_a_foreign_page_changes_nothing(server: Server, method: str, path: str) -> None:
    assert server.status(f"{method} {path} HTTP/1.1\nHost: {server.host}\nOrigin: http://evil.example\nContent-Length: 0") == 403


# --- what is sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/replay", "/_stcore/health", "/_stcore/host-config", "/static/nothing.js", "/component/none/x"])
def test_every_answer_keeps_the_browser_here(server: Server, path: str) -> None:
    _, headers, _ = server.get(path, Origin="http://evil.example")
    policy = headers["content-security-policy"]
    sources = {word for rule in policy.split(";") for word in rule.split()[1:]}
    assert sources <= {"'self'", "'none'", "data:", "blob:", "'unsafe-inline'", "'unsafe-eval'", f"ws://{server.host}", f"wss://{server.host}"}
    assert "frame-ancestors 'self'" in policy
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers
    assert "python" not in headers.get("server", "").lower()


def test_charts_have_their_library_from_here_packed_or_not(server: Server) -> None:
    whole = (Path(plotly.__file__).with_name("package_data") / "plotly.min.js").read_bytes()
    file = library.plain()
    assert len(whole) - 400 < len(file) < len(whole), "what was left out is the function around it"
    assert file[400:-1] in whole
    assert b"Licensed under the MIT license" in file[:200]
    for path, early in (("/", True), ("/replay", True), (library.ADDRESS, False), ("/_stcore/health", False)):
        assert (f"<{library.ADDRESS}>" in server.get(path)[1].get("link", "")) is early, path
    for asked, unpacked in (("gzip, br", gzip.decompress), ("identity", bytes)):
        status, headers, body = server.get(library.ADDRESS, **{"Accept-Encoding": asked})
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/javascript")
        assert unpacked(body) == file
    assert server.status(f"GET {library.ADDRESS} HTTP/1.1\nHost: evil.example") == 403


def test_no_one_else_is_told_anything(server: Server, trap: Trap) -> None:
    """Streamlit would ask a server in the internet for its own address before it refuses a foreign page."""
    for page in ("", "replay", "interplay", "train", "compare", "export"):
        server.visit(page)
    assert server.handshake("Origin: http://evil.example") == 403
    lines = psutil.Process(server.process.pid).net_connections("inet")
    assert {line.raddr.ip for line in lines if line.raddr} <= {"127.0.0.1"}
    assert trap.caught == []


@pytest.fixture
def tab(server: Server) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if not path:
        pytest.skip("chromium is not installed (as root: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium.new_page()
        chromium.close()


@pytest.mark.browser
def test_a_browser_asks_nobody_for_a_page_of_ours(server: Server, trap: Trap, tab: Any) -> None:
    """Whatever got into a page: pictures, requests, sockets and frames of other hosts stay away."""
    tab.goto(f"http://{server.host}/")
    ask = """async (there) => {
      const told = (name) => new Promise((done) =>
        document.addEventListener("securitypolicyviolation", (event) => event.effectiveDirective === name && done(name)));
      const refused = Promise.all(["connect-src", "img-src", "frame-src"].map(told));
      fetch(`http://${there}/fetched`).catch(() => null);
      new Image().src = `http://${there}/image`;
      try { new WebSocket(`ws://${there}/socket`); } catch {}
      document.body.append(Object.assign(document.createElement("iframe"), { src: `http://${there}/frame` }));
      return refused;
    }"""
    assert tab.evaluate(ask, f"127.0.0.1:{trap.port}") == ["connect-src", "img-src", "frame-src"]
    assert trap.caught == []


@pytest.mark.browser
def test_a_foreign_page_cannot_frame_ours(server: Server, tab: Any) -> None:
    """A page drawn over it would make its visitor press Start."""
    tab.set_content(f'<iframe src="http://{server.host}/train"></iframe>')
    tab.wait_for_timeout(2000)
    assert [frame.url.split(":")[0] for frame in tab.frames[1:]] == ["chrome-error"]


# --- bound elsewhere -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory, trap: Trap) -> Iterator[Server]:
    """On another address, by Streamlit's own command, with the word for it taken out of the environment; and with a job in the queue."""
    root = tmp_path_factory.mktemp("open") / "runs"
    state = root.parent / "state"
    place = root / ".jobs" / ("f" * 16)
    place.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        from app.queue import queueing

        argv = [theme.__file__, "harm"]
        seal = queueing.seal(root / ".jobs", place.name, argv, "/")
    (place / "job.json").write_text(json.dumps({"argv": argv, "created": "2026-01-01T00:00:00", "queued": True, "cwd": "/", "seal": seal}))
    server = _start(root, trap, "127.0.0.2", INTERPLAY_EXPOSED="", XDG_STATE_HOME=str(state))
    yield server
    _end(server)


def test_a_server_bound_elsewhere_shows_everything_and_starts_nothing(exposed: Server) -> None:
    assert b"finished" in exposed.visit("")
    train = exposed.visit("train")
    assert b"has no login" in train
    assert b"queued" in train, "the page looked at the list"
    left = json.loads((exposed.root / ".jobs" / ("f" * 16) / "job.json").read_text())
    assert left["queued"] is True
    assert "pid" not in left


def test_a_server_bound_elsewhere_still_refuses_strangers(exposed: Server) -> None:
    assert exposed.status("GET / HTTP/1.1\nHost: evil.example") == 403
    assert exposed.handshake("Origin: http://evil.example") == 403
    assert exposed.handshake(f"Origin: http://{exposed.host}") == 101


def test_the_demo_starts_nothing_where_others_can_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "1")
    monkeypatch.setattr(dashboard, "serve", lambda *words, **options: 0)
    assert dashboard.run([str(tmp_path / "runs")], port=None, demo=True, open_browser=False) == 0
    assert "no new demo run: this server can be reached from other machines" in capsys.readouterr().out
    assert not (tmp_path / "runs" / ".jobs").exists()


def test_the_command_has_no_way_to_bind_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    from app import cli

    assert cli.main(["dash", "--address", "0.0.0.0"]) == 2
    assert "unknown argument '--address'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "marked"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), (None, True), ("unix:///tmp/x", True)]
)
def test_what_counts_as_elsewhere(address: str | None, marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPLAY_EXPOSED", "")
    monkeypatch.setattr("app.server.guard.config.get_option", {"server.address": address}.__getitem__)
    guard.mark_exposed()
    assert (os.environ["INTERPLAY_EXPOSED"] == "1") is marked


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_ends_quietly_and_takes_its_server_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and a closed terminal reach the whole group of the command."""
    port = dashboard.any_port()
    words = [sys.executable, "-m", "app.cli", "dash", "--runs", str(tmp_path / "runs"), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    assert dashboard.wait_until_up(f"http://127.0.0.1:{port}", 120)
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert dashboard.choose_port(port) == port  # raises while somebody still listens there
