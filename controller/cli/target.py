"""Which object is meant: `KIND/NAME`, with short names and plurals.

Whoever mistypes hears the nearest word and what there is; a name that several objects have needs its kind.
Reads the store and never guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from controller.cli.errors import USAGE, Failure

if TYPE_CHECKING:
    from controller.api.meta import Manifest
    from controller.reconcile.kube import Kube

GROUP_SUFFIX = ".mainspring.dev"
SHOWN = 10
"""Most names that a message lists."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind, and one object of it or all."""

    kind: str
    name: str | None = None


def kind_words() -> dict[str, str]:
    """Every word that names a kind, in lower case: kind, plural and short name."""
    from controller.api.kinds import KINDS

    return {w: k.name for k in KINDS.values() for w in (k.name.lower(), k.plural, k.short)}


def parse_kind(text: str) -> str:
    """Read a kind as people type it.

    Raises:
        Failure: unknown; with the nearest word and all kinds. Exit code 2.
    """
    words = kind_words()
    word = text.lower().removesuffix(GROUP_SUFFIX)
    if word in words:
        return words[word]
    near = get_close_matches(word, words, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    known = "modelspec (mspec), modelrevision (mrev), modelrepository (mrepo), modeloverride (movr)"
    raise Failure(f'unknown kind "{text}"{hint} Kinds are {known}', code=USAGE)


def parse_target(text: str) -> Target:
    """Read `KIND` or `KIND/NAME`.

    Raises:
        Failure: unknown kind, or an empty name.
    """
    kind, slash, name = text.partition("/")
    if slash and not name:
        raise Failure(f'"{text}" has no name after the slash', code=USAGE)
    return Target(parse_kind(kind), name if slash else None)


def spoken(kind: str, name: str) -> str:
    """Write an object as the verbs take it: `modelspec/bikes`."""
    return f"{kind.lower()}/{name}"


async def find(store: Kube, text: str, namespace: str, *, kinds: tuple[str, ...] = ()) -> Manifest:
    """Find the one object that is meant by `KIND/NAME`, or by `NAME` alone if only one object has it.

    Args:
        kinds: the kinds that make sense here, all when empty.

    Raises:
        Failure: there is none, or several; with what there is.
    """
    from controller.api.kinds import KINDS

    allowed = kinds or tuple(KINDS)
    if "/" in text:
        target = parse_target(text)
        if target.kind not in allowed:
            message = f"this works on {' and '.join(allowed)}, not on a {target.kind}"
            raise Failure(message, code=USAGE)
        return await _named(store, (target.kind,), target.name or "", namespace)
    if text.lower() in kind_words():
        raise Failure(f"which {kind_words()[text.lower()]}? Write {text}/NAME", code=USAGE)
    return await _named(store, allowed, text, namespace)


async def _named(store: Kube, kinds: tuple[str, ...], name: str, namespace: str) -> Manifest:
    there = {k: {m["metadata"]["name"]: m for m in await store.list(k, namespace=namespace)} for k in kinds}
    found = [there[k][name] for k in kinds if name in there[k]]
    if len(found) == 1:
        return found[0]
    if found:
        both = " and ".join(spoken(m["kind"], name) for m in found)
        raise Failure(f'"{name}" is the name of {both}; say which', code=USAGE)
    raise Failure(await _missing(store, there, name, namespace))


async def _missing(store: Kube, there: dict[str, dict[str, Manifest]], name: str, namespace: str) -> str:
    """Say what is there instead: the nearest name, the names, or the namespaces that do have it."""
    what = next(iter(there)) if len(there) == 1 else "object"
    text = f'no {what} "{name}" in namespace {namespace}'
    names = list(dict.fromkeys(n for found in there.values() for n in found))
    elsewhere = sorted(
        {m["metadata"]["namespace"] for k in there for m in await store.list(k) if m["metadata"]["name"] == name}
    )
    if elsewhere:
        return f"{text}; it is in namespace {', '.join(elsewhere)} (use -n)"
    if not names:
        return f"{text}, and no other either; create it with mainspring apply -f FILE"
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{text}{hint} There is: {', '.join(sorted(names)[:SHOWN])}{more}"
