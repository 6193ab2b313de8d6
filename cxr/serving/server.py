"""Listen on an address, and serve an application there until it is asked to stop."""

import errno
import logging
import socket
from contextlib import AbstractContextManager, nullcontext

import uvicorn
from starlette.types import ASGIApp

from cxr.errors import UserError

CONNECTIONS = 300  # at once; further ones are refused
GRACE = 2  # seconds for answers that are under way at the end


class Server(uvicorn.Server):
    """Ends when `should_exit` is set. It leaves the signals to cxr.training.signals: uvicorn would raise them once more
    after its work, which there means to end at once."""

    def capture_signals(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # It would print the stack of each upload that has not arrived after GRACE.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def listen_on(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError if it cannot."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:  # a name with an empty part is no IDNA
        why = getattr(error, "strerror", None) or str(error)
        taken = getattr(error, "errno", None) == errno.EADDRINUSE
        another = "port=N" if taken else "host=ADDRESS or port=N"
        raise UserError(
            f"host={host} port={port}: cannot listen there ({why.lower()}); choose another {another}"
        ) from error


def url_of(listener: socket.socket) -> str:
    """What to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(app: ASGIApp) -> Server:
    """A server for an application, to run(sockets=[…])."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    return Server(config)
