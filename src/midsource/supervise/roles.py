"""The two roles of the embedded PostgreSQL, their passwords, and connecting with them.

``postgres`` is the superuser; the holder alone uses it, to see to the other. ``midsource`` owns the instance databases,
may create databases and read statistics. Passwords are random, made once, kept in the home's ``keys`` folder (0600) and
sent to the server as SCRAM verifiers only, so none can turn up in a log.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

from midsource.model.errors import Unhealthy
from midsource.store.files import write_whole
from midsource.supervise.cluster import SUPERUSER
from midsource.supervise.places import HomeFiles

OWNER = "midsource"
PORT = 5432  # only a part of the socket's file name: nothing listens on the network
CONNECT_TIMEOUT_SECONDS = 5  # a loaded machine may take a second; a dead socket is refused at once
PASSWORD_BYTES = 24  # 192 bits


def password(files: HomeFiles, role: str, *, has_data: bool) -> str:
    """Return the role's password, making it if missing. ``has_data``: refuse to make one that could not be right."""
    file = files.password(role)
    try:
        found = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        found = ""
    except PermissionError as error:
        raise Unhealthy(
            f"{file} may not be read", "run midsource as the user who made this home, or as root"
        ) from error
    if found:
        return found
    if has_data:
        raise Unhealthy(f"the database exists but its password in {file} is gone", "restore keys/ from the backup")
    made = secrets.token_urlsafe(PASSWORD_BYTES)
    write_whole(file, made + "\n", mode=0o600, is_lasting=True)  # data without its password would be locked for good
    return made


def url(files: HomeFiles, socket: str, database: str) -> str:
    """Return the URL of a database for the role `midsource`; psycopg and (with ``+psycopg``) SQLAlchemy take it."""
    secret = quote(password(files, OWNER, has_data=True), safe="")
    where = urlencode({"host": socket, "port": PORT}, quote_via=quote)  # libpq takes a "+" for a plus
    return f"postgresql://{OWNER}:{secret}@/{quote(database, safe='')}?{where}"


def connect(files: HomeFiles, socket: str, role: str) -> psycopg.Connection:
    """Connect to the maintenance database, in autocommit. Raises ``psycopg.OperationalError`` while it cannot."""
    return psycopg.connect(
        host=socket,
        port=PORT,
        dbname="postgres",
        user=role,
        password=password(files, role, has_data=True),
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        sslmode="disable",  # a local socket; the caller's PGSSLMODE must not matter
        gssencmode="disable",
        options="-c statement_timeout=0",
    )


def see_to_owner(files: HomeFiles, socket: str) -> bool:
    """Make the role `midsource` or set its password anew; False while the server does not answer.

    Raises ``Unhealthy`` when the server refuses the superuser's password.
    """
    try:
        connection = connect(files, socket, SUPERUSER)
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise Unhealthy(
                f"the database does not accept the password in {files.password(SUPERUSER)}",
                "restore keys/ and the database from the same backup",
            ) from error
        return False
    with connection:
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone()
        secret = password(files, OWNER, has_data=False)
        verifier = connection.pgconn.encrypt_password(secret.encode(), OWNER.encode(), b"scram-sha-256").decode()
        verb = sql.SQL("ALTER" if known else "CREATE")
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN CREATEDB PASSWORD {}").format(verb, sql.Identifier(OWNER), sql.Literal(verifier))
        )
        if not known:
            connection.execute(sql.SQL("GRANT pg_monitor TO {}").format(sql.Identifier(OWNER)))
    return True
