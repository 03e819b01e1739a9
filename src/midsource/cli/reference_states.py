"""The reference page of the states: deliveries, messages and technical workflows, with a picture of each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any

from midsource.cli.reference_page import page, table
from midsource.model import delivery, message, workflow


def states_page() -> str:
    """Return states and transitions of deliveries, messages and technical workflows, with a picture of each."""
    parts = [
        "# States\n",
        "Numbers are the field's. *Failed* of a technical workflow is a flag beside its state.\n",
        _machine("Delivery", delivery.DeliveryState, delivery.TRANSITIONS),
        _machine("Message", message.MessageState, message.TRANSITIONS),
        _machine("Technical workflow", workflow.WorkflowState, workflow.TRANSITIONS),
        "## Reasons of a message\n",
        "One list for exclusions and failures.\n",
        table(("number", "reason"), [(str(int(r)), r.label) for r in message.Reason if r.label]),
    ]
    return page(parts)


def _machine(title: str, states: Any, transitions: Mapping[Any, Mapping[Any, Any]]) -> str:
    picture = ["```mermaid", "stateDiagram-v2"]
    picture += [f'    state "{_label(s)} ({int(s)})" as {s.name}' for s in states]
    for state in states:
        arrows: dict[Any, list[str]] = {}
        for event, target in transitions[state].items():
            arrows.setdefault(target, []).append(_event(event))
        picture += [f"    {state.name} --> {target.name}: {', '.join(on)}" for target, on in arrows.items()]
        picture += [] if transitions[state] else [f"    {state.name} --> [*]"]
    picture.append("```")
    rows = [[str(int(state)), _label(state), _moves(transitions[state]), _said(states, state)] for state in states]
    columns = ["number", "state", "moves by", "meaning"]
    if not any(row[3] for row in rows):
        columns, rows = columns[:3], [row[:3] for row in rows]
    return "\n".join([f"## {title}\n", *picture, "", table(columns, rows)])


def _moves(moves: Mapping[Any, Any]) -> str:
    return "; ".join(f"{_event(event)} → {_label(target)}" for event, target in moves.items()) or "nothing: final"


def _label(state: IntEnum) -> str:
    return str(getattr(state, "label", state.name))


def _event(event: Enum) -> str:
    return str(event.value).replace("_", " ")


def _said(states: type, state: IntEnum) -> str:
    """Return the comment beside a state in its enumeration."""
    for line in inspect.getsource(states).splitlines():
        name, _, rest = line.strip().partition(" = ")
        if name == state.name:
            return rest.partition("# ")[2]
    return ""
