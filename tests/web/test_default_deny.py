"""Every route of both roles is closed to strangers, except the three that are named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from midsource.config import Config, InstanceConfig, Role
from midsource.mid import accounts
from midsource.model.errors import Bug
from midsource.security import access, api_keys, operators, sessions
from midsource.security.roles import PERMISSIONS, SYSTEM, Permission
from midsource.security.roles import Role as OperatorRole
from midsource.store import migrate
from midsource.store.database import Database
from midsource.testing.clock import ManualClock
from midsource.web.app import create_app
from midsource.web.guard import PUBLIC
from midsource.web.routing import Action, Form, Open, Page, Permitted
from midsource.web.serve import compose


async def secret_page(request: Request) -> Response:
    return PlainTextResponse(f"secret of {request.app.state.instance.name}")


async def secret_action(request: Request, _form: Form) -> Response:
    return await secret_page(request)


@pytest.fixture(params=["marketing", "mid"])
def role(request: pytest.FixtureRequest) -> Role:
    found: Role = request.param
    return found


@pytest.fixture
def database(role: Role, make_database: Callable[..., str]) -> Iterator[Database]:
    with Database(role, make_database(), application="tests", max_connections=10) as opened:
        migrate.upgrade(opened, role)
        with opened.transaction() as conn:
            migrate.describe_instance(conn, role, role)
        yield opened


@pytest.fixture
def app(role: Role, database: Database, tmp_path: Path) -> Starlette:
    instance = InstanceConfig(role, role, port=1)
    pages = [
        Page("/", secret_page),
        Action("/", secret_action, needs=Permission.SEE),
        Page("/console/{page}", secret_page),
    ]
    return create_app(Config(tmp_path, instances=(instance,)), instance, database, ManualClock(), pages=pages)


def ask(
    app: Starlette, path: str, method: str = "GET", query: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request through the whole app; return status, headers and body."""
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": named,
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    asyncio.run(app(scope, receive, send))
    start = next(message for message in told if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in told if message["type"] == "http.response.body")
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body


def addresses(app: Starlette) -> list[tuple[str, str]]:
    """Return (method, path) of every route, parameters filled in."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is of a kind that this walk does not know: teach it"
        path = (
            route.path.replace("{delivery_id:int}", "7")
            .replace("{part}", "1")
            .replace("{stream}", "logs")
            .replace("{page}", "x")
        )
        assert "{" not in path, f"{path} has a parameter that this walk does not know: teach it"
        found += [(method, path) for method in sorted(route.methods or {"GET"})]
    return found


def test_every_route_is_closed_to_strangers(app: Starlette, role: Role) -> None:
    walked = addresses(app)
    assert ("GET", "/mid/v1/hello") in walked or role == "marketing"
    for method, path in walked:
        if path in PUBLIC:
            continue
        for headers in ({}, {"authorization": "Bearer wrong.key"}, {"cookie": f"midsource_console_{role}=wrong"}):
            status, _, body = ask(app, path, method, **headers)
            assert status == 401, (method, path, headers)
            assert b"secret" not in body
            assert b'"code":"MS-430"' in body


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/mid",
        "/mid/",
        "/mid/v2/hello",
        "//mid/v1/hello",
        "/MID/v1/hello",
        "/healthz/",
        "/docs",
        "/static/../",
    ],
)
def test_what_is_no_route_is_closed_as_well(app: Starlette, path: str, role: Role) -> None:
    no_mid = role == "marketing" and path.startswith("/mid/")
    assert ask(app, path)[0] == (404 if no_mid else 401)


def test_a_marketing_instance_says_that_it_is_no_mid(app: Starlette, role: Role) -> None:
    if role == "marketing":
        assert b"not a mid" in ask(app, "/mid/v1/hello", authorization="Bearer a.b")[2]


def test_the_public_routes_answer_everybody(app: Starlette) -> None:
    assert {path: ask(app, path)[0] for path in PUBLIC} == dict.fromkeys(PUBLIC, 200)


def test_the_token_is_traded_for_a_cookie_that_opens_the_pages(app: Starlette, tmp_path: Path, role: Role) -> None:
    token = access.token(tmp_path)
    status, headers, _ = ask(app, "/console/x", query=f"a=1&token={token}&b=%26")
    assert (status, headers["location"]) == (303, "/console/x?a=1&b=%26")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert token not in cookie
    session = cookie.partition(";")[0]
    assert ask(app, "/console/x", cookie=session)[2] == f"secret of {role}".encode()
    assert ask(app, "/", "GET", cookie=session)[0] == 200
    assert ask(app, "/", authorization=f"Bearer {token}")[0] == 200
    assert ask(app, "/", query="token=wrong")[0] == 401
    assert ask(app, "/nothing", cookie=session)[0] == 404


def test_an_action_asks_for_a_form_of_this_session_from_our_own_page(
    app: Starlette, tmp_path: Path, role: Role
) -> None:
    mine = access.ConsoleAccess.load(tmp_path, role)
    session = mine.start(ManualClock().now())
    home = mine.visitor(session, ManualClock().now())
    assert home is not None
    form = {"cookie": f"{mine.cookie}={session}", "content_type": "application/x-www-form-urlencoded"}
    assert ask(app, "/", "POST", **form, x_csrf=home.csrf)[0] == 200
    assert ask(app, "/", "POST", **form, x_csrf=home.csrf, sec_fetch_site="cross-site")[0] == 403
    assert ask(app, "/", "POST", **form)[0] == 403
    assert ask(app, "/", "POST", **form, x_csrf=session)[0] == 403
    assert ask(app, "/", "POST", cookie=form["cookie"], content_type="text/plain", x_csrf=home.csrf)[0] == 415


@pytest.fixture
def whole(role: Role, database: Database, tmp_path: Path) -> Starlette:
    """Give the whole web app of an instance, as it is served."""
    instance = InstanceConfig(role, role, port=8100)
    return compose(Config(tmp_path, instances=(instance,)), instance, database, ManualClock())


def in_place(path: str) -> str:
    """Fill a path's parameters in."""
    return re.sub(r"\{\w+(:\w+)?\}", lambda found: "7" if found[1] == ":int" else "x", path)


