"""The rendered messages of an mta process: on a destination's queue, or in a connection's hands, until they are judged.

Each has a token of its own, drawn when it is put here; a message that is rendered anew gets another one. One event
loop only.
"""

from __future__ import annotations

from collections.abc import Callable

from midsource.mid.dispatch import Message
from midsource.mid.held import Destination, Held, Item, transaction_of
from midsource.mid.render import Rendered
from midsource.smtp.events import Transaction


class Shelf:
    """Rendered messages by token. ``bytes`` is what those on queues weigh; `mid.ahead` renders by it."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}
        self._token = 0
        self.bytes = 0

    def put(self, dest: Destination, held: Held, message: Message, rendered: Rendered) -> None:
        """Add a message at the end of the queue of ``dest``."""
        self._token += 1
        self._items[self._token] = Item(held, message, rendered.message_id, len(rendered.wire))
        self.bytes += len(rendered.wire)
        dest.ready.append(transaction_of(self._token, message, rendered))

    def take(self, dest: Destination) -> tuple[Transaction, Item]:
        """Take the first message off the queue; it stays known by its token."""
        transaction = dest.ready.popleft()
        item = self._items[transaction.token]
        self.bytes -= item.bytes
        return transaction, item

    def put_back(self, dest: Destination, transaction: Transaction) -> None:
        """Put a message that was taken at the front of the queue."""
        dest.ready.appendleft(transaction)
        self.bytes += self._items[transaction.token].bytes

    def item(self, token: int) -> Item:
        """Return what is known of a message."""
        return self._items[token]

    def find(self, token: int) -> Item | None:
        """Return what is known of a message, None where it was forgotten."""
        return self._items.get(token)

    def forget(self, token: int) -> Item:
        """Return what is known of a message that was taken, and know it no more."""
        return self._items.pop(token)

    def empty(self, dest: Destination, which: Callable[[Held], bool]) -> list[tuple[Held, Message]]:
        """Take the waiting messages of these batches out of ``dest``, rendered or not, and forget them."""
        out = [entry for entry in dest.fresh if which(entry[0])]
        kept = [entry for entry in dest.fresh if not which(entry[0])]
        dest.fresh.clear()
        dest.fresh.extend(kept)
        ready = list(dest.ready)
        dest.ready.clear()
        for transaction in ready:
            item = self._items[transaction.token]
            if which(item.held):
                del self._items[transaction.token]
                self.bytes -= item.bytes
                out.append((item.held, item.message))
            else:
                dest.ready.append(transaction)
        return out
