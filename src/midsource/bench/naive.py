"""The naive Python sender: what one writes in an afternoon with `email`, `dkimpy` and `aiosmtplib`. A process of its own.

    python -m midsource.bench.naive <port> <messages> <private key file>

Each message of the newsletter is rendered by Jinja2 into an `EmailMessage`, signed by dkimpy and sent over one of ten
connections that are kept. Nothing is remembered. It prints the seconds from its first message to its last answer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jinja2

from midsource.bench import newsletter

CONNECTIONS = 10
SELECTOR, DOMAIN = b"s1", b"news.exemple.fr"
_SIGNED = [
    b"from",
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"mime-version",
    b"content-type",
    b"list-unsubscribe",
]


async def send(port: int, messages: int, key: bytes) -> float:
    """Send ``messages`` messages; return the seconds."""
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - plain text and HTML alike, as such scripts do
    content = newsletter.newsletter(tracked=True)
    templates = [environment.from_string(source) for source in (content.subject, content.text, content.html)]
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in range(1, messages + 1):
        queue.put_nowait(number)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(CONNECTIONS, messages)):
            tasks.create_task(_connection(port, queue, templates, key))
    return time.perf_counter() - began


async def _connection(port: int, queue: asyncio.Queue[int], templates: list[jinja2.Template], key: bytes) -> None:
    import aiosmtplib  # noqa: PLC0415 - the naive sender's alone; the benchmark runs without it
    import dkim  # noqa: PLC0415

    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False) as client:
        while not queue.empty():
            number = queue.get_nowait()
            message = _message(number, templates)
            raw = message.as_bytes(policy=SMTP)
            signature = dkim.sign(raw, SELECTOR, DOMAIN, key, include_headers=_SIGNED)
            await client.sendmail("lettre@news.exemple.fr", [message["To"]], signature + raw)


def _message(number: int, templates: list[jinja2.Template]) -> EmailMessage:
    envelope = newsletter.envelope(number)
    names: dict[str, Any] = {
        "recipient": newsletter.person(number), "brand": {"name": "La Maison d'Été"}, "links": envelope.links,
    }  # fmt: skip
    subject, text, html = (template.render(names) for template in templates)
    message = EmailMessage()
    message["From"] = "La Maison d'Été <lettre@news.exemple.fr>"
    message["To"] = envelope.to_address
    message["Subject"] = subject
    message["Date"] = format_datetime(envelope.date)
    message["Message-ID"] = f"<{envelope.message_id}>"
    message["Reply-To"] = "contact@exemple.fr"
    message["List-Unsubscribe"] = f"<{envelope.links['unsubscribe']}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


if __name__ == "__main__":
    print(asyncio.run(send(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).read_bytes())))
