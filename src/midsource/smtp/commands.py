"""What a client says about a message: command lines, the body's dots, and the refusals a server need not be asked for."""

from __future__ import annotations

from midsource.model.outcome import Reply
from midsource.smtp.events import Capabilities, Transaction


def mail_line(transaction: Transaction, offered: Capabilities) -> str:
    """Return MAIL with the parameters the message needs and the server knows (RFC 1870 6, 6152 2, 6531 3.4)."""
    size = f" SIZE={len(transaction.body)}" if offered.size else ""
    eightbit = " BODY=8BITMIME" if transaction.eightbit else ""
    utf8 = " SMTPUTF8" if transaction.smtputf8 else ""
    return f"MAIL FROM:<{transaction.mail_from}>{size}{eightbit}{utf8}\r\n"


def rcpt_line(transaction: Transaction) -> str:
    """Return RCPT."""
    return f"RCPT TO:<{transaction.rcpt}>\r\n"


def group(transaction: Transaction, offered: Capabilities) -> str:
    """Return the commands that travel together (RFC 2920 3.1: DATA is the last of its group)."""
    return f"{mail_line(transaction, offered)}{rcpt_line(transaction)}DATA\r\n"


def stuff(body: bytes) -> bytes:
    """Double the dot that begins a line (RFC 5321 4.5.2)."""
    stuffed = body.replace(b"\r\n.", b"\r\n..") if b"\r\n." in body else body
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def own_refusal(transaction: Transaction, offered: Capabilities) -> Reply | None:
    """Return what this server would have to answer to MAIL, None where it may take the message."""
    size = len(transaction.body)
    if offered.size and size > offered.size:
        return Reply(552, "5.3.4", f"not tried: {size} bytes, the server takes at most {offered.size}")
    if transaction.smtputf8 and not offered.smtputf8:
        return Reply(550, "5.6.7", "not tried: the server does not offer SMTPUTF8")
    if transaction.eightbit and not offered.eightbitmime:
        return Reply(554, "5.6.3", "not tried: the server does not offer 8BITMIME")
    return None
