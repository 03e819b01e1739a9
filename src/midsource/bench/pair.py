"""Both halves with the real link between them: a marketing worker and a mid's web process, two databases, HTTP on loopback.

`campaign` takes one delivery of the newsletter through preparation and hand-over as an operator would order them, and
says what each phase took. Times are those of the job's own row: asked for → finished, so the engine's waits count too.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from midsource.bench import machine, newsletter
from midsource.bench.midhalf import postmaster
from midsource.bench.stage import Bench, Process, wait_until
from midsource.engine import admin, jobs, records, scheduling
from midsource.marketing import accounts as external
from midsource.marketing import brands, deliveries, fields
from midsource.mid import accounts
from midsource.model.errors import Failed
from midsource.model.schedule import plan
from midsource.store import migrate, processes
from midsource.store.database import Connection, Database, scalar
from midsource.workflows import delivery_logs, reconcile

SENDER = "lettre@news.exemple.fr"
WORKER, WEB, MTA = "worker@marketing", "web@mid1", "mta@mid1"
START_SECONDS = 60.0
PHASE_SECONDS = 900.0
_CONFIG = """\
[postgres]
mode = "external"

[sandbox]
enabled = false

[instances.marketing]
role = "marketing"
database_url = "{marketing}"
port = {port}

[instances.mid1]
role = "mid"
database_url = "{mid}"
port = {mid_port}
{sending}"""
_PEOPLE = """
insert into recipient (key, external_id, email, email_key, domain, address_problem, first_name, last_name, language,
                       opted_out, fields)
select 'id:C' || n, 'C' || n, email, email, case when email is not null then domain end,
       case when n %% 200 = 4 then 'no such domain' else '' end,
       (%(first)s::text[])[1 + n %% 12], (%(last)s::text[])[1 + n / 12 %% 10], 'fr', n %% 50 = 1,
       jsonb_build_object('city', (%(cities)s::text[])[1 + n / 5 %% 10], 'points', n %% 3 * 120,
           'shop', 'Boutique ' || (%(cities)s::text[])[1 + n %% 10], 'shop_street', n %% 90 + 1 || ' rue de la République',
           'postcode', lpad((n %% 95 + 1)::text, 2, '0') || '000', 'adviser', (%(first)s::text[])[1 + (n + 5) %% 12],
           'since', 1990 + n %% 34, 'card', lpad(n::text, 9, '0'), 'token', md5(n::text) || 'AbCdEf0123456789')
  from (select n, 'exemple' || n %% 7 || '.fr' as domain,
               case when n %% 200 = 2 then null
                    when n %% 100 = 6 then 'client' || n - 1 || '@exemple' || (n - 1) %% 7 || '.fr'
                    else 'client' || n || '@exemple' || n %% 7 || '.fr' end as email
          from generate_series(1, %(count)s) n) p
"""
"""Of a hundred people two opted out, one is in quarantine, one has another's address, half a one has none, half a one has
one that cannot be mailed: as a shop's list has them."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase of a delivery took: its rows, seconds, and the CPU and memory of the processes that did it."""

    rows: int
    seconds: float
    worker_cpu: float
    web_cpu: float
    database_cpu: float
    worker_mib: float
    web_mib: float

    @property
    def million_seconds(self) -> float:
        """Seconds for a million rows at this speed."""
        return self.seconds / self.rows * 1_000_000


