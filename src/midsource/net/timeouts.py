"""How long an SMTP client waits for each answer: RFC 5321 4.5.3.2, under the caps of an MX rule."""

from __future__ import annotations

from dataclasses import dataclass

from midsource.model.outcome import Stage


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for each answer. Defaults: RFC 5321 4.5.3.2, but 30 s for TCP and TLS, which have no retries inside."""

    connect_seconds: float = 30
    banner_seconds: float = 300
    command_seconds: float = 300
    data_seconds: float = 120
    body_seconds: float = 600
    tls_seconds: float = 30
    quit_seconds: float = 5  # nothing depends on the answer
    idle_seconds: float = 10  # ours: an open connection without work burns the provider's patience
    opening_seconds: float = 600  # ours: TCP to the first MAIL, banner and EHLO at the most; then no new message
    life_seconds: float = 2400  # ours: a message taken last has the RFC's 22 minutes, and 8 more for its body to leave

    def capped(self, connect: float, other: float, data: float) -> Timeouts:
        """Return these under an MX rule's caps (seconds): TCP connect, after the body, everything else."""
        return Timeouts(
            min(self.connect_seconds, connect),
            min(self.banner_seconds, other),
            min(self.command_seconds, other),
            min(self.data_seconds, other),
            min(self.body_seconds, data),
            min(self.tls_seconds, other),
            self.quit_seconds,
            self.idle_seconds,
            self.opening_seconds,
            self.life_seconds,
        )

    def of(self, stage: Stage | None) -> float:
        """Return the seconds for a stage, None being idle."""
        match stage:
            case None:
                return self.idle_seconds
            case Stage.BANNER:
                return self.banner_seconds
            case Stage.TLS:
                return self.tls_seconds
            case Stage.DATA:
                return self.data_seconds
            case Stage.BODY:
                return self.body_seconds
            case _:
                return self.command_seconds


RFC_TIMEOUTS = Timeouts()
"""Without any rule."""
