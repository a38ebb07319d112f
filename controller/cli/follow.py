"""Follows the order of a person until it is so: every change of what the model says, with the seconds since.

Reads and waits; what it waits for is that all requests are on the revision that the order puts into place.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final

from controller.cli.errors import Failure
from controller.cli.output import say

if TYPE_CHECKING:
    from controller.api.meta import Manifest
    from controller.cli.session import Session

_COUNTING: Final = re.compile(r"[0-9]+")
"""What changes with every look and is no news."""


async def follow(session: Session, order: Manifest, timeout_s: float) -> float:
    """Print how an order comes along until it is done; returns the seconds that it took.

    Raises:
        Failure: it was refused, or the time is over; the order stays.
    """
    meta, name = order["metadata"], order["spec"]["modelRef"]["name"]
    begun, told = time.monotonic(), ""
    model: Manifest = {}
    try:
        async with asyncio.timeout(timeout_s):
            async for event in session.store.watch(["ModelSpec", "ModelOverride"]):
                found = event.object
                where = found["metadata"]
                if where["namespace"] != meta["namespace"]:
                    continue
                if found["kind"] == "ModelSpec" and where["name"] == name:
                    model = found
                elif found["kind"] == "ModelOverride" and where["uid"] == meta["uid"]:
                    order = found
                else:
                    continue
                took = time.monotonic() - begun
                _refused(order)
                told = _tell(model, order, told, took)
                if is_done(model, order):
                    say(f"{outcome(model, order)} after {took:.1f} s")
                    return took
    except TimeoutError:
        pass_on = f"{told or 'nothing was decided yet'}; is {session.who} running?"
        raise Failure(f"not done after {timeout_s:g} s, and the order stays: {pass_on}") from None
    raise Failure("the watch of objects has ended; mainspring get modeloverride shows how the order stands")


def _refused(order: Manifest) -> None:
    active = _condition(order, "Active")
    if active.get("status") == "False" and active.get("reason") != "Done":
        raise Failure(f"{active['reason']}: {active['message']}")


def _tell(model: Manifest, order: Manifest, told: str, took: float) -> str:
    """Print what the model says if that is new; before it has taken the order up, what the order says."""
    taken = ((model.get("status") or {}).get("override") or {}).get("uid") == order["metadata"]["uid"]
    said = _condition(model, "Ready") if taken else _condition(order, "Active")
    text = str(said.get("message", ""))
    if text and _COUNTING.sub("", text) != _COUNTING.sub("", told):
        say(f"  +{took:.1f}s  {text}")
        return text
    return told


def is_done(model: Manifest, order: Manifest) -> bool:
    """Tell whether all requests are where the order wants them."""
    spec, status = order["spec"], model.get("status") or {}
    champion, challenger = status.get("champion") or {}, status.get("challenger") or {}
    whole = champion.get("weight") == 100
    if spec["action"] == "Abort":
        gone = challenger.get("revision") != spec["to"]
        return _condition(order, "Active").get("reason") == "Applied" and gone and (whole or not champion)
    if spec["action"] == "Promote":
        return champion.get("revision") == spec["to"] and whole
    taken = status.get("override") or {}
    applied = taken.get("uid") == order["metadata"]["uid"] and taken.get("state") == "Applied"
    ready = _condition(model, "Ready")
    placed = ready.get("status") == "True" or ready.get("reason") != "Progressing"
    return bool(applied and champion.get("revision") == spec["to"] and whole and placed)


def outcome(model: Manifest, order: Manifest) -> str:
    """Say in words what is so now."""
    spec = order["spec"]
    if spec["action"] != "Abort":
        return f"all requests are on {spec['to']}"
    champion = ((model.get("status") or {}).get("champion") or {}).get("revision")
    return f"{spec['to']} gets no requests; {f'all are on {champion}' if champion else 'nothing serves'}"


def _condition(manifest: Manifest, type_: str) -> dict[str, Any]:
    conditions = (manifest.get("status") or {}).get("conditions", ())
    return next((c for c in conditions if c["type"] == type_), {})
