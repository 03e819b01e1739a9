"""One typed configuration: read once, checked together, shown with its origin.

Order: ``midsource.toml`` in the home folder, then the environment (``MIDSOURCE_<SECTION>_<KEY>``), then flags. Unknown
keys are errors; every problem is reported at once, each naming key, expected and got. Secrets are files in
``<home>/keys``, never values here, but for a password in a database URL, which is never shown. No other module reads the
environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from midsource.model.errors import ConfigError, UserError

FILE_NAME = "midsource.toml"
Role = Literal["marketing", "mid"]
Transport = Literal["sandbox", "mx", "smarthost"]
_POSTGRES_URL = re.compile(
    r"postgresql://(?:[^\s%/?]|%[0-9A-Fa-f]{2})*/(?:[^\s%/?]|%[0-9A-Fa-f]{2})+(?:\?(?:[^\s%]|%[0-9A-Fa-f]{2})*)?"
)
"""What libpq reads without complaint: its own complaint would repeat the URL, password and all."""
_INSTANCE_NAME = re.compile(r"^[a-z][a-z0-9_]{0,30}$")


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """Where the databases live."""

    mode: Literal["embedded", "external"] = (
        "embedded"  # a server of our own in the home folder, or URLs. Default: embedded
    )
    bin: str = ""  # folder of PostgreSQL binaries instead of the wheel's (MIDSOURCE_POSTGRES_BIN). Default: the wheel's
    runtime_dir: str = ""  # folder for sockets whose path in the home would be too long. Default: the user's


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """The SMTP sink of demos and drills."""

    enabled: bool = True  # runs beside a mid whose transport is sandbox. Default: true
    smtp_port: int = 2525  # loopback. Default: 2525
    http_port: int = 8027  # loopback; inbox page and JSON. Default: 8027


@dataclass(frozen=True, slots=True)
class EgressConfig:
    """Requests to addresses that operators enter: webhooks of supervisors."""

    private_networks: bool = False  # also to loopback and private addresses. Default: false


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """One instance: its role, database, address, and how many processes of each kind `up` runs."""

    name: str
    role: Role
    database_url: str = field(
        default="", repr=False
    )  # postgresql://… when postgres.mode is external. Default: a database of the embedded server
    host: str = "127.0.0.1"  # address the web process listens on. Default: loopback only
    port: int = 0  # port of the web process. Default: none, must be given
    workers: int = 1  # worker processes. Default: 1
    mtas: int = 1  # mta processes of a mid. Default: 1
    transport: Transport = "sandbox"  # what a mid does with mail: never the real world until told. Default: sandbox
    smarthost: str = ""  # host:port, with transport smarthost. Default: none
    helo: str = "localhost"  # name said in EHLO; the reverse name of the sending address. Default: localhost
    ipv6: bool = False  # send over IPv6 where the provider offers it; needs a published PTR. Default: false
    connections_per_destination: int = 4  # SMTP connections to one destination, of one mta process. Default: 4
    public_url: str = ""  # address of unsubscribe and mirror pages in mails. Default: http://host:port


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an operator may set, and where each value came from (``origin``: key to file, environment, default)."""

    home: Path
    postgres: PostgresConfig = PostgresConfig()
    sandbox: SandboxConfig = SandboxConfig()
    egress: EgressConfig = EgressConfig()
    instances: tuple[InstanceConfig, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    def instance(self, name: str = "", role: str = "") -> InstanceConfig:
        """Return the instance called ``name``, or the only one of ``role``; raises UserError naming what exists."""
        known = ", ".join(f"{i.name} ({i.role})" for i in self.instances) or "none; run `midsource init`"
        if name:
            for candidate in self.instances:
                if candidate.name == name:
                    return candidate
            raise UserError(f"there is no instance {name!r} in {self.home}", f"instances: {known}")
        matching = [i for i in self.instances if i.role == (role or "marketing")]
        if len(matching) == 1:
            return matching[0]
        what = "no" if not matching else "more than one"
        raise UserError(
            f"{what} {role or 'marketing'} instance in {self.home}", f"use --instance NAME; instances: {known}"
        )


def default_home() -> Path:
    """Return ``MIDSOURCE_HOME`` or ``./.midsource``."""
    return Path(os.environ.get("MIDSOURCE_HOME") or ".midsource").absolute()  # noqa: TID251 - read here only


def environment() -> Mapping[str, str]:
    """Return the process's environment, for those who start others (supervisor) or choose a runtime folder."""
    return dict(os.environ)  # noqa: TID251 - read here only


def forget_libpq_variables() -> None:
    """Remove the ``PG*`` variables of whoever called us from this process, and so from every process it starts.

    A database is what its URL says, and nothing else: a forgotten PGOPTIONS or PGSSLMODE must not change what a time-out
    is or whether the embedded server answers.
    """
    for name in _libpq_variables(os.environ):  # noqa: TID251 - read here only
        del os.environ[name]  # noqa: TID251 - and changed here only


def _libpq_variables(names: Iterable[str]) -> list[str]:
    return [name for name in names if re.fullmatch(r"PG[A-Z_]+", name)]


def load(home: Path, env: Mapping[str, str] | None = None) -> Config:
    """Read and check the configuration of ``home``. Raises ConfigError with every problem, UserError without a file."""
    path = home / FILE_NAME
    env = environment() if env is None else env
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise UserError(f"there is no {FILE_NAME} in {home}", "run `midsource init` there, or give --home") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{path}: {exc}"]) from exc
    except OSError as exc:
        raise UserError(
            f"{path} cannot be read ({exc.strerror})", "give another --home, or the right to read it"
        ) from exc
    return _Reader(env).config(home, document)


class _Reader:
    """Collects problems and origins while it turns a TOML document into a Config."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._problems: list[str] = []
        self._origin: dict[str, str] = {}

    def config(self, home: Path, document: dict[str, Any]) -> Config:
        known = {"postgres", "sandbox", "egress", "instances"}
        self._problems += [
            f"{key}: unknown section (expected {', '.join(sorted(known))})" for key in document.keys() - known
        ]
        postgres = self._section(PostgresConfig, "postgres", document.get("postgres", {}))
        sandbox = self._section(SandboxConfig, "sandbox", document.get("sandbox", {}))
        egress = self._section(EgressConfig, "egress", document.get("egress", {}))
        instances = tuple(self._instances(document.get("instances", {})))
        if not self._problems:
            self._cross_check(postgres, instances)
        if self._problems:
            raise ConfigError(self._problems)
        return Config(home, postgres, sandbox, egress, instances, self._origin)

    def _instances(self, table: Any) -> list[InstanceConfig]:
        if not isinstance(table, dict):
            self._problems.append(f"instances: expected a table per instance, got {type(table).__name__}")
            return []
        found = []
        for name, values in table.items():
            if not _INSTANCE_NAME.match(name):
                self._problems.append(f"instances.{name}: expected a name of a-z, 0-9 and _ (at most 31), got {name!r}")
                continue
            if isinstance(values, dict) and "role" not in values:
                self._problems.append(f"instances.{name}.role: expected marketing or mid, got nothing")
                continue
            found.append(self._section(InstanceConfig, f"instances.{name}", values, name=name))
        return found

    def _section(self, kind: Any, prefix: str, values: Any, **given: Any) -> Any:
        if not isinstance(values, dict):
            self._problems.append(f"{prefix}: expected a table, got {type(values).__name__}")
            values = {}
        hints = get_type_hints(kind)
        names = {f.name for f in fields(kind)} - given.keys()
        self._problems += [
            f"{prefix}.{key}: unknown key (expected {', '.join(sorted(names))})" for key in values.keys() - names
        ]
        taken = dict(given)
        for name in sorted(names):
            key = f"{prefix}.{name}"
            variable = "MIDSOURCE_" + key.removeprefix("instances.").replace(".", "_").upper()
            if variable in self._env:
                self._origin[key] = f"environment {variable}"
                self._take(taken, name, key, self._from_text(hints[name], self._env[variable]), hints[name])
            elif name in values:
                self._origin[key] = FILE_NAME
                self._take(taken, name, key, values[name], hints[name])
            else:
                self._origin[key] = "default"
        if "role" in names and "role" not in taken:
            taken["role"] = "mid"  # the problem is already noted; a value lets the other checks run
        return kind(**taken)

    @staticmethod
    def _from_text(hint: Any, text: str) -> Any:
        if hint is int and text.lstrip("-").isdigit():
            return int(text)
        if hint is bool and text.lower() in ("true", "false", "1", "0"):
            return text.lower() in ("true", "1")
        return text

    def _take(self, taken: dict[str, Any], name: str, key: str, value: Any, hint: Any) -> None:
        if get_origin(hint) is Literal:
            allowed = get_args(hint)
            if value in allowed:
                taken[name] = value
            else:
                self._problems.append(f"{key}: expected one of {', '.join(map(str, allowed))}, got {value!r}")
        elif type(value) is hint:
            taken[name] = value
        else:
            self._problems.append(f"{key}: expected {hint.__name__}, got {value!r}")

    def _cross_check(self, postgres: PostgresConfig, instances: tuple[InstanceConfig, ...]) -> None:
        listening: dict[tuple[str, int], str] = {}
        databases: dict[str, str] = {}
        for instance in instances:
            prefix = f"instances.{instance.name}"
            if not 1 <= instance.port <= 65535:
                self._problems.append(f"{prefix}.port: expected 1 to 65535, got {instance.port}")
            other = listening.setdefault((instance.host, instance.port), instance.name)
            if other != instance.name:
                self._problems.append(f"{prefix}.port: {instance.port} is already the port of {other}")
            for key in ("workers", "mtas", "connections_per_destination"):
                if not 1 <= getattr(instance, key) <= 64:
                    self._problems.append(f"{prefix}.{key}: expected 1 to 64, got {getattr(instance, key)}")
            if postgres.mode == "external":
                self._check_url(f"{prefix}.database_url", instance.database_url, databases)
            elif instance.database_url:
                self._problems.append(f"{prefix}.database_url: is used only with postgres.mode external; set that too")
            if instance.transport == "smarthost" and not re.fullmatch(r"\S+:\d{1,5}", instance.smarthost):
                self._problems.append(f"{prefix}.smarthost: expected host:port with transport smarthost")

    def _check_url(self, key: str, url: str, databases: dict[str, str]) -> None:
        """Note what is wrong with the URL of an external database, without repeating it: it may hold a password."""
        if not _POSTGRES_URL.fullmatch(url):
            self._problems.append(
                f"{key}: expected postgresql://user@host/database with postgres.mode external, got "
                + ("another URL" if url else "nothing")
            )
        elif databases.setdefault(url, key) != key:
            self._problems.append(f"{key}: is already {databases[url]}; each instance has a database of its own")
