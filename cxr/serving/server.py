"""Listen on an address, and serve an application there until a signal ends it."""

import socket

import uvicorn
from starlette.applications import Starlette

from cxr.errors import UserError

CONNECTIONS = 300  # at once; further ones are refused
GRACE = 5  # seconds for answers that are under way at the end


def listen_on(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError if it cannot."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:  # a name with an empty part is no IDNA
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"host={host} port={port}: cannot listen there ({why.lower()}); choose another port=N"
        ) from error


def url_of(listener: socket.socket) -> str:
    """What to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def server_of(app: Starlette) -> uvicorn.Server:
    """A server for an application; its run(sockets=[…]) ends with SIGINT or SIGTERM, which reach the handlers from
    before when all answers are sent."""
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
    return uvicorn.Server(config)
