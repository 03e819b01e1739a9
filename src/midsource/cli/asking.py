"""Who runs a command, as the audit names them; and secrets asked for, which never stand on a command line."""

from __future__ import annotations

import getpass
import os
import pwd
import sys

from midsource.model.errors import UserError
from midsource.security.passwords import MAX_LENGTH
from midsource.security.roles import Visitor, at_command_line


def visitor() -> Visitor:
    """Return whoever runs this command: by the system's own account, which no variable can change."""
    try:
        return at_command_line(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:  # a user that the system does not list, in a container
        return at_command_line(str(os.getuid()))


def password(*, from_stdin: bool) -> str:
    """Return a new password: typed twice at a terminal, or the first line of standard input. Raises UserError."""
    if from_stdin:
        given = sys.stdin.readline(MAX_LENGTH + 2).rstrip("\r\n")
        if not given:
            raise UserError("standard input holds no password", "write it there on one line")
        return given
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to type a password at", "give --password-stdin and write it there")
    first = getpass.getpass("New password: ")
    if getpass.getpass("The same once more: ") != first:
        raise UserError("the two are not the same", "type both again")
    return first
