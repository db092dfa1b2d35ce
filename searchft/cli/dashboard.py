"""`searchft dashboard`: the real optuna-dashboard on a study, also while it runs.

Its own `run_server` serves one request at a time (a browser's idle connection stops it), and swallows a Ctrl-C in one.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import sys
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import click
from bottle import HTTPResponse, request

from searchft.cli.output import say
from searchft.cli.studies import examples, find_study, study_options
from searchft.errors import InputError

HOST = "127.0.0.1"
"""It is never offered to other machines: optuna-dashboard has no authentication, and ours is a token in an address."""

OWN_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)  # as a browser on this machine may ask

STYLE = b"<style>body *{overflow-wrap:anywhere}p,td{white-space:normal!important}</style></head>"
"""A trial's attributes are long lines: without this they make the pages many screens wide."""

DEFAULT_PORT = 8080
TRIES = 20  # ports that are tried from the default one upwards, if none was asked for


@click.command("dashboard", epilog=examples("dashboard quickstart", "dashboard quickstart --port 9000"))
@click.option("--port", type=click.IntRange(0, 65535), default=None, help=f"Port; default {DEFAULT_PORT} or the next free one.")
@study_options
def command(study: str, port: int | None, studies: Path, storage: str) -> None:
    """Serve optuna-dashboard for STUDY on this machine only, until Ctrl-C. Works while the study runs."""
    found = find_study(study, studies, storage)
    from optuna_dashboard import wsgi

    from searchft.cli.annotate import Annotator
    from searchft.report.notes import artifact_store
    from searchft.search.storage import open_storage

    opened = open_storage(found.url, found.folder, create=False)
    known = {s.study_name: s._study_id for s in opened.get_all_studies()}
    if found.name not in known:
        raise InputError(f"there is no study '{found.name}' in this database", study)
    server, token = _listen(port), secrets.token_urlsafe(16)
    application: Any = wsgi(opened, artifact_store=artifact_store(found.folder))
    protect(application, token, server.server_port)
    server.set_app(application)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # a search beside us goes first
    stop = threading.Event()
    annotating = threading.Thread(target=Annotator(found).run, args=(stop,), daemon=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    say(f"http://{HOST}:{server.server_port}/dashboard/studies/{known[found.name]}?token={token}")
    say("The token keeps other users of this machine out; your browser remembers it after the first visit.")
    say("Learning curves, confusion matrices and most confused images appear in each trial's artifacts as they are made.")
    say("Ctrl-C ends it; a running search goes on.")
    annotating.start()
    try:
        while thread.is_alive():
            thread.join(1.0)
    except KeyboardInterrupt:
        say("")
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
    annotating.join(1.0)
    if annotating.is_alive():
        # An interpreter that shuts down cannot unwind torch's own code: it would abort. What the thread writes is written whole
        # or not at all.
        sys.stderr.flush()
        os._exit(0)


def protect(application: Any, token: str, port: int) -> None:
    """Makes a Bottle application refuse (403) whoever does not know `token`, or does not come from its own pages; adds STYLE.

    The token comes in the address once, and as a cookie afterwards: without it any user of this machine could delete the study.
    Binding to the loopback interface keeps other machines out, but not a page in the user's own browser whose name was pointed
    at 127.0.0.1 (DNS rebinding), nor one that posts forms here.
    """
    name = f"searchft-{port}"  # a browser's cookies are shared by all ports of a host

    @application.hook("before_request")
    def check() -> None:
        origin = request.get_header("Origin", "")
        asked = [request.get_header("Host", ""), *([origin.partition("://")[2]] if origin else [])]
        if not all(map(OWN_NAMES.fullmatch, asked)):
            why = "This dashboard answers to 127.0.0.1 and localhost only. To share it, put a proxy with a login before it.\n"
            raise HTTPResponse(why, 403)
        cookies = request.get_header("Cookie", "").split("; ")
        if any(hmac.compare_digest(cookie.encode(), f"{name}={token}".encode()) for cookie in cookies):
            return
        if request.method == "GET" and hmac.compare_digest(request.query.get("token", "").encode(), token.encode()):
            answer = HTTPResponse(status=303, Location="/" + quote(request.path.lstrip("/")))
            answer.set_cookie(name, token, path="/", httponly=True, samesite="lax")
            raise answer
        raise HTTPResponse("Open the whole address that searchft dashboard printed, with its token.\n", 403)

    def with_style(callback: Any) -> Any:
        def styled(*args: Any, **kwargs: Any) -> Any:
            page = callback(*args, **kwargs)
            if isinstance(page, HTTPResponse) and page.content_type.startswith("text/html") and hasattr(page.body, "read"):
                with page.body as file:
                    page.body = file.read().replace(b"</head>", STYLE, 1)
                page.set_header("Content-Length", len(page.body))
            return page

        return styled

    application.install(with_style)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line per request is no news to anybody."""


def _listen(asked: int | None) -> WSGIServer:
    """A server on the port asked for, or on the first free one from the default on. Raises InputError where it is taken."""
    for port in [asked] if asked is not None else range(DEFAULT_PORT, DEFAULT_PORT + TRIES):
        with contextlib.suppress(OSError):
            return _Server((HOST, port), _Handler)
    taken = f"port {asked} is taken" if asked is not None else f"ports {DEFAULT_PORT} to {DEFAULT_PORT + TRIES - 1} are taken"
    raise InputError(f"{taken}: choose another", "--port")
