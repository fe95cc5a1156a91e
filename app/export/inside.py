"""What can be read in the file of a figure: all of its texts, and the line that leads back to its runs.

A file may come from anybody: the line is looked for in one place, within a bound, and nothing is parsed as XML or run.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from collections.abc import Iterator

from interplay.errors import DataError

_MARK = b"\xfe\xff"  # two bytes a letter follow
_STRING = rb"[^\\()]*(?:\\.[^\\()]*)*"  # between the brackets of a PDF string
_STRINGS = re.compile(rb"\((" + _STRING + rb")\)", re.DOTALL)
_KEYWORDS = b"/Keywords ("
_KEY = re.compile(rb'"about"\s*:\s*(?="figure )')
#: The kind of file that holds the numbers of a figure, and no line.
ROWS = "csv"
#: Letters of a line; bytes in which it is looked for, since PDF takes two for a letter and JSON up to six; pieces of a PNG before it.
_LONGEST, _FAR, _PIECES = 2**16, 2**19, 100_000


def about(name: str, content: bytes) -> str:
    """The line that `analysis.paper.about` put into a PDF, SVG, PNG, HTML, LaTeX or JSON. Raises `DataError` where there is none."""
    suffix = name.rpartition(".")[2].lower()
    found = _ABOUT[suffix](content) if suffix in _ABOUT else None
    if not found or not found.startswith("figure ") or not found.isprintable() or len(found) > _LONGEST:
        raise DataError(f"{name} does not say which runs it shows{_instead(suffix)}")
    return found


def _instead(suffix: str) -> str:
    kinds = ", ".join(f".{kind}" for kind in _ABOUT)
    if suffix == ROWS:
        return f", because a CSV holds numbers only; give another file of the same figure: {kinds}, or the .zip"
    return f"; give a {kinds} file that Interplay drew, or a .zip of them"


def _of_pdf(content: bytes) -> str | None:
    start = content.find(_KEYWORDS) + len(_KEYWORDS)
    found = _STRINGS.match(content[start - 1 : start + _FAR]) if start >= len(_KEYWORDS) else None
    text = _unescaped(found[1]) if found else b""
    return text.removeprefix(_MARK).decode("utf-16-be", "replace") if text.startswith(_MARK) else text.decode("latin-1")


def _of_png(content: bytes) -> str | None:
    return next((text.partition("\n")[2].lstrip("\n") for text in _png_texts(content) if text.startswith("Source\n")), None)


def _between(start: bytes, end: bytes, content: bytes) -> str | None:
    """What stands between the first such start that a figure follows, and the end."""
    place = content.find(start + b"figure ")
    stop = content.find(end, place, place + _FAR)
    return content[place + len(start) : stop].decode("utf-8", "replace") if place >= 0 and stop >= 0 else None


def _of_json(content: bytes) -> str | None:
    """By its key alone: a whole file of nested brackets would fill the memory."""
    key = _KEY.search(content)
    try:
        return str(json.JSONDecoder().raw_decode(content[key.end() : key.end() + _FAR].decode("utf-8", "replace"))[0]) if key else None
    except ValueError:
        return None


_ABOUT = {
    "pdf": _of_pdf,
    "svg": lambda content: html.unescape(_between(b"<rdf:li>", b"</rdf:li>", content) or ""),
    "png": _of_png,
    "html": lambda content: html.unescape(_between(b"<footer>", b"</footer>", content) or ""),
    "tex": lambda content: _between(b"% ", b"\n", content),
    "json": _of_json,
}
#: Kinds of files that carry the line.
KINDS = tuple(_ABOUT)


# --- all texts ---------------------------------------------------------------------------------


def text_of(name: str, content: bytes) -> str:
    """Everything in a file that can be read as text."""
    suffix = name.rpartition(".")[2]
    if suffix == "pdf":
        return _pdf_text(content)
    if suffix == "png":
        return "\n".join(_png_texts(content))
    text = content.decode("utf-8", "replace")
    if suffix == "html":
        from plotly.offline import get_plotlyjs

        text = text.replace(get_plotlyjs(), "")
    return html.unescape(re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)).replace("\\\\", "\\")


def _pdf_text(content: bytes) -> str:
    """All but fonts: streams inflated, pieces of a line joined, strings read with one byte a letter and with two."""
    parts = [re.sub(rb"stream\r?\n.*?endstream", b"", content, flags=re.DOTALL)]
    for head, body in re.findall(rb"obj\s*(<<.*?>>)\s*stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        own = head.rpartition(b" obj")[2]
        if b"/Length1" not in own and b"/Subtype /Image" not in own:  # fonts and pixels
            parts.append(_inflated(body))
    raw = re.sub(rb"\)\s*-?[\d.]+\s*\(", b"", b"\n".join(parts))
    strings = [_unescaped(text) for text in _STRINGS.findall(raw)]
    wide = [text.removeprefix(_MARK).decode("utf-16-be", "replace") for text in strings if len(text) % 2 == 0]
    return "\n".join([raw.decode("latin-1"), *(text.decode("latin-1") for text in strings), *wide])


def _inflated(body: bytes, most: int = 0) -> bytes:
    """At most so many bytes; 0 means all."""
    try:
        return zlib.decompressobj().decompress(body, most)
    except zlib.error:
        return body


def _png_texts(content: bytes) -> Iterator[str]:
    """Texts beside the pixels, plain, packed or international."""
    place = 8
    for _ in range(_PIECES):
        if place + 8 > len(content):
            return
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        if kind == b"zTXt":
            body = _inflated(body.partition(b"\0")[2][1:], _FAR)
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield body.replace(b"\0", b"\n").decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        place += 12 + length


def _unescaped(raw: bytes) -> bytes:
    return re.sub(rb"\\(.)", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), raw, flags=re.DOTALL)
