"""What can be read in the file of a figure: all of its texts, and the line that leads back to its runs."""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from collections.abc import Iterator

from interplay.errors import DataError

_MARK = b"\xfe\xff"  # two bytes a letter follow
_STRING = rb"(?:[^\\()]|\\.)*"  # between the brackets of a PDF string
_KEYWORDS = re.compile(rb"/Keywords \((" + _STRING + rb")\)", re.DOTALL)
_STRINGS = re.compile(rb"\((" + _STRING + rb")\)", re.DOTALL)


def about(name: str, content: bytes) -> str:
    """The line that `analysis.paper.about` put into a PDF, SVG, PNG, HTML, LaTeX or JSON. Raises `DataError` where there is none."""
    suffix = name.rpartition(".")[2].lower()
    found = _ABOUT[suffix](content) if suffix in _ABOUT else None
    if not found or not found.startswith("figure "):
        raise DataError(f"{name} does not say which runs it shows; give a {', '.join(f'.{kind}' for kind in _ABOUT)} file that Interplay drew")
    return found


def _of_pdf(content: bytes) -> str | None:
    found = _KEYWORDS.search(content)
    text = _unescaped(found[1]) if found else b""
    return text.removeprefix(_MARK).decode("utf-16-be", "replace") if text.startswith(_MARK) else text.decode("latin-1")


def _of_png(content: bytes) -> str | None:
    return next((text.partition("\n")[2].lstrip("\n") for text in _png_texts(content) if text.startswith("Source\n")), None)


def _between(start: str, end: str, content: bytes) -> str | None:
    found = re.search(f"{start}(figure .*?){end}", content.decode("utf-8", "replace"), re.DOTALL)
    return html.unescape(found[1]) if found else None


def _of_json(content: bytes) -> str | None:
    try:
        raw = json.loads(content)
    except ValueError:
        return None
    return str(raw.get("about")) if isinstance(raw, dict) else None


_ABOUT = {
    "pdf": _of_pdf,
    "svg": lambda content: _between("<rdf:li>", "</rdf:li>", content),
    "png": _of_png,
    "html": lambda content: _between("<footer>", "</footer>", content),
    "tex": lambda content: _between("% ", "\n", content),
    "json": _of_json,
}


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


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return body


def _png_texts(content: bytes) -> Iterator[str]:
    """Texts beside the pixels, plain, packed or international."""
    place = 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        if kind == b"zTXt":
            body = _inflated(body.partition(b"\0")[2][1:])
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield body.replace(b"\0", b"\n").decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        place += 12 + length


def _unescaped(raw: bytes) -> bytes:
    return re.sub(rb"\\(.)", lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), raw, flags=re.DOTALL)
