"""`up`, `down`, `ps`, `start`, `stop`, `restart`, `status`, `logs`: the processes of this home."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from midsource.cli.capacity import check_connections
from midsource.cli.group import group
from midsource.cli.launching import rows_of, silent, start_detached
from midsource.cli.logfile import follow, tail
from midsource.cli.output import err, out, say, say_json, say_table
from midsource.cli.session import Session, runtime_folder, serving
from midsource.cli.setup import console_address
from midsource.cli.specs import process_specs
from midsource.model.errors import Failed, Unhealthy, UserError
from midsource.store import budget, migrate
from midsource.store.database import Database
from midsource.supervise.control import ControlClient
from midsource.supervise.processes import Supervisor

DOWN_SECONDS = 60

app = group()
Names = Annotated[list[str], typer.Argument(help="Processes, as in web@marketing.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def up(
    ctx: typer.Context,
    only: Annotated[str, typer.Option(help="Run only these: mta@mid1 or mid1.")] = "",
    count: Annotated[int, typer.Option("--processes", min=1, max=64, help="How many of it.")] = 1,
    detach: Annotated[
        bool, typer.Option("--detach", help="Go on in the background, once everything is ready.")
    ] = False,
) -> None:
    """Run the processes of this home until SIGTERM or `midsource down`; each is restarted with back-off."""
    session: Session = ctx.obj
    config = session.config()
    if count != 1 and "@" not in only:
        raise UserError("--processes says how many of one process", "name it with --only, as in --only mta@mid1")
    specs = process_specs(config, only, count)
    if detach:
        start_detached(session, only, count)
        say(f"{len(specs)} processes run; stop them with `midsource down`")
        say(f"console: {console_address(config)}")
        return
    with serving(config) as urls:
        for instance in config.instances:
            with Database(instance.name, urls(instance), application="up") as database:
                migrate.check(database, instance.role, instance.name)
        check_connections(config, urls, [spec.name for spec in specs])
        if out.is_terminal:  # the token is for the person who looks, not for a log
            say(f"console: {console_address(config)}")
        use = urls.use
        watch = use.revive if use else lambda: None
        Supervisor(session.home, specs, runtime_dir=runtime_folder(), watch=watch, report=say).run()


@app.command()
def down(ctx: typer.Context) -> None:
    """Stop every process and the supervisor; returns when they are gone."""
    session: Session = ctx.obj
    client = ControlClient(session.home)
    if not client.is_running():
        say(f"nothing runs in {session.home}")
        return
    client.call("down")
    deadline = time.monotonic() + DOWN_SECONDS
    while client.is_running():
        if time.monotonic() > deadline:
            raise Unhealthy(f"still stopping after {DOWN_SECONDS} s", "see `midsource ps`")
        time.sleep(0.05)
    say("stopped")


@app.command()
def ps(
    ctx: typer.Context,
    who: Annotated[bool, typer.Option("--who", help="Also who holds connections of each database.")] = False,
    json: Json = False,
) -> None:
    """Show the processes of this home, and with --who the connections of its databases."""
    session: Session = ctx.obj
    rows = [row | {"connections": budget.of(row["name"])} for row in rows_of(ControlClient(session.home).call("ps"))]
    connections = _connections(session) if who else []
    if json:
        say_json({"processes": rows, "connections": connections})
        return
    columns = ("process", "state", "pid", "up s", "restarts", "MB", "connections ≤", "last end")
    say_table(columns, [_ps_row(row) for row in rows])
    if who:
        say()
        say_table(("instance", "who", "state", "connections"), [tuple(row.values()) for row in connections])


@app.command()
def start(ctx: typer.Context, names: Names) -> None:
    """Start processes that were stopped."""
    _control(ctx, "start", names)


@app.command()
def stop(ctx: typer.Context, names: Names) -> None:
    """Stop processes; they stay stopped, also over `down` and `up`."""
    _control(ctx, "stop", names)


@app.command()
def restart(ctx: typer.Context, names: Names) -> None:
    """Restart processes."""
    _control(ctx, "restart", names)


@app.command()
def status(
    ctx: typer.Context,
    missing: Annotated[bool, typer.Option("--missing", help="Name only what is missing.")] = False,
    json: Json = False,
) -> None:
    """Say whether everything runs; exit 3 unless it does."""
    session: Session = ctx.obj
    config = session.config()
    wanted = [spec.name for spec in process_specs(config)]
    try:
        rows = rows_of(ControlClient(session.home).call("status"))
        rows = [row for row in rows if row["state"] == "running"]
        running = {row["name"] for row in rows}
        problem = ""
    except Unhealthy as exc:
        rows, running, problem = [], set(), str(exc)
    absent = [name for name in wanted if name not in running]
    if not absent and not problem:
        unheard = set(silent(session, rows))
        absent = [name for name in wanted if name in unheard]
    if json:
        say_json({"ok": not absent, "running": sorted(running), "missing": absent, "problem": problem})
    else:
        for name in absent:
            say(f"missing: {name}")
        if not missing and not absent:
            say(f"everything runs: {', '.join(wanted)}")
        if problem:
            err.print(problem, markup=False)
    raise typer.Exit(3 if absent else 0)


@app.command()
def logs(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A process, as in mta@mid1, or supervisor or postgres.")],
    following: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    level: Annotated[str, typer.Option(help="Only lines of this level or above: debug, info, warning, error.")] = "",
    grep: Annotated[str, typer.Option(help="Only lines that hold this text.")] = "",
    lines: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many of the last lines.")] = 100,
) -> None:
    """Show the last lines of a process's log."""
    session: Session = ctx.obj
    path = _log_path(session, name)
    for line in tail(path, lines, level=level, text=grep):
        say(line)
    if following:
        for line in follow(path, level=level, text=grep):
            say(line)


def _control(ctx: typer.Context, verb: str, names: list[str]) -> None:
    session: Session = ctx.obj
    rows = rows_of(ControlClient(session.home).call(verb, names=names))
    for row in rows:
        say(f"{row['name']}: {row['state']}")


def _ps_row(row: dict[str, Any]) -> tuple[Any, ...]:
    memory = round(row["memory_bytes"] / 1_000_000)
    figures = (str(row["pid"] or ""), round(row["up_seconds"]), row["restarts"], memory, row["connections"])
    return (row["name"], row["state"], *figures, row["last_end"])


def _connections(session: Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    config = session.config()
    with serving(config) as urls:
        for instance in config.instances:
            with Database(instance.name, urls(instance), application="ps") as database, database.connection() as conn:
                found += [
                    {"instance": instance.name, "who": row[0], "state": row[1], "connections": row[2]}
                    for row in conn.execute(
                        "select application_name, coalesce(state, ''), count(*)::int from pg_stat_activity "
                        "where datname = current_database() group by 1, 2 order by 3 desc, 1 limit 100"
                    )
                ]
    return found


def _log_path(session: Session, name: str) -> Path:
    if name in ("supervisor", "postgres"):
        path = session.home / "log" / f"{name}.log"
    else:
        known = {spec.name: spec.log for spec in process_specs(session.config())}
        first, _, number = name.partition(".")
        if first not in known or not (number.isdigit() or name == first):
            raise UserError(f"there is no process {name!r}", f"there are {', '.join(known)}, supervisor, postgres")
        # One of more copies than the file says, run by `up --only mta@mid1 --processes 4`, has its log beside the others.
        path = known.get(name) or known[first].with_name(f"{known[first].stem}.{number}.log")
    if not path.exists():
        raise Failed(f"{path} is not there yet", f"{name} has not run in this home")
    return path
