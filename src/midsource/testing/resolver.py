"""A DNS server on a loopback UDP port that answers from a table: resolvers are tested against the wire."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENT = "SILENT"
"""Instead of records: no answer at all."""

SERVFAIL = "SERVFAIL"
"""Instead of records: the server fails."""

TTL_SECONDS = 600


class ZoneServer(asyncio.DatagramProtocol):
    """Serves ``zone``: ``"name TYPE"`` to record texts, `SILENT` or `SERVFAIL`; ``async with`` starts and stops it.

    A name with no entry of any type does not exist; aliases (CNAME) are followed within the zone. ``asked`` counts.
    """

    def __init__(self, zone: Mapping[str, Sequence[str] | str], *, ttl: int = TTL_SECONDS) -> None:
        self.zone = {self._key(*entry.split()): records for entry, records in zone.items()}
        self.ttl = ttl
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    @staticmethod
    def _key(name: str, kind: str) -> tuple[str, str]:
        return name.lower().rstrip("."), kind

    async def __aenter__(self) -> ZoneServer:
        """Listen on a free loopback port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one question."""
        query = dns.message.from_wire(data)
        [question] = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked[f"{name} {kind}"] += 1
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if self._fill(response, name, kind):
            assert self._transport is not None
            self._transport.sendto(response.to_wire(), addr)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> bool:
        """Put the answer in; False to stay silent."""
        for _ in range(10):
            records = self.zone.get((name, kind), ())
            if records == SILENT:
                return False
            if records == SERVFAIL:
                response.set_rcode(dns.rcode.SERVFAIL)
                return True
            alias = self.zone.get((name, "CNAME"))
            shown, what = (records, kind) if records or not alias else (alias, "CNAME")
            if shown:
                owner = dns.name.from_text(name)
                response.answer.append(dns.rrset.from_text(owner, self.ttl, "IN", what, *shown))
            if what != "CNAME":
                break
            name = shown[0].rstrip(".")
        if not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return True
