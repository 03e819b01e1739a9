"""The inbox page and the JSON, over real HTTP."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from tests.sandbox.sandbox_process import RunningSandbox

_EVIL = (
    b"Message-ID: <evil@x>\r\nX-Midsource-Id: 66.1\r\nSubject: <script>alert(1)</script>\r\n"
    b'X-Odd: "><img src=x onerror=alert(1)>\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n'
    b"--b\r\nContent-Type: text/plain\r\n\r\n</pre><script>alert(2)</script>\r\n"
    b"--b\r\nContent-Type: text/html\r\n\r\n<script>alert(3)</script><a href='http://127.0.0.1:1/'>go</a>\r\n--b--\r\n"
)


def _send(sandbox: RunningSandbox, delivery: int, count: int, domain: str = "gmail.example") -> list[int]:
    numbers = []
    for n in range(count):
        body = b"Message-ID: <%d-%d@x>\r\nX-Midsource-Id: %d.%d\r\nSubject: Hello %d\r\n\r\nhi\r\n" % (
            delivery, n, delivery, n, n,
        )  # fmt: skip
        reply = sandbox.send(f"p{n}@{domain}", body)
        assert reply.startswith("250 2.0.0 kept as "), reply
        numbers.append(int(reply.rpartition(" ")[2]))
    return numbers


class _Tags(HTMLParser):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and "href" in attrs]


def test_inbox_json_filters_and_pages(sandbox: RunningSandbox) -> None:
    numbers = _send(sandbox, 31, 5, "laposte.example")
    first = sandbox.json("/inbox.json?delivery=31&limit=3")
    assert [line["n"] for line in first["messages"]] == numbers[:1:-1]
    second = sandbox.json(f"/inbox.json?delivery=31&limit=3&after={first['after']}")
    assert [line["n"] for line in second["messages"]] == numbers[1::-1]
    assert [line["n"] for line in sandbox.json("/inbox.json?domain=laposte.example&q=HELLO+2")["messages"]] == [
        numbers[2]
    ]
    assert len(sandbox.json("/inbox.json?limit=100000")["messages"]) <= 500


def test_a_message_as_json_and_raw(sandbox: RunningSandbox) -> None:
    number = _send(sandbox, 32, 1)[0]
    message = sandbox.json(f"/inbox/{number}.json")
    assert (message["rcpt"], message["delivery"], message["id"]) == ("p0@gmail.example", "32", "32.0")
    assert ["Subject", "Hello 0"] in message["headers"]
    assert message["text"].strip() == "hi"
    assert message["kept"] is True
    status, headers, content = sandbox.get(f"/inbox/{number}/raw")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert content.endswith(b"Subject: Hello 0\r\n\r\nhi\r\n")
    assert len(content) == message["size"]


def test_summary_and_truth_agree(sandbox: RunningSandbox) -> None:
    _send(sandbox, 33, 4)
    _send(sandbox, 33, 2)
    count = sandbox.json("/summary.json")["by_delivery"]["33"]
    assert count == {"received": 6, "distinct": 4, "unanswered": 0}
    truth = sandbox.truth("33")
    assert len(truth) == 6
    assert {line["message_id"] for line in truth} == {f"33-{n}@x" for n in range(4)}
    assert [line["duplicate"] for line in truth] == [False] * 4 + [True] * 2
    assert len(sandbox.truth()) == sandbox.json("/summary.json")["received"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/inbox/99999999", 404),
        ("/inbox/99999999.json", 404),
        ("/inbox/99999999999999999999999999/raw", 404),
        ("/inbox/99999999/html", 404),
        ("/inbox.json?after=x", 422),
        ("/?limit=x", 422),
        ("/no-such-page", 404),
        ("/inbox/../../etc/passwd", 404),
        ("/clear", 405),
    ],
)
def test_what_is_not_there_is_said(sandbox: RunningSandbox, path: str, status: int) -> None:
    answer, headers, _ = sandbox.get(path)
    assert answer == status
    assert "default-src 'none'" in headers["content-security-policy"]


def test_only_the_loopback_names_are_answered(sandbox: RunningSandbox) -> None:
    for host, status in (
        (f"127.0.0.1:{sandbox.http_port}", 200),
        ("localhost", 200),
        ("evil.example", 400),
        (f"127.0.0.1.evil.example:{sandbox.http_port}", 400),
    ):
        assert sandbox.get("/summary.json", {"Host": host})[0] == status


def test_another_site_cannot_clear(sandbox: RunningSandbox) -> None:
    _send(sandbox, 34, 1)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ):
        assert sandbox.get("/clear", headers, method="POST")[0] == 403
    assert sandbox.truth("34")


def test_the_page_lists_searches_and_pages(sandbox: RunningSandbox) -> None:
    numbers = _send(sandbox, 35, 3, "sapo.example")
    status, headers, content = sandbox.get("/?delivery=35&limit=2")
    assert status == 200
    assert "script" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    links = _Tags(content).links()
    assert [link for link in links if link.startswith("inbox/")] == [f"inbox/{n}" for n in numbers[:0:-1]]
    assert f"./?delivery=35&after={numbers[1]}" in links
    assert b"p0@sapo.example" not in content
    assert b"No message matches" in sandbox.get("/?q=nobody-has-this")[2]


def test_every_link_on_the_pages_leads_somewhere(sandbox: RunningSandbox) -> None:
    number = sandbox.send("alice@gmail.example", _EVIL).rpartition(" ")[2]
    for page, base in (("/?delivery=66", "/"), (f"/inbox/{number}", "/inbox/")):
        status, _, content = sandbox.get(page)
        assert status == 200
        tags = _Tags(content).tags
        targets = [attrs.get("href") or attrs.get("src") for tag, attrs in tags if tag in ("a", "link", "iframe")]
        assert len(targets) >= 3
        for target in targets:
            assert target
            path = re.sub(r"^/inbox/\.\./", "/", base + target).replace("/./", "/")
            assert sandbox.get(path)[0] == 200, (page, target)


def test_mail_is_shown_without_any_right(sandbox: RunningSandbox) -> None:
    number = sandbox.send("alice@gmail.example", _EVIL).rpartition(" ")[2]
    _, headers, page = sandbox.get(f"/inbox/{number}")
    tags = _Tags(page).tags
    assert not [tag for tag, _ in tags if tag in ("script", "img")]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on") or name == "style"]
    assert [attrs["sandbox"] for tag, attrs in tags if tag == "iframe"] == [
        "allow-popups allow-popups-to-escape-sandbox"
    ]
    status, headers, content = sandbox.get(f"/inbox/{number}/html")
    assert status == 200
    assert b"alert(3)" in content
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.startswith("sandbox ")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    _, _, listed = sandbox.get("/?delivery=66")
    assert b"&lt;script&gt;" in listed
    assert not [tag for tag, _ in _Tags(listed).tags if tag == "script"]


def test_clear_forgets_and_goes_back_to_the_page(sandbox: RunningSandbox) -> None:
    """Last in this module: the others' messages go."""
    number = _send(sandbox, 36, 1)[0]
    status, headers, _ = sandbox.get(
        "/clear",
        {"Accept": "text/html", "Origin": f"http://127.0.0.1:{sandbox.http_port}", "Sec-Fetch-Site": "same-origin"},
        method="POST",
    )
    assert (status, headers["location"]) == (303, "./")
    assert sandbox.json("/summary.json")["received"] == 0
    assert b"No message yet" in sandbox.get("/")[2]
    assert sandbox.get(f"/inbox/{number}")[0] == 404
    assert _send(sandbox, 36, 1) == [number + 1]
