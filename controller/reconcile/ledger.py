"""The ledger as the reconcilers use it: read, verified and chained; written signed, one entry at a time.

Reads are kept for a while, since nobody else writes; a ledger that cannot be read now but was read before counts
as it was.  The registry's aliases, which are output only, are read here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from controller.api.hashes import canonical
from controller.api.statements import LEDGER_TYPE, LINEAGE_TYPE, LedgerEntry, ledger_payload
from controller.clients.errors import ClientError, NotFound
from controller.clients.signing import Signer, Verifier
from controller.plan.ledger import Ledger, Problem, Verified, VerifiedOrProblem, read_chain
from controller.plan.verdict import Unknown
from controller.reconcile.ports import RegistryPort

FRESH: Final = timedelta(seconds=30)
NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class LedgerBook:
    """Reads and writes the ledgers of all models."""

    registry: RegistryPort
    signer: Signer
    verifier: Verifier
    now: Callable[[], datetime]
    _ledgers: dict[tuple[str, str], tuple[datetime, Ledger]] = field(default_factory=dict)
    _aliases: dict[str, tuple[datetime, Mapping[str, str]]] = field(default_factory=dict)

    async def read(self, name: str, environment: str, *, known_entries: int = 0) -> Ledger | Unknown:
        """Return the valid chain of a model in an environment; Unknown when it was never read and cannot be.

        Args:
            name: of the registered model.
            environment: of the model.
            known_entries: how many entries counted once, by the model's own status; fewer now is reported.
        """
        known = self._ledgers.get((name, environment))
        # A status that knows of more entries was written by another controller since.
        behind = known is not None and len(known[1].entries) < known_entries
        if known is not None and not behind and self._is_fresh(known[0]):
            return known[1]
        try:
            found = await self.registry.read_ledger(name, environment)
        except ClientError as error:
            return known[1] if known is not None else Unknown(error.reason, error.message)
        before = max(len(known[1].entries) if known is not None else 0, known_entries)
        ledger = read_chain([self._open(d) for d in found], name=name, environment=environment, known=before)
        self._ledgers[(name, environment)] = (self.now(), ledger)
        return ledger

    async def append(self, entry: LedgerEntry) -> None:
        """Sign and append an entry.

        **Repeat:** an entry of the same number with other bytes is a Conflict; the chain is read again.
        """
        envelope = self.signer.sign(ledger_payload(entry), LEDGER_TYPE)
        try:
            await self.registry.append_ledger(entry.name, entry.environment, entry.seq, envelope)
        finally:
            self._stale(entry.name, entry.environment)

    def _is_fresh(self, read_at: datetime) -> bool:
        """Tell whether a read is recent; one from the future is not: the clock was set back since."""
        return timedelta(0) <= self.now() - read_at < FRESH

    def _open(self, envelope: bytes) -> VerifiedOrProblem:
        try:
            return Verified(self.verifier.open(envelope, LEDGER_TYPE).payload)
        except ClientError as error:
            return Problem(error.message)

    def _stale(self, name: str, environment: str) -> None:
        """Have the ledger read again, and keep what is known for when that fails."""
        known = self._ledgers.get((name, environment))
        if known is not None:
            self._ledgers[(name, environment)] = (NEVER, known[1])

    def forget(self) -> None:
        """Forget all that was read: another controller may have written since."""
        self._ledgers.clear()
        self._aliases.clear()

    async def write_statement(self, run: str, statement: Mapping[str, Any]) -> None:
        """Sign a lineage statement and write it beside the model. **Repeat:** it is replaced."""
        await self.registry.write_statement(run, self.signer.sign(canonical(statement), LINEAGE_TYPE))

    async def aliases(self, name: str) -> Mapping[str, str] | Unknown:
        """Return alias → version of a registered model; empty when it is not registered yet."""
        known = self._aliases.get(name)
        if known is not None and self._is_fresh(known[0]):
            return known[1]
        try:
            found: Mapping[str, str] = await self.registry.get_aliases(name)
        except NotFound:
            found = {}
        except ClientError as error:
            return Unknown(error.reason, error.message)
        self._aliases[name] = (self.now(), found)
        return found

    async def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version. **Repeat:** it points there already."""
        self._aliases.pop(name, None)
        await self.registry.set_alias(name, alias, version)
