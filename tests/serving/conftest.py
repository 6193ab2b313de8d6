"""A page that is served, in a thread of the tests."""

import json
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from cxr.options.command_line import read_options


@contextmanager
def served(ckpt, host="127.0.0.1"):
    """The address of a page about some networks."""
    pytest.importorskip("starlette", reason="starlette is not installed (pip install 'cxr[demo]')")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (pip install 'cxr[demo]')")
    from cxr.serving.choices import choices_of
    from cxr.serving.page import Page
    from cxr.serving.server import listen_on, server_of, url_of

    options = read_options([f"ckpt={ckpt}", f"host={host}", "trainer.accelerator=cpu"], "demo")
    with listen_on(host, 0) as listener:
        server = server_of(Page(choices_of(str(ckpt)), options).app())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def serve():
    return served


@pytest.fixture(scope="module")
def url(sweep):
    """The address of a page about the sweep."""
    with served(sweep) as address:
        yield address


def fetch(address, body=None, **headers):
    """Status, headers and text or, of JSON, content of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(address, body, named), timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read().decode()
        kind = answer.headers.get_content_type()
        return answer.status, answer.headers, json.loads(text) if kind == "application/json" else text


@pytest.fixture(name="fetch", scope="session")
def fetching():
    return fetch
