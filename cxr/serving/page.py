"""The page as a web application: what it answers to each request."""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cxr.data.decode import UNREADABLE, Decoded, Reading, decode, why_unreadable
from cxr.errors import UserError, one_line, printable
from cxr.reporting.words import LANGUAGES, render, words
from cxr.serving.answers import TEMPLATES, about_network, answer
from cxr.serving.choices import Choice
from cxr.serving.guards import LOCAL, Guard
from cxr.serving.loaded import Loaded, load_choice
from cxr.serving.nearest import can_show, nearest_cases
from cxr.serving.uploads import MAX_UPLOAD, Queue, read_upload

KEPT = 3  # networks in memory
DECODING = 2  # images at once, each in up to 500 MB
REFUSALS = {408: "too_slow", 413: "too_large", 503: "too_many"}  # their words
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page:
    """Answers requests about some networks.

    Args:
        choices: what the page offers; the first is chosen at the start.
        options: of conf/demo.yaml.
    """

    def __init__(self, choices: Sequence[Choice], options: Mapping[str, Any]) -> None:
        self.choices, self.queue, self.host = choices, Queue(), options["host"]
        self.local_only = self.host in LOCAL
        self.reading = Reading(
            options["data"]["negatives"], "ignore", dicom_unknown_parts=options["data"]["dicom_unknown_parts"]
        )
        self.decoders = ThreadPoolExecutor(DECODING, "decoding")
        # One thread: features are taken from a network while it predicts, and two images at once would mix them.
        self.networks = ThreadPoolExecutor(1, "networks")
        self.load = lru_cache(KEPT)(lambda number: load_choice(choices[number], options["trainer"]["accelerator"]))

    def app(self) -> Guard:
        """The application."""
        routes = [
            Route("/", self.show, methods=["GET"]),
            Route("/network", self.about, methods=["GET"]),
            Route("/answer", self.answer, methods=["POST"]),
            Route("/nearest", self.nearest, methods=["POST"]),
        ]
        handlers = {HTTPException: refuse, UserError: cannot}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), self.host)

    async def show(self, request: Request) -> Response:
        """The page itself."""
        lang, nonce = language(request), secrets.token_urlsafe(16)
        page = words(lang, TEMPLATES)
        names = [choice_text(choice, page) for choice in self.choices]
        values = {"names": names, "nonce": nonce, "limit": MAX_UPLOAD, "languages": LANGUAGES}
        text = render("page.html", lang, values, TEMPLATES)
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY.format(nonce=nonce)})

    async def about(self, request: Request) -> Response:
        """What to know about a network."""
        loaded = await self.loaded(request)
        return JSONResponse(about_network(loaded, language(request), self.local_only))

    async def answer(self, request: Request) -> Response:
        """What a network says of the image that is the body of the request."""
        return await self.judge(request, answer, language(request), self.reading.negatives == "invert")

    async def nearest(self, request: Request) -> Response:
        """The training images most like the image that is the body of the request."""
        if not (self.local_only and can_show(await self.loaded(request))):
            raise HTTPException(404)
        return await self.judge(request, nearest_cases, words(language(request), TEMPLATES)["same_image"])

    async def judge(self, request: Request, work: Callable[..., Any], *more: Any) -> Response:
        """The result of `work` on a network, the image that is the body of the request, and `more`."""
        async with self.queue.turn():
            content = await read_upload(request)
            loaded = await self.loaded(request)
            run = asyncio.get_running_loop().run_in_executor
            try:
                images = await run(self.decoders, self.decode, content, loaded)
            except UNREADABLE as error:
                lang = language(request)
                why = printable(why_in_words(why_unreadable(error), lang))
                return problem(422, words(lang, TEMPLATES)["unreadable"].format(why=why))
            return JSONResponse(await run(self.networks, work, loaded, images, *more))

    async def loaded(self, request: Request) -> Loaded:
        """The network that a request names by its number. Raises HTTPException 404 if there is none, UserError if it
        cannot be loaded."""
        number = request.query_params.get("network", "0")
        if not (number.isdecimal() and len(number) < 9 and int(number) < len(self.choices)):
            raise HTTPException(404)
        return await asyncio.get_running_loop().run_in_executor(self.networks, self.load, int(number))

    def decode(self, content: bytes, loaded: Loaded) -> list[Decoded]:
        """An upload in each of a network's sizes. Raises UNREADABLE."""
        return [decode(content, size, self.reading) for size in loaded.model.sizes]


def why_in_words(why: str, lang: str) -> str:
    """Why a file cannot be used, in a language; cxr.data says it in English, which follows in brackets."""
    english, page = words(LANGUAGES[0], TEMPLATES), words(lang, TEMPLATES)
    meant = (page[key] for key, part in english.items() if key.startswith("why_") and part in why)
    return why if page is english else next((f"{text} ({why})" for text in meant), why)


def choice_text(choice: Choice, page: Mapping[str, str]) -> str:
    """A choice as a line of a list."""
    if len(choice.paths) > 1:
        return page["together"].format(n=len(choice.paths), recipe=choice.name).strip(" :")
    score = f" ({page['test_f1'].format(f1=choice.f1_macro)})" if choice.f1_macro is not None else ""
    return printable(choice.name) + score


def language(request: Request) -> str:
    """The language that a request asks for: ?lang=, else the browser's first that the page speaks."""
    asked = [request.query_params.get("lang", "")]
    asked += [part.strip()[:2].lower() for part in request.headers.get("accept-language", "")[:200].split(",")]
    return next((lang for lang in asked if lang in LANGUAGES), LANGUAGES[0])


async def refuse(request: Request, error: HTTPException) -> Response:
    """The answer to a request that is refused."""
    page = words(language(request), TEMPLATES)
    text = page[REFUSALS[error.status_code]] if error.status_code in REFUSALS else HTTPStatus(error.status_code).phrase
    return problem(error.status_code, text)


async def cannot(request: Request, error: UserError) -> Response:
    """The answer where something in the way can be put right, such as a checkpoint that is gone."""
    return problem(422, printable(one_line(error)))


def problem(status: int, text: str) -> Response:
    """An error, a line for the page."""
    return JSONResponse({"error": text}, status)
