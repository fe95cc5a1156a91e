"""The dashboard's looks and server settings, as flags of `streamlit run`; one place for both.

Quiet on purpose: near-white or near-black ground, one accent, thin borders, so that the figures are
the only strong colours on a page.
"""

from __future__ import annotations

import socket

import psutil

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
_SHARED: dict[str, str] = {
    "theme.baseRadius": "6px",
    "theme.baseFontSize": "15",
    "theme.headingFontSizes": '["1.6rem","1.35rem","1.25rem","1rem","0.9rem","0.85rem"]',
    "theme.headingFontWeights": "[600,600,600,600,600,600]",
    "theme.paddingTop": "1.5rem",
    "theme.paddingBottom": "3rem",
    "theme.metricValueFontSize": "1.3rem",
    "theme.codeFontSize": "0.82rem",
}

_LIGHT: dict[str, str] = {
    "primaryColor": "#2F6690",
    "backgroundColor": "#FFFFFF",
    "secondaryBackgroundColor": "#F4F6F8",
    "textColor": "#1D2733",
    "borderColor": "#DDE3E9",
}

_DARK: dict[str, str] = {
    "primaryColor": "#6FA8D6",
    "backgroundColor": "#12161B",
    "secondaryBackgroundColor": "#1B2128",
    "textColor": "#E4E9EE",
    "borderColor": "#313A44",
}

#: What Streamlit would otherwise open: all interfaces, any host, usage statistics, an e-mail prompt.
_SERVER: dict[str, str] = {
    "server.headless": "true",
    "server.showEmailPrompt": "false",
    "server.enableAgentApi": "false",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": "20",
    "server.maxMessageSize": "50",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "global.disableWidgetStateDuplicationWarning": "true",  # a reset button sets what also has a default
}


def flags(address: str, port: int) -> list[str]:
    """Every setting as `--name=value`."""
    settings = _SERVER | _SHARED | {"server.address": address, "server.port": str(port)}
    settings |= {f"theme.light.{name}": value for name, value in _LIGHT.items()}
    settings |= {f"theme.dark.{name}": value for name, value in _DARK.items()}
    settings |= {} if address in LOOPBACK else {"client.showErrorDetails": "type"}  # a traceback tells of this machine's folders
    return [f"--{name}={value}" for name, value in settings.items()] + [f"--server.allowedHosts={host}" for host in hosts(address)]


def hosts(address: str) -> list[str]:
    """What a browser may call the server: never `any`, or a foreign page could reach it under a name of its own."""
    own = _own_names() if address in _WILDCARDS else [address]
    return list(dict.fromkeys(["localhost", "127.0.0.1", *own]))


def _own_names() -> list[str]:
    """The machine's name, and its addresses on all networks."""
    families = (socket.AF_INET, socket.AF_INET6)
    found = [entry.address.split("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in families]
    return [socket.gethostname().lower(), *found]