def test_every_page_and_action_of_the_whole_is_closed_to_strangers_but_the_log_in(whole: Starlette) -> None:
    served = [route for route in whole.routes if isinstance(route, Route)]
    opened = {route.path for route in served if isinstance(route, Open)}
    assert opened == {"/login"}
    for route in served:
        if route.path in PUBLIC | opened:
            continue
        for method in route.methods or ():
            assert ask(whole, in_place(route.path), method, host="localhost")[0] == 401, (method, route.path)


@pytest.mark.parametrize("holder", OperatorRole)
def test_each_role_reaches_what_its_permissions_name_and_nothing_else(
    whole: Starlette, database: Database, role: Role, holder: OperatorRole
) -> None:
    cookie = signed_in(database, holder)
    walked = {True: 0, False: 0}
    for route in whole.routes:
        if not isinstance(route, Permitted):
            continue
        may = route.needs in PERMISSIONS[holder]
        for method in (route.methods or set()) - {"HEAD"}:
            if may and method == "GET":
                continue  # the pages themselves are looked at by their own tests
            status, _, body = ask(
                whole, in_place(route.path), method, host="localhost",
                cookie=f"midsource_console_{role}={cookie}", content_type="application/x-www-form-urlencoded",
            )  # fmt: skip
            said = b"the form is not of this session" if may else b"lacks the permission to " + route.needs.encode()
            assert (status, said in body) == (403, True), (method, route.path, body)
            walked[may] += 1
    assert walked[True] >= 4, "own account, log-out"
    assert walked[False] >= (0 if holder is OperatorRole.ADMIN else 10)


def signed_in(database: Database, holder: OperatorRole) -> str:
    with database.transaction() as conn:
        number = operators.add(conn, SYSTEM, "somebody", [holder], "$argon2id$")
        return sessions.start(conn, number, ManualClock().now()).cookie


def test_no_action_is_for_those_who_only_read(whole: Starlette) -> None:
    of_everybody = {"/logout", "/me/password", "/me/language", "/me/sessions"}
    read_only = {route.path for route in whole.routes if isinstance(route, Action) and route.needs is Permission.SEE}
    assert read_only == of_everybody


def test_a_key_opens_what_its_scopes_name(whole: Starlette, database: Database) -> None:
    with database.transaction() as conn:
        key = api_keys.issue(conn, SYSTEM, "x", [Permission.METRICS], ManualClock().now())
    bearer = {"host": "localhost", "authorization": f"Bearer {key}"}
    assert ask(whole, "/metrics", **bearer)[0] == 200
    assert ask(whole, "/operators", **bearer)[0] == 403
    assert ask(whole, "/api/v1/openapi.json", **bearer)[0] == 403
    assert ask(whole, "/metrics", host="localhost", authorization=f"Bearer {key[:-1]}")[0] == 401


def test_a_session_changes_nothing_through_the_api_without_its_csrf(
    whole: Starlette, database: Database, role: Role
) -> None:
    cookie = signed_in(database, OperatorRole.ADMIN)
    with database.connection() as conn:
        visitor = sessions.find(conn, cookie, ManualClock().now())
    assert visitor is not None
    mine = {"host": "localhost", "cookie": f"midsource_console_{role}={cookie}"}
    status, _, body = ask(whole, "/api/v1/nothing", "POST", **mine)
    assert (status, b"not of this session" in body) == (403, True)
    assert ask(whole, "/api/v1/nothing", "POST", **mine, x_csrf=visitor.csrf)[0] == 404
    assert ask(whole, "/api/v1/nothing", "POST", **mine, x_csrf=visitor.csrf, origin="http://evil.test")[0] == 403


def test_a_route_without_a_permission_cannot_be_added(tmp_path: Path, database: Database, role: Role) -> None:
    instance = InstanceConfig(role, role, port=1)
    with pytest.raises(Bug, match="names no permission"):
        create_app(
            Config(tmp_path, instances=(instance,)), instance, database, ManualClock(), pages=[Route("/x", secret_page)]
        )


def test_the_token_in_an_address_leads_to_no_other_host(app: Starlette, tmp_path: Path) -> None:
    _, headers, _ = ask(app, "//evil.test/x", query=f"token={access.token(tmp_path)}")
    assert headers["location"] == "/evil.test/x"


def test_the_operators_token_is_no_key_of_an_account_nor_the_reverse(
    app: Starlette, tmp_path: Path, role: Role, database: Database
) -> None:
    assert ask(app, "/mid/v1/hello", authorization=f"Bearer {access.token(tmp_path)}")[0] in (401, 404)
    if role == "mid":
        with database.transaction() as conn:
            _, key = accounts.create(conn, "default")
        assert ask(app, "/mid/v1/hello", authorization=f"Bearer {key}")[0] == 200
        assert ask(app, "/", authorization=f"Bearer {key}")[0] == 401
