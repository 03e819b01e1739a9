"""Operators: people who use the console, with a password, one or several roles, and a language.

Whatever changes what somebody may do or proves who they are ends their sessions in the same transaction. An operator who
leaves is disabled and stays in the list, because the audit names them. ``home``, whoever holds the home folder, and
``system`` are no operators: their names cannot be taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from midsource.model.errors import Conflict, NotFound, UserError
from midsource.security import audit, sessions
from midsource.security.roles import Role, Visitor
from midsource.store.database import Connection, scalar

MAX_OPERATORS = 500
"""People of one instance. The list is shown whole."""
RESERVED = frozenset({"home", "system", "demo", "operator", "new"})
_NAME = re.compile(r"[a-z][a-z0-9._@-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator, without the password."""

    id: int
    name: str
    roles: tuple[Role, ...]
    language: str
    disabled_at: datetime | None
    created_at: datetime
    created_by: str
    not_before: datetime | None
    """Until when log-ins wait, after several failed."""


def add(conn: Connection, visitor: Visitor, name: str, roles: Sequence[Role], password_hash: str) -> int:
    """Make an operator; return the number. Raises UserError for a name that is bad or taken, or no role at all."""
    check_name(name)
    if scalar(conn, "select count(*) from operator") >= MAX_OPERATORS:
        raise UserError(f"there are {MAX_OPERATORS} operators already", "give an existing one to whoever comes")
    number = scalar(
        conn,
        "insert into operator (name, password_hash, roles, created_by) values (%s, %s, %s, %s) "
        "on conflict (name) do nothing returning id",
        (name, password_hash, _kept(roles), visitor.name),
    )
    if number is None:
        raise UserError(f"there is already an operator {name!r}", "choose another name")
    audit.record(conn, visitor, "operator.add", name, roles=_kept(roles))
    return int(number)


def check_name(name: str) -> None:
    """Raise UserError unless ``name`` can name an operator."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:63]!r} cannot name an operator",
            "use small letters, digits and . _ @ -, beginning with a letter, 63 at most",
        )
    if name in RESERVED:
        raise UserError(f"{name!r} is a name of midsource itself", "choose another name")


def check_roles(roles: Sequence[Role]) -> None:
    """Raise UserError where there is none."""
    if not roles:
        raise UserError("an operator needs a role", f"choose among {', '.join(Role)}")


def list_operators(conn: Connection) -> list[Operator]:
    """Return all operators by name, the disabled ones last."""
    rows = conn.execute(
        "select id, name, roles, language, disabled_at, created_at, created_by, not_before from operator "
        "order by disabled_at is not null, name limit %s",
        (MAX_OPERATORS,),
    )
    return [_operator(row) for row in rows]


def find(conn: Connection, name: str) -> Operator:
    """Return one operator. Raises NotFound."""
    row = conn.execute(
        "select id, name, roles, language, disabled_at, created_at, created_by, not_before from operator where name = %s",
        (name.replace("\0", ""),),
    ).fetchone()
    if row is None:
        names = [known for (known,) in conn.execute("select name from operator order by name limit 20")]
        raise NotFound(f"there is no operator {name[:63]!r}", f"operators: {', '.join(names) or 'none'}")
    return _operator(row)


def password_hash(conn: Connection, name: str) -> str | None:
    """Return the stored hash of an operator's password, None where there is none of that name."""
    found: str | None = scalar(conn, "select password_hash from operator where name = %s", (name,))
    return found


def set_password(conn: Connection, visitor: Visitor, name: str, password_hash: str, *, but: str = "") -> int:
    """Change a password, forgive failed log-ins, end the sessions but the one of cookie ``but``; return how many."""
    found = find(conn, name)
    conn.execute(
        "update operator set password_hash = %s, failures = 0, not_before = null where id = %s",
        (password_hash, found.id),
    )
    ended = sessions.end_all(conn, found.id, but=but)
    audit.record(conn, visitor, "operator.password", name, sessions_ended=ended)
    return ended


def set_roles(conn: Connection, visitor: Visitor, name: str, roles: Sequence[Role]) -> Operator:
    """Change what an operator may do, end the sessions; return who it was before. Raises NotFound, UserError, Conflict."""
    before = find(conn, name)
    if visitor.via == "console" and visitor.name == name and Role.ADMIN not in roles:
        raise Conflict("you cannot take the role admin from yourself", "another administrator can")
    conn.execute("update operator set roles = %s where id = %s", (_kept(roles), before.id))
    sessions.end_all(conn, before.id)
    audit.record(conn, visitor, "operator.roles", name, old=[role.value for role in before.roles], new=_kept(roles))
    return before


def set_language(conn: Connection, name: str, language: str) -> None:
    """Keep the language an operator chose; '' leaves it to the browser. Raises NotFound."""
    if conn.execute("update operator set language = %s where name = %s", (language, name)).rowcount == 0:
        find(conn, name)


def disable(conn: Connection, visitor: Visitor, name: str, now: datetime) -> None:
    """Shut an operator out, at once. Raises NotFound, Conflict for oneself."""
    found = find(conn, name)
    if visitor.via == "console" and visitor.name == name:
        raise Conflict("you cannot disable yourself", "another administrator can")
    conn.execute("update operator set disabled_at = coalesce(disabled_at, %s) where id = %s", (now, found.id))
    ended = sessions.end_all(conn, found.id)
    audit.record(conn, visitor, "operator.disable", name, sessions_ended=ended)


def enable(conn: Connection, visitor: Visitor, name: str) -> None:
    """Let an operator in again, with the password they had. Raises NotFound."""
    found = find(conn, name)
    conn.execute("update operator set disabled_at = null, failures = 0, not_before = null where id = %s", (found.id,))
    audit.record(conn, visitor, "operator.enable", name)


def log_out_everywhere(conn: Connection, visitor: Visitor, name: str) -> int:
    """End every session of an operator; return how many. Raises NotFound."""
    ended = sessions.end_all(conn, find(conn, name).id)
    audit.record(conn, visitor, "operator.log_out", name, sessions_ended=ended)
    return ended


def _kept(roles: Sequence[Role]) -> list[str]:
    check_roles(roles)
    return [role.value for role in Role if role in roles]


def _operator(row: Sequence[object]) -> Operator:
    number, name, roles, *rest = row
    assert isinstance(roles, list)
    return Operator(number, name, tuple(map(Role, roles)), *rest)  # type: ignore[arg-type]  # columns as declared
