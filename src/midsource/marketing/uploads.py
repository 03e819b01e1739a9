"""Send the stored parts of one delivery to its mid, several at a time, for one slice.

`policy.parts` decides what follows a failure; marketing/upload.py records it. After a failure that says that nobody is
there, or that the mid wants to be left alone (429, 503, 507), no further part is begun in this slice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from midsource.engine.work import Context
from midsource.marketing import link_journal, options, upload
from midsource.marketing.deliveries import Delivery
from midsource.marketing.link_journal import Call, Method
from midsource.marketing.upload import StoredPart
from midsource.model.errors import MidsourceError, RemoteRefused
from midsource.policy import parts
from midsource.policy.parts import AskThenSplit, Failure, Split
from midsource.wire.client import MidClient
from midsource.wire.failures import LinkFailure

SLICE_SECONDS = 50.0
"""Below the engine's 60 s: the calls in flight end within it."""
WAIT_SECONDS = 1.0
"""How long the slice waits for an upload before it beats again."""
ALTERED_TRIES = 3
"""A part refused as altered on the way is sent again; more often than this it is not the way."""


class Uploads:
    """The uploads of one slice. ``parts``: how many top-level parts the delivery has; ``rows_sent``: taken in this slice."""

    def __init__(self, context: Context, client: MidClient, delivery: Delivery, chance: Callable[[], float]) -> None:
        self._context = context
        self._client = client
        self._delivery = delivery
        self._chance = chance
        self._deadline = context.clock.boot_seconds() + SLICE_SECONDS
        self._pause_seconds: float | None = None
        self.rows_sent = 0
        with context.database.connection() as conn:
            self._flow = options.integer(conn, "NmsMidSourcing_PrepareFlow")
            row = conn.execute(
                "select coalesce(max(position), 0), coalesce(max(rows), 0) from upload_part where delivery_id = %s",
                (delivery.id,),
            ).fetchone()
        assert row is not None
        self.parts: int = row[0]
        self._size: int = row[1]  # rows that later cuts go to directly: the smallest size chosen so far

    def send_all(self) -> float | None:
        """Send what is stored; None when everything is acknowledged, else seconds until it is worth going on."""
        with ThreadPoolExecutor(self._flow, thread_name_prefix="upload") as pool:
            running: dict[Future[int], str] = {}
            while True:
                self._context.beat()
                if self._pause_seconds is None and self._context.clock.boot_seconds() < self._deadline:
                    for part in self._ready(self._flow - len(running), set(running.values())):
                        running[pool.submit(self._upload, part)] = part.name
                if not running:
                    break
                done, _ = wait(running, timeout=WAIT_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    self.rows_sent += future.result()
                if done:
                    self.show_progress()
        return self._seconds_to_next()

    def _ready(self, free: int, running: set[str]) -> list[StoredPart]:
        if free <= 0:
            return []
        with self._context.database.connection() as conn:
            ready = upload.ready_parts(conn, self._delivery.id, free + len(running))
        return [part for part in ready if part.name not in running][:free]

    def _seconds_to_next(self) -> float | None:
        with self._context.database.connection() as conn:
            row = conn.execute(
                "select count(*), extract(epoch from min(coalesce(not_before, now())) - clock_timestamp()) "
                "from upload_part where delivery_id = %s and state = 'stored'",
                (self._delivery.id,),
            ).fetchone()
        assert row is not None
        if row[0] == 0:
            return None
        return max(0.0, float(row[1]), self._pause_seconds or 0.0)

    def _upload(self, part: StoredPart) -> int:
        """Send one part and record what came of it, in a thread of its own; return how many rows the mid took."""
        begun = upload.begin(self._context.database, part)
        if begun is None:
            return 0
        attempt, body = begun
        try:
            answer = self._client.put_part(part.delivery_id, part.name, body, part.content_hash)
        except LinkFailure as exc:
            return self._failed(part, body, attempt, exc)
        except RemoteRefused as exc:
            self._refused(part, attempt, exc)
            return 0
        refused = upload.acknowledge(self._context.database, part, body, answer)
        if refused:
            self._context.say(
                "warning", f"part {part.name} of {self.parts}: the mid refused {refused} rows by themselves"
            )
        return part.rows - refused

    def _failed(self, part: StoredPart, body: bytes, attempt: int, exc: LinkFailure) -> int:
        """Do what the policy says after a failed call; return the rows that the mid turned out to have taken."""
        failure = Failure(exc.status, exc.reached, exc.retry_after_seconds)
        step = parts.decide(part.rows, attempt, failure, self._chance())
        rows = step.rows if isinstance(step, AskThenSplit | Split) and part.may_be_cut else part.rows
        if isinstance(step, AskThenSplit) and rows < part.rows:
            rows = min(rows, max(self._size, parts.MIN_ROWS))
            try:
                answer = self._client.get_part(part.delivery_id, part.name)
            except LinkFailure:
                rows = part.rows  # it cannot be asked now: the part stays whole
            else:
                if answer is not None:
                    upload.whole_again(self._context.database, part, answer)
                    self._tell(part, exc, attempt, "the mid had taken it")
                    return answer.accepted
        if rows < part.rows:
            upload.cut(self._context.database, part, body, rows, step.after_seconds, attempt)
            self._size = min(self._size, rows)
        else:
            upload.put_off(self._context.database, part, step.after_seconds)
        if not exc.reached or exc.status in (429, 503, 507):
            self._pause_seconds = step.after_seconds
        self._tell(part, exc, attempt, link_journal.in_seconds(step.after_seconds, rows if rows < part.rows else None))
        return 0

    def _refused(self, part: StoredPart, attempt: int, exc: RemoteRefused) -> None:
        """Judge a refusal: the mid may hold what this part was cut from, or the part was altered on its way."""
        if exc.status == 409 and self._held_as_whole(part):
            self._tell(part, exc, attempt, "the mid holds the part it was cut from")
            return
        if exc.status in (404, 422) and attempt <= ALTERED_TRIES:
            pause = parts.pause_seconds(attempt, None, self._chance())
            upload.put_off(self._context.database, part, pause)
            if exc.status == 404:  # restored meanwhile: the next slice tells it about the delivery again
                self._pause_seconds = pause
            self._tell(part, exc, attempt, link_journal.in_seconds(pause))
            return
        self._tell(part, exc, attempt, exc.remedy)
        raise exc

    def _held_as_whole(self, part: StoredPart) -> bool:
        name = parts.parent_name(part.name)
        while name is not None:
            answer = self._client.get_part(part.delivery_id, name)
            if answer is not None:
                upload.whole_again(self._context.database, part, answer)
                return True
            name = parts.parent_name(name)
        return False

    def _tell(self, part: StoredPart, exc: MidsourceError, attempt: int, following: str) -> None:
        call = Call(self._delivery.account, Method.APPEND, f"part {part.name} of {self.parts}", self._delivery.id)
        link_journal.record(self._context, call, exc, attempt, following)

    def show_progress(self) -> None:
        """Show how many parts are acknowledged."""
        with self._context.database.connection() as conn:
            row = conn.execute(
                "select count(*) filter (where state = 'acknowledged'), count(*) from upload_part "
                "where delivery_id = %s and state <> 'split'",
                (self._delivery.id,),
            ).fetchone()
        assert row is not None
        self._context.progress({"done": row[0], "of": row[1], "unit": "parts", "phase": "hand-over"})
