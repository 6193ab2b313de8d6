"""Who may ask the page, and what browsers may do with it: one layer around all requests.

Other pages that are open in the same browser can send requests to this machine. A page whose name an attacker points at
this machine (DNS rebinding) sends that name as Host; every other one sends its own address as Origin.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = {"localhost", "127.0.0.1", "::1"}
EVERYBODY = ("0.0.0.0", "::")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# For answers other than the page, which sets its own.
NOTHING = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """Refuses requests by name or from other pages, and adds the headers to every answer.

    Args:
        host: the address that the server listens on, as the user typed it.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.everybody = app, host in EVERYBODY
        self.hosts = LOCAL | ({socket.gethostname().lower()} if self.everybody else {host.lower()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # nothing here speaks WebSocket
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    added[name] = value
                added.setdefault("Content-Security-Policy", NOTHING)
                if message["status"] >= 400:  # or a sender could continue an upload that is refused for ever
                    added["Connection"] = "close"
            await send(message)

        if not self.is_ours(headers.get("host", "")):
            await PlainTextResponse("unknown Host", 403)(scope, receive, send_guarded)
        elif scope["path"] != "/" and is_foreign(headers):  # a link elsewhere may lead to the page itself
            await PlainTextResponse("from another page", 403)(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def is_ours(self, host: str) -> bool:
        """Whether a request's Host is a name of this server."""
        name = host_name(host)
        return name in self.hosts or (self.everybody and is_address(name))


def host_name(host: str) -> str:
    """The name or address in a Host header, without port and brackets; "" if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a host is an IP address: no name that an attacker could point at this machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign(headers: Headers) -> bool:
    """Whether another page in the browser sent a request. (Other clients send neither header.)"""
    origin = headers.get("origin")
    elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host")
    return elsewhere or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