@dataclass(slots=True)
class Pair:
    """A marketing instance with its worker, and a mid with its web process."""

    bench: Bench
    home: Path
    marketing: Database
    mid: Database
    mid_account: int
    worker: Process
    web: Process
    web_port: int
    key: str = field(repr=False)
    mta: Process | None = None
    people: int = 0

    @classmethod
    def make(cls, bench: Bench, name: str = "pair", *, smarthost: str = "", mid_options: str = "") -> Pair:
        """Make home and databases, join the halves, start both processes; with a ``smarthost`` also an mta that sends there.

        ``mid_options``: settings of PostgreSQL for every connection of the mid's processes, as in ``-c work_mem=1MB``.
        """
        home = bench.folder / name
        home.mkdir(mode=0o700)
        urls = {role: bench.database(f"{name}_{role}") for role in ("marketing", "mid")}
        ports = _free_ports(2)
        config = _CONFIG.format(
            marketing=urls["marketing"], mid=_with_options(urls["mid"], mid_options), port=ports[0], mid_port=ports[1],
            sending=f'transport = "smarthost"\nsmarthost = "{smarthost}"\n' if smarthost else "",
        )  # fmt: skip
        (home / "midsource.toml").write_text(config, encoding="utf-8")
        marketing, mid = bench.open("marketing", urls["marketing"]), bench.open("mid1", urls["mid"])
        now = bench.clock.now()
        for database, role in ((marketing, "marketing"), (mid, "mid")):
            migrate.upgrade(database, role)
            with database.transaction() as conn:
                migrate.describe_instance(conn, database.name, role)
                migrate.ensure_partitions(conn, role, now)
        with mid.transaction() as conn:
            account, key = accounts.create(conn, "marketing")
        with marketing.transaction() as conn:
            links = {
                "unsubscribe_url": "https://t.exemple.fr/u/{token}",
                "mirror_url": "https://t.exemple.fr/m/{token}",
            }
            brands.ensure_defaults(conn, from_name="La Maison d'Été", from_address=SENDER, **links)
            external.add(conn, home, url=f"http://127.0.0.1:{ports[1]}", key=key, now=now)
            for own in newsletter.person(1).keys() - fields.FIXED.keys():
                fields.add_field(conn, own, "integer" if own in ("points", "since") else "text")
        web, worker = bench.process(home, WEB), bench.process(home, WORKER)
        pair = cls(bench, home, marketing, mid, account, worker, web, ports[1], key)
        for database, process in ((mid, web), (marketing, worker)):
            await_alive(database, process)
        if smarthost:
            pair.mta = bench.process(home, MTA)
            await_alive(mid, pair.mta)
        return pair

    @property
    def processes(self) -> list[Process]:
        """All that run."""
        return [self.worker, self.web, *([self.mta] if self.mta else [])]

    def link_to(self, url: str) -> None:
        """Let the marketing instance reach its mid by another address."""
        with self.marketing.transaction() as conn:
            external.add(conn, self.home, url=url, key=self.key, now=self.bench.clock.now())

    def add_people(self, count: int) -> None:
        """Have at least ``count`` people: invented ones of the newsletter, one in twenty of them not to be mailed."""
        if self.people >= count:
            return
        with self.marketing.transaction(statement_seconds=PHASE_SECONDS) as conn:
            conn.execute("truncate recipient restart identity")
            names = {"first": list(newsletter.FIRST), "last": list(newsletter.LAST), "cities": list(newsletter.CITIES)}
            conn.execute(_PEOPLE, {"count": count, **names})
            conn.execute(
                "insert into quarantine (address_key, state, reason) select email_key, 3, 1 from recipient "
                "where id % 100 = 8 and email_key is not null on conflict do nothing"
            )
        with self.marketing.connection() as conn:
            conn.execute("set statement_timeout = 0")
            conn.execute("vacuum analyze recipient")
            conn.execute("reset statement_timeout")
        self.people = count

    def campaign(self, expression: str = "") -> tuple[int, Phase, Phase]:
        """Prepare a delivery to everybody, or to some, and hand it over; return its number and what both phases took."""
        with self.marketing.connection() as conn:
            watch = Watch(self, conn)
            with conn.transaction():
                number = deliveries.create_from_toml(conn, self._file(expression), self.bench.clock)
                deliveries.start_preparation(conn, number)
                jobs.ask(conn, "prepare", number, "bench")
            seconds = self._job(conn, "prepare", number)
            prepared = watch.phase(deliveries.get(conn, number).targeted or 0, seconds)
            watch = Watch(self, conn)
            seconds = self._job(conn, "handover", number)
            handed = watch.phase(deliveries.get(conn, number).handed_over or 0, seconds)
        return number, prepared, handed

    def pull_logs(self, rows: int | None = None) -> Phase:
        """Run the delivery-logs workflow, and measure until it has finished; it must have written ``rows``."""
        with self.marketing.connection() as conn:
            watch = Watch(self, conn)
            run = admin.run_now(conn, delivery_logs.NAME, "bench")
            wait_until(lambda: records.get_run(conn, run).finished_at, "the sync", PHASE_SECONDS, self.worker, self.web)
            ended = records.get_run(conn, run)
            if ended.outcome != "finished" or (rows is not None and ended.rows_written != rows):
                raise Failed(f"the sync wrote {ended.rows_written} rows, not {rows} ({ended.error})", "report it")
            assert ended.finished_at is not None
            return watch.phase(ended.rows_written, (ended.finished_at - ended.asked_at).total_seconds())

    def _job(self, conn: Connection, kind: str, number: int) -> float:
        """Wait for the delivery's job of this kind; return the seconds from asked for to finished. Raises Failed."""

        def job() -> jobs.Job | None:
            return next((job for job in jobs.of_subject(conn, number) if job.kind == kind), None)

        def ended() -> bool:
            now = job()
            return now is not None and now.finished_at is not None

        wait_until(ended, f"the end of {kind}", PHASE_SECONDS, self.worker, self.web)
        found = job()
        if found is None or found.finished_at is None or found.outcome != "finished":
            raise Failed(f"{kind} ended badly ({found.error if found else 'gone'})", "report it with the worker's log")
        return (found.finished_at - found.asked_at).total_seconds()

    def _file(self, expression: str) -> Path:
        folder, content = self.home / "content", newsletter.newsletter(tracked=True)
        folder.mkdir(exist_ok=True)
        (folder / "letter.html").write_text(content.html, encoding="utf-8")
        (folder / "letter.txt").write_text(content.text, encoding="utf-8")
        said = {"label": "newsletter", "subject": content.subject, "html": "letter.html", "text": "letter.txt"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
        lines += ["[target]", f"expression = {json.dumps(expression)}"] if expression else []
        (folder / "delivery.toml").write_text("\n".join(lines), encoding="utf-8")
        return folder / "delivery.toml"


class Watch:
    """Reads what a pair's processes have spent when it is made, and again when a phase is over."""

    def __init__(self, pair: Pair, conn: Connection) -> None:
        self._pair = pair
        self._server = postmaster(conn)
        for process in (pair.worker, pair.web):
            machine.forget_peak(process.pid)
        self._before = self._read()

    def phase(self, rows: int, seconds: float) -> Phase:
        """Return what was spent since."""
        if not rows:
            raise Failed("nothing was done", "report it: the benchmark or midsource is wrong")
        worker, web, server = (late - early for early, late in zip(self._before, self._read(), strict=True))
        return Phase(
            rows, seconds, worker, web, server, machine.peak_mib(self._pair.worker.pid),
            machine.peak_mib(self._pair.web.pid),
        )  # fmt: skip

    def _read(self) -> tuple[float, float, float]:
        pair = self._pair
        server = machine.cpu_seconds(machine.family(self._server))
        return pair.worker.cpu_seconds(), pair.web.cpu_seconds(), server


def the_pair(bench: Bench) -> Pair:
    """Return the pair that several rows share. Its log is pulled when a row asks, and by nobody else meanwhile."""

    def make() -> Pair:
        pair = Pair.make(bench)
        names = [delivery_logs.NAME, reconcile.NAME]  # both pull, each hour and soon after a first start
        with pair.marketing.transaction() as conn:
            for name in names:
                scheduling.save(conn, name, plan("0 0 1 1 *", "UTC"), "bench", bench.clock.now())
        with pair.marketing.connection() as conn:
            under_way = "select exists (select from workflow_run where workflow = any(%s) and finished_at is null)"
            wait_until(
                lambda: not scalar(conn, under_way, (names,)), "the end of first pulls", START_SECONDS, pair.worker
            )
        return pair

    return bench.once("the pair", make)


def await_alive(database: Database, process: Process) -> None:
    """Wait until a process reports itself to its database."""
    with database.connection() as conn:
        wait_until(
            lambda: any(row.name == process.name and row.alive for row in processes.listing(conn)),
            process.name, START_SECONDS, process,
        )  # fmt: skip


def _with_options(url: str, options: str) -> str:
    """Return a database URL (which has a query) that asks for these settings as well."""
    return f"{url}&options={quote(options)}" if options else url


def _free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in sockets]
