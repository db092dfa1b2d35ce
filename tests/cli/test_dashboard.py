"""Who may use the dashboard: its user, by the token in the address once and by a cookie afterwards; nobody else."""

from __future__ import annotations

from typing import Any

import bottle
import pytest

from searchft.cli.dashboard import protect

TOKEN, PORT = "a-secret", 8123
COOKIE = {"HTTP_COOKIE": f"other=1; searchft-{PORT}={TOKEN}"}


def ask(**environ: str) -> tuple[str, dict[str, str], str]:
    """(status, headers, body) of a request; without anything else a GET of /dashboard/ by this machine's name."""
    answer: list[Any] = []
    application = bottle.Bottle()
    application.route("/dashboard", callback=lambda: "the dashboard")
    protect(application, TOKEN, PORT)
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/dashboard", "HTTP_HOST": f"127.0.0.1:{PORT}", **environ}
    body = application(request, lambda *said: answer.extend(said))
    return answer[0][:3], dict(answer[1]), b"".join(body).decode()


def test_the_token_is_given_once_and_remembered() -> None:
    status, headers, _ = ask(QUERY_STRING=f"token={TOKEN}", PATH_INFO="/dashboard/studies/1")
    assert (status, headers["Location"]) == ("303", "/dashboard/studies/1"), "the address bar does not keep it"
    assert headers["Set-Cookie"].startswith(f"searchft-{PORT}={TOKEN};") and "HttpOnly" in headers["Set-Cookie"]
    status, _, body = ask(**COOKIE)
    assert (status, body) == ("200", "the dashboard")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"QUERY_STRING": "token=wrong"},
        {"QUERY_STRING": "token="},
        {"HTTP_COOKIE": f"searchft-{PORT}=wrong"},
        {"HTTP_COOKIE": f"searchft-{PORT + 1}={TOKEN}"},
        {"HTTP_COOKIE": 'searchft="\\x'},
        {"REQUEST_METHOD": "DELETE", "PATH_INFO": "/api/studies/1", "QUERY_STRING": f"token={TOKEN}"},
    ],
    ids=str,
)
def test_another_user_of_this_machine_can_neither_read_nor_delete(environ: dict[str, str]) -> None:
    status, headers, body = ask(**environ)
    assert status == "403" and "token" in body and "Set-Cookie" not in headers


FOREIGN = ("evil.example", f"evil.example:{PORT}", "127.0.0.1.evil.example", "10.0.0.1", "")


@pytest.mark.parametrize(
    "environ", [*({"HTTP_HOST": host} for host in FOREIGN), {"HTTP_ORIGIN": "http://evil.example"}], ids=str
)
def test_another_page_is_refused_even_with_the_cookie(environ: dict[str, str]) -> None:
    """Of another name that points here (DNS rebinding) or of another origin."""
    assert ask(**COOKIE, **environ)[0] == "403"
    assert {ask(**COOKIE, HTTP_HOST=host)[0] for host in (f"localhost:{PORT}", f"127.0.0.1:{PORT}", "localhost")} == {"200"}


def test_the_token_leads_nowhere_else() -> None:
    _, headers, _ = ask(QUERY_STRING=f"token={TOKEN}", PATH_INFO="//evil.example/\r\nX: y")
    assert headers["Location"] == "/evil.example/%0D%0AX%3A%20y"
