"""Make a home: configuration file, keys, databases, both instances, and the account that joins them.

Every step finds out what is there before it acts, so `init` and `demo` may be repeated in one home and complete what an
interrupted run left out. The folder is made with mode 0700; the mode of one that exists is left alone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from midsource.cli.session import serving
from midsource.config import FILE_NAME, Config, InstanceConfig
from midsource.marketing import accounts as external
from midsource.marketing import brands
from midsource.mid import accounts as mid_accounts
from midsource.mid import dkim_keys
from midsource.model.errors import Failed, UserError
from midsource.net.clock import SystemClock
from midsource.security import keys
from midsource.security.access import token
from midsource.store import migrate
from midsource.store.database import Connection, Database, scalar
from midsource.store.files import write_whole

DEFAULT_PORT = 8025
"""Marketing console; the mid, the sandbox inbox and the sandbox SMTP port follow it."""
PORTS = 4
SENDER = "news@brand.example"
"""Sender of the default brand, until an operator gives one: a reserved name, which no real mail can come from."""

TEMPLATE = """\
# midsource: what runs in this home. `midsource config show --origin` explains every key.

[instances.marketing]
role = "marketing"
port = {marketing}

[instances.mid1]
role = "mid"
port = {mid}
transport = "sandbox" # nothing mails the real world until this says mx or smarthost

[sandbox]
http_port = {inbox}
smtp_port = {smtp}
"""


def make_home(home: Path, port: int) -> bool:
    """Make the folder and its configuration; False where it is there already. Raises UserError, Failed."""
    path = home / FILE_NAME
    if path.exists():
        return False
    if not 1 <= port <= 65535 - PORTS:
        raise UserError(f"--port {port} leaves no room for {PORTS} ports", "choose one between 1024 and 65000")
    text = TEMPLATE.format(marketing=port, mid=port + 1, inbox=port + 2, smtp=port + 3)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as exc:
        raise Failed(f"{home} cannot be made ({exc.strerror})", "choose another folder with --home") from exc
    return True


def free_port(first: int = DEFAULT_PORT) -> int:
    """Return the first of four free loopback ports in a row, from ``first`` on."""
    for base in range(first, first + 1000, 10):
        if all(_is_free(base + offset) for offset in range(PORTS)):
            return base
    raise Failed(f"no four free ports in a row from {first} on", "give one with --port")


def set_up(config: Config) -> Iterator[str]:
    """Make databases, schemas, defaults and the account; yield one line for each thing that is now there."""
    home_key = keys.load(config.home)
    with serving(config) as urls:
        for instance in config.instances:
            with Database(instance.name, urls(instance), application="init") as database:
                migrate.upgrade(database, instance.role)
                with database.transaction() as conn:
                    migrate.describe_instance(conn, instance.name, instance.role)
                    migrate.ensure_partitions(conn, instance.role, SystemClock().now())
                    if instance.role == "marketing":
                        _ensure_defaults(conn, config)
                    else:
                        _ensure_dkim(conn, home_key)
                yield f"{instance.name}: {instance.role} instance, schema current"
        pair = _pair(config)
        if pair:
            marketing, mid = pair
            with (
                Database(marketing.name, urls(marketing), application="init") as here,
                Database(mid.name, urls(mid), application="init") as there,
                here.transaction() as here_conn,
            ):
                made = _join(here_conn, there, marketing, mid, config.home)
            yield f"{marketing.name}: external account {external.DEFAULT_NAME} {'made' if made else 'found'}, to {mid.name}"


def _pair(config: Config) -> tuple[InstanceConfig, InstanceConfig] | None:
    marketing = [i for i in config.instances if i.role == "marketing"]
    mids = [i for i in config.instances if i.role == "mid"]
    return (marketing[0], mids[0]) if len(marketing) == 1 and mids else None


def _join(conn: Connection, mid: Database, marketing: InstanceConfig, mid_config: InstanceConfig, home: Path) -> bool:
    """Give the marketing instance a key on the mid, and keep it as its external account; False where it has one."""
    if scalar(conn, "select 1 from external_account where name = %s", (external.DEFAULT_NAME,)):
        return False
    with mid.transaction() as mid_conn:
        known = scalar(mid_conn, "select 1 from account where name = %s", (marketing.name,))
        key = (
            mid_accounts.renew_key(mid_conn, marketing.name)
            if known
            else mid_accounts.create(mid_conn, marketing.name)[1]
        )
    external.add(
        conn,
        home,
        url=public_url(mid_config),
        key=key,
        label="Email routing using mid-sourcing",
        now=SystemClock().now(),
    )
    return True


def public_url(instance: InstanceConfig) -> str:
    """Return the address of an instance's web process."""
    return instance.public_url or f"http://{instance.host}:{instance.port}"


def console_address(config: Config) -> str:
    """Return the address of the console with its token, for printing; '' where no marketing instance runs here."""
    names = [instance for instance in config.instances if instance.role == "marketing"]
    return f"{public_url(names[0])}/?token={token(config.home)}" if names else ""


def _ensure_defaults(conn: Connection, config: Config) -> None:
    mids = [instance for instance in config.instances if instance.role == "mid"]
    base = public_url(mids[0]) if mids else "http://127.0.0.1"
    brands.ensure_defaults(
        conn,
        from_name="Brand",
        from_address=SENDER,
        unsubscribe_url=f"{base}/u/{{token}}",
        mirror_url=f"{base}/m/{{token}}",
    )


def _ensure_dkim(conn: Connection, home_key: keys.HomeKey) -> None:
    """Give the default sender a key, so that the first mail is signed like any other."""
    domain = SENDER.partition("@")[2]
    if not scalar(conn, "select 1 from dkim_key where domain = %s", (domain,)):
        dkim_keys.create(conn, home_key, domain, "midsource", "rsa")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
