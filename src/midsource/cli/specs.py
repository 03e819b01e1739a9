"""Which processes a home runs: read from the configuration, named ``kind@instance`` (and ``.2``, ``.3`` … for more)."""

from __future__ import annotations

import sys

from midsource.config import Config
from midsource.model.errors import UserError
from midsource.supervise.children import ProcessSpec


def process_specs(config: Config, only: str = "", count: int = 1) -> tuple[ProcessSpec, ...]:
    """Return the processes of this home in the order they are started.

    ``only`` picks one kind of one instance (``mta@mid1``, ``count`` of it) or all of one instance (``mid1``); raises
    UserError naming what there is.
    """
    wanted: list[tuple[str, str, int]] = []
    for instance in config.instances:
        wanted.append(("web", instance.name, 1))
        wanted.append(("worker", instance.name, instance.workers))
        if instance.role == "mid":
            if instance.transport == "sandbox" and config.sandbox.enabled:
                wanted.insert(0, ("sandbox", instance.name, 1))
            wanted.append(("mta", instance.name, instance.mtas))
    if only:
        kind, at, name = only.partition("@")
        chosen = [(k, n, count if at else c) for k, n, c in wanted if (k, n) == (kind, name) or (not at and n == kind)]
        if not chosen:
            known = ", ".join(f"{k}@{n}" for k, n, _ in wanted)
            raise UserError(f"--only {only!r} names nothing here", f"there are {known}")
        wanted = chosen
    return tuple(
        _spec(config, kind, name if number == 1 else f"{name}.{number}", name)
        for kind, name, copies in wanted
        for number in range(1, copies + 1)
    )


def _spec(config: Config, kind: str, label: str, instance: str) -> ProcessSpec:
    name = f"{kind}@{label}"
    log = config.home / "log" / instance / f"{kind}{label.removeprefix(instance)}.log"
    argv = (sys.executable, "-P", "-m", "midsource.cli.process", "--home", str(config.home), name)
    return ProcessSpec(name=name, argv=argv, log=log)
