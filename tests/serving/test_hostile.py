"""What strangers send: other pages, large, slow, broken and many uploads."""

import asyncio
import http.client
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from bad_images import BAD_IMAGES, USED
from PIL import Image

pytest.importorskip("starlette", reason="starlette is not installed (pip install 'cxr[demo]')")

from starlette.exceptions import HTTPException

from cxr.serving import uploads
from cxr.serving.guards import Guard
from cxr.serving.uploads import Queue

WITHOUT_BYTES = ("link", "pipe", "too many bytes")


@pytest.fixture
def good(drawn):
    return sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()


@pytest.mark.parametrize(
    ("host", "asked", "ours"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "192.168.0.7:8000", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "[", False),
        ("127.0.0.1", "localhost@evil.example", False),
        ("192.168.0.7", "192.168.0.7:8000", True),
        ("0.0.0.0", "192.168.0.7:8000", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", socket.gethostname(), True),
    ],
)
def test_only_names_of_this_server_are_answered(host, asked, ours):
    assert Guard(None, host).is_ours(asked) == ours


def test_other_pages_of_the_browser_get_nothing(url, fetch, good):
    own = url.removeprefix("http://")
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert fetch(f"{url}/answer", good, **headers)[0] == 403
    assert fetch(f"{url}/answer", good, Sec_Fetch_Site="cross-site")[0] == 403
    assert fetch(f"{url}/answer", good, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")[0] == 200
    assert fetch(url, Host="evil.example")[0] == 403
    assert fetch(f"{url}/network", Sec_Fetch_Site="cross-site")[0] == 403, "it would load a network"
    assert fetch(url, Sec_Fetch_Site="cross-site")[0] == 200, "a link to the page"
    assert fetch(f"{url}/network", Origin="http://[")[0] == 403


def test_every_answer_forbids_keeping_and_guessing(url, fetch, good):
    answers = [fetch(url), fetch(f"{url}/answer", good), fetch(f"{url}/answer", b""), fetch(f"{url}/none")]
    answers.append(fetch(url, Host="evil.example"))
    assert [status for status, _, _ in answers] == [200, 200, 422, 404, 403]
    for _, headers, _ in answers:
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'") and "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_an_upload_that_is_too_large_is_not_read(url, fetch, good, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_UPLOAD", 100_000)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/answer")
    connection.putheader("Content-Length", "100001")
    connection.endheaders()  # and not a byte of it
    assert connection.getresponse().status == 413
    connection.close()
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 10_000
            yield b"x" * 10_000

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    with suppress(OSError):  # the server hangs up
        connection.request("POST", "/answer", endless(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert sent < 20_000_000  # what the buffers of both ends hold
    connection.close()
    assert fetch(f"{url}/answer", good)[0] == 200


def test_senders_that_leave_or_wait_are_given_up(url, fetch, good, monkeypatch):
    monkeypatch.setattr(uploads, "SECONDS", 0.3)
    address = url.removeprefix("http://").split(":")
    head = b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"
    waiting = []
    for number in range(20):
        connection = socket.create_connection((address[0], int(address[1])), timeout=20)
        connection.sendall(head)
        if number % 2:
            connection.close()
        else:
            waiting.append(connection)
    assert fetch(f"{url}/answer", good)[0] == 200
    assert all(b" 408 " in connection.recv(100) for connection in waiting)


def test_who_finds_too_long_a_line_is_refused():
    async def visit():
        queue, order = Queue(at_once=1, waiting=1), []

        async def visitor(number):
            try:
                async with queue.turn():
                    order.append(number)
                    await asyncio.sleep(0.01)
            except HTTPException as error:
                order.append(error.status_code)

        await asyncio.gather(*(visitor(number) for number in range(4)))
        await visitor(9)
        return order

    assert sorted(asyncio.run(visit())) == [0, 1, 9, 503, 503]


def damaged(content, rng):
    """A file with some bytes changed, or cut."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.randint(1, len(content))] if rng.random() < 0.5 else content)


def test_500_bad_uploads_50_at_a_time_and_then_a_good_one(url, fetch, good, tmp_path):
    rng, files = random.Random(0), []
    for case, odd in BAD_IMAGES.items():
        if odd.expected != USED and not any(word in case for word in WITHOUT_BYTES):
            odd.write(tmp_path / "odd")
            files.append((tmp_path / "odd").read_bytes())
            (tmp_path / "odd").unlink()
    Image.linear_gradient("L").save(tmp_path / "g.png")
    Image.linear_gradient("L").save(tmp_path / "g.jpg", progressive=True)
    seeds = [(tmp_path / name).read_bytes() for name in ("g.png", "g.jpg")] + [good]
    files += [damaged(rng.choice(seeds), rng) for _ in range(500 - len(files))]
    names = ["../../etc/passwd", "<img src=x onerror=alert(1)>", "%00", "a" * 10_000, "흉부 사진.png"]
    begin = time.monotonic()

    def send(number):
        name = names[number % len(names)].encode("utf-8").hex() if number % 2 else "plain"
        disposition = f'attachment; filename="{name}"'
        return fetch(f"{url}/answer", files[number], Content_Disposition=disposition)[0]

    with ThreadPoolExecutor(50) as senders:
        statuses = list(senders.map(send, range(500)))
    assert {*statuses} <= {200, 422} and statuses.count(422) > 250  # some changed bytes do no harm
    status, _, answer = fetch(f"{url}/answer", good)
    assert status == 200 and answer["predicted"]
    assert time.monotonic() - begin < 15
