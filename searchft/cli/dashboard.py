"""`searchft dashboard`: the real optuna-dashboard on a study, also while it runs.

Its WSGI application is served from here rather than by its own `run_server`: that one serves one request at a time (a
browser's idle connection stops it), and swallows a Ctrl-C that comes during a request.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import say
from searchft.cli.studies import find_study, storage_option, studies_option
from searchft.errors import InputError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

HOST = "127.0.0.1"
"""It is never offered to other machines: optuna-dashboard has no authentication, and ours is a token in an address."""

OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a browser on this machine may ask."""

STYLE = b"<style>body *{overflow-wrap:anywhere}p,td{white-space:normal!important}</style></head>"
"""A trial's attributes are long lines: without this they make the pages many screens wide."""

DEFAULT_PORT = 8080
TRIES = 20
"""Ports that are tried from the default one upwards, if none was asked for."""

EPILOG = """\b
Example:
  searchft dashboard quickstart
  searchft dashboard quickstart --port 9000"""


@click.command("dashboard", epilog=EPILOG)
@click.argument("study")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help=f"Port; default {DEFAULT_PORT} or the next free one.")
@studies_option
@storage_option
def command(study: str, port: int | None, studies: Path, storage: str) -> None:
    """Serve optuna-dashboard for STUDY on this machine only, until Ctrl-C. Works while the study runs."""
    found = find_study(study, studies, storage)
    from searchft.search.storage import open_storage

    storage_here = open_storage(found.url, found.folder, create=False)
    known = {s.study_name: s._study_id for s in storage_here.get_all_studies()}
    if found.name not in known:
        raise InputError(f"there is no study '{found.name}' in this database", study)
    import os
    import secrets
    import sys
    import threading

    from optuna_dashboard import wsgi

    from searchft.cli.annotate import Annotator
    from searchft.report.notes import artifact_store

    server, token = _listen(port), secrets.token_urlsafe(16)
    application = with_lines_that_wrap(wsgi(storage_here, artifact_store=artifact_store(found.folder)))
    server.set_app(only_for_this_user(application, token, server.server_port))
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
        # It is in the middle of torch's own code, which an interpreter that shuts down cannot unwind: that ends in an abort. What
        # it writes is written whole or not at all.
        sys.stderr.flush()
        os._exit(0)


def only_for_this_user(application: Any, token: str, port: int) -> Any:
    """A WSGI application that refuses (403) whoever does not know `token`, or does not come from this machine's own pages.

    The token comes in the address once, and as a cookie afterwards: without it any user of this machine could delete the study.
    Binding to the loopback interface keeps other machines out, but not a page in the user's own browser whose name was pointed
    at 127.0.0.1 (DNS rebinding), nor one that posts forms here.
    """
    import hmac
    from http.cookies import CookieError, SimpleCookie
    from urllib.parse import parse_qs, quote

    name = f"searchft-{port}"  # a browser's cookies are shared by all ports of a host

    def refuse(start_response: Any, why: str) -> list[bytes]:
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [why.encode()]

    def guarded(environ: dict[str, Any], start_response: Any) -> Any:
        origin = environ.get("HTTP_ORIGIN", "")
        if not _names_us(environ.get("HTTP_HOST", "")) or (origin and not _names_us(origin.partition("://")[2])):
            why = "This dashboard answers to 127.0.0.1 and localhost only. To share it, put a proxy with a login before it.\n"
            return refuse(start_response, why)
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
        except CookieError:
            cookie = None
        if cookie is not None and hmac.compare_digest(cookie.value.encode(), token.encode()):
            return application(environ, start_response)
        given = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
        if environ.get("REQUEST_METHOD") == "GET" and hmac.compare_digest(given.encode(), token.encode()):
            remember = ("Set-Cookie", f"{name}={token}; Path=/; HttpOnly; SameSite=Lax")
            start_response("303 See Other", [("Location", "/" + quote(environ.get("PATH_INFO", "").lstrip("/"))), remember])
            return [b""]
        return refuse(start_response, "Open the whole address that searchft dashboard printed, with its token.\n")

    return guarded


def with_lines_that_wrap(application: Any) -> Any:
    """A WSGI application whose HTML pages carry STYLE."""

    def styled(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("REQUEST_METHOD") != "GET" or not environ.get("PATH_INFO", "").startswith("/dashboard"):
            return application(environ, start_response)
        for name in ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE", "HTTP_ACCEPT_ENCODING"):
            environ.pop(name, None)  # the page comes whole and plain, not as "nothing new"
        answer: list[Any] = []
        body = application(environ, lambda status, headers, *rest: answer.extend([status, headers]))
        try:
            page = b"".join(body).replace(b"</head>", STYLE, 1)
        finally:
            getattr(body, "close", lambda: None)()
        status, headers = answer
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*kept, ("Content-Length", str(len(page)))])
        return [page]

    return styled


def _names_us(host: str) -> bool:
    """Whether `localhost:8080` and the like is this machine."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower() in OWN_NAMES


def _listen(asked: int | None) -> WSGIServer:
    """A server on the port asked for, or on the first free one from the default on. Raises InputError where it is taken."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        allow_reuse_address = True

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """A line per request is no news to anybody."""

    for port in [asked] if asked is not None else range(DEFAULT_PORT, DEFAULT_PORT + TRIES):
        with contextlib.suppress(OSError):
            return Server((HOST, port), Handler)
    taken = f"port {asked} is taken" if asked is not None else f"ports {DEFAULT_PORT} to {DEFAULT_PORT + TRIES - 1} are taken"
    raise InputError(f"{taken}: choose another", "--port")
