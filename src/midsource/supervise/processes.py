"""The supervisor behind ``midsource up``: it keeps the processes of a home running and answers who asks.

Order of events: lock the home (one supervisor each) · listen on the control socket · start every process that was not
stopped by an operator, in the order given · start again what ends, with ``restart``'s back-off · on SIGTERM, SIGINT,
SIGHUP or `down`: SIGTERM to all in that order, up to 20 s, then SIGKILL. A second signal kills at once.

Killed with -9 it takes its processes along (parent-death signal SIGTERM, where the system has one). One thread, one loop:
the signal is bound to the thread that started a child. Durable: ``run/processes.json``, the names an operator stopped;
they stay stopped over a restart of the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from midsource.model.clock import Clock
from midsource.model.errors import Conflict, Failed, MidsourceError, NotFound, UserError
from midsource.net.clock import SystemClock
from midsource.store.files import write_whole
from midsource.supervise import control
from midsource.supervise.children import STOP_SECONDS, Child, ProcessSpec
from midsource.supervise.locks import held
from midsource.supervise.places import HomeFiles
from midsource.supervise.restart import Rest, Start, Stop, next_step

REQUEST_SECONDS = 5.0  # a client sends its one line at once
START_SECONDS = 10.0  # a started process appears in milliseconds, a failing one tells before
WATCH_SECONDS = 1.0


class Supervisor:
    """Runs ``specs``. ``watch`` is called each second and must be quick; ``report`` gets one line per event.

    What either of them raises (``MidsourceError``, ``OSError``) is told or dropped; the processes run on.
    """

    def __init__(
        self,
        home: Path,
        specs: Sequence[ProcessSpec],
        *,
        runtime_dir: Path | None = None,
        clock: Clock | None = None,
        watch: Callable[[], object] = lambda: None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._home = home.absolute()
        self._specs = tuple(specs)
        self._runtime_folder = runtime_dir
        self._clock = clock or SystemClock()
        self._watch = watch
        self._report = report
        self._children: dict[str, Child] = {}
        self._signals = 0
        self._ending = asyncio.Event()

    def run(self) -> None:
        """Supervise until told to end. Raises ``Conflict`` when this home has a supervisor already."""
        HomeFiles(self._home).make()
        with held(control.lock_file(self._home)) as is_ours:
            if not is_ours:
                raise Conflict(
                    f"midsource already runs in {self._home}", "see 'midsource ps', stop it by 'midsource down'"
                )
            asyncio.run(self._main())

    async def _main(self) -> None:
        stopped = self._read_stopped()
        for spec in self._specs:
            self._children[spec.name] = Child(spec, self._clock, wanted=spec.name not in stopped)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        path = control.socket_path(self._home, self._runtime_folder)
        server = await asyncio.start_unix_server(self._answer, sock=control.listen(path), limit=control.LINE_BYTES)
        write_whole(control.address_file(self._home), f"{path}\n")
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children.values():
                    group.create_task(self._keep(child))
                group.create_task(self._keep_watch())
        finally:
            server.close()
            path.unlink(missing_ok=True)
            for child in self._children.values():
                child.kill()
                child.close()

    async def _keep(self, child: Child) -> None:
        """Do for one child what ``next_step`` says, until the supervisor ends and the child is gone."""
        while True:
            situation = child.situation(ending=self._ending.is_set())
            step = next_step(situation, self._clock.boot_seconds())
            match step:
                case Start():
                    child.start()
                    self._report_on(child)
                case Stop():
                    await child.stop()
                case Rest(seconds):
                    if self._ending.is_set():
                        return
                    await _wait(child.wake, seconds)
                    child.wake.clear()

    async def _keep_watch(self) -> None:
        told = ""
        while not self._ending.is_set():
            said = ""
            try:
                self._watch()
            except (MidsourceError, OSError) as error:  # what it watches is in trouble: no reason to end the processes
                said = str(error)
            if said and said != told:
                self._say(said)
            told = said
            await _wait(self._ending, WATCH_SECONDS)

    def _on_child(self) -> None:
        for child in self._children.values():
            if child.notice_end():
                self._report_on(child)

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            for child in self._children.values():
                child.kill()
        self._end()

    def _end(self) -> None:
        self._ending.set()
        for child in self._children.values():
            child.wake.set()

    def _report_on(self, child: Child) -> None:
        row = child.report()
        if row.state == "running":
            self._say(f"{row.name} runs as process {row.pid}")
        elif self._ending.is_set() or row.state == "stopped":
            self._say(f"{row.name} {row.last_end}")
        else:
            self._say(f"{row.name} {row.last_end}; next start in {row.next_start_seconds:.0f} s; see {row.log}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone; the processes are not
            self._report(line)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request; whatever a client sends, the supervisor lives."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readline()
            try:
                reply = control.answer(await self._obey(line))
            except MidsourceError as error:
                reply = control.refusal(error)
            writer.write(reply)
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            return  # the client went away, or sent no line, or one longer than any request
        finally:
            writer.close()

    async def _obey(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            verb = request["verb"]
            names = [str(name) for name in request.get("names", ())]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError("the request is not a JSON object with a verb", "send {'verb': 'ps'}") from error
        match verb:
            case "ps":
                return {"processes": self._rows(self._named(names))}
            case "status":
                return {"pid": os.getpid(), "ending": self._ending.is_set(), "processes": self._rows(self._named([]))}
            case "start":
                return await self._start(self._named(names))
            case "stop":
                return await self._stop(self._named(names))
            case "restart":
                return await self._restart(self._named(names))
            case "down":
                self._end()
                return {"pid": os.getpid()}
        raise UserError(f"the supervisor knows no verb {verb!r}", "it knows ps, status, start, stop, restart, down")

    def _named(self, names: Sequence[str]) -> list[Child]:
        """Return the children of these names, all for none. Raises ``NotFound`` naming what exists."""
        unknown = [name for name in names if name not in self._children]
        if unknown:
            raise NotFound(f"there is no process {', '.join(unknown)}", f"there are {', '.join(self._children)}")
        return [self._children[name] for name in names] or list(self._children.values())

    async def _start(self, children: Sequence[Child]) -> dict[str, object]:
        self._refuse_while_ending()
        self._want(children, wanted=True)
        for child in children:
            child.forgive()
            child.wake.set()
        for child in children:
            await _wait(child.started, START_SECONDS)
        return {"processes": self._rows(children)}

    async def _stop(self, children: Sequence[Child]) -> dict[str, object]:
        self._want(children, wanted=False)
        for child in children:
            child.wake.set()
        for child in children:
            await _wait(child.gone, STOP_SECONDS * 2)
        return {"processes": self._rows(children)}

    async def _restart(self, children: Sequence[Child]) -> dict[str, object]:
        self._refuse_while_ending()
        self._want(children, wanted=True)
        for child in children:
            child.replace = True
            child.started.clear()
            child.wake.set()
        for child in children:
            await _wait(child.started, STOP_SECONDS + START_SECONDS)
        return {"processes": self._rows(children)}

    def _refuse_while_ending(self) -> None:
        if self._ending.is_set():
            raise Conflict("the supervisor is ending", "start it again with 'midsource up'")

    def _want(self, children: Sequence[Child], *, wanted: bool) -> None:
        """Change the wish and keep it: an operator's stop outlives the supervisor. Raises ``Failed`` on a full disk."""
        before = {child.spec.name for child in self._children.values() if not child.wanted}
        names = {child.spec.name for child in children}
        stopped = before - names if wanted else before | names
        file = self._stopped_file
        try:
            write_whole(file, json.dumps({"stopped": sorted(stopped)}))
        except OSError as error:
            raise Failed(f"{file} could not be written ({error.strerror})", "free some space and try again") from error
        for child in children:
            child.wanted = wanted

    def _read_stopped(self) -> set[str]:
        try:
            return set(json.loads(self._stopped_file.read_text(encoding="utf-8"))["stopped"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return set()

    @property
    def _stopped_file(self) -> Path:
        return self._home / "run" / "processes.json"

    @staticmethod
    def _rows(children: Sequence[Child]) -> list[dict[str, object]]:
        return [asdict(child.report()) for child in children]


async def _wait(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for the event, at most so long; True if it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
