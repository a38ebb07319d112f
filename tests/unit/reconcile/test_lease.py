"""Leader election: never two leaders, a takeover after the Lease has run out, standing by without an answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.api.meta import Key
from controller.clients.errors import Conflict, Unavailable
from controller.reconcile.lease import GIVE_UP_S, LEASE_S, Elector, Standing, wanted

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("Lease", "system", "mainspring")


class Server:
    """One Lease with versions, and a clock that tests move."""

    def __init__(self):
        self.lease: Any = None
        self.version = 0
        self.away = False
        self.time = 100.0

    def elector(self, me):
        now = lambda: START + timedelta(seconds=self.time)  # noqa: E731
        server: Any = self
        return Elector(server, "system", "mainspring", me, now, lambda: self.time)

    async def get(self, key):
        assert key == KEY
        if self.away:
            raise Unavailable("no connection")
        lease = self.lease
        # Others come between a read and the write that follows it.
        await asyncio.sleep(0)
        return lease

    async def create(self, manifest):
        if self.lease is not None:
            raise Conflict("exists", reason="AlreadyExists")
        return self._stored(manifest)

    async def apply(self, manifest):
        if manifest["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("modified")
        return self._stored(manifest)

    async def patch_spec(self, key, patch):
        assert key == KEY
        merged = {**self.lease["spec"], **patch}
        return self._stored({**self.lease, "spec": {k: v for k, v in merged.items() if v is not None}})

    def _stored(self, manifest):
        if self.away:
            raise Unavailable("no connection")
        self.version += 1
        self.lease = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self.version)}}
        return self.lease


def attempt(elector):
    return asyncio.run(elector.attempt())


def test_the_first_leads_and_the_second_waits_until_the_lease_has_run_out():
    server = Server()
    first, second = server.elector("first"), server.elector("second")
    assert attempt(first)
    assert first.leading.is_set()
    assert not attempt(second)
    assert second.heard == "first leads"
    server.time += LEASE_S - 0.1
    assert not attempt(second)
    server.time += 0.2
    assert attempt(second)
    assert second.leading.is_set()
    assert server.lease["spec"]["leaseTransitions"] == 1


def test_a_renewal_starts_the_wait_of_the_other_anew():
    server = Server()
    first, second = server.elector("first"), server.elector("second")
    attempt(first)
    for _ in range(5):
        server.time += LEASE_S - 5
        attempt(first)
        assert not attempt(second)


def test_who_cannot_renew_leads_no_more_before_anybody_else_may_and_leads_again_when_nobody_did():
    server = Server()
    first, second = server.elector("first"), server.elector("second")
    attempt(first)
    attempt(second)
    server.away = True
    server.time += GIVE_UP_S - 1
    attempt(first)
    assert first.leading.is_set()
    assert first.may_act()
    server.time += 1
    attempt(first)
    assert not first.leading.is_set()
    assert first.over.is_set()
    server.away = False
    assert not attempt(second)
    server.time += 600
    assert attempt(first)
    assert first.leading.is_set()
    assert not first.over.is_set()
    assert first.led_from == server.time


def test_who_has_stood_still_may_not_act_although_it_has_not_noticed_yet():
    server = Server()
    first = server.elector("first")
    attempt(first)
    server.time += GIVE_UP_S
    assert first.leading.is_set()
    assert not first.may_act()


def test_a_leader_that_finds_another_holder_leads_no_more():
    server = Server()
    first = server.elector("first")
    attempt(first)
    server.lease = {**server.lease, "spec": wanted(server.lease["spec"], "second", "later")}
    assert not attempt(first)
    assert first.over.is_set()
    assert not first.may_act()
    assert first.heard == "second leads"


def test_the_clock_of_another_machine_is_never_believed():
    server = Server()
    spec = {"holderIdentity": "first", "renewTime": "1970-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}
    server.lease = {"kind": "Lease", "metadata": {"name": "mainspring", "resourceVersion": "0"}, "spec": spec}
    assert not attempt(server.elector("second"))


def test_a_lease_that_was_given_back_is_taken_at_once():
    server = Server()
    first, second = server.elector("first"), server.elector("second")
    attempt(first)
    asyncio.run(first.release())
    assert "holderIdentity" not in server.lease["spec"]
    assert attempt(second)


def test_of_two_that_write_at_once_only_one_leads():
    server = Server()
    first, second = server.elector("first"), server.elector("second")
    server.lease, server.version = {"kind": "Lease", "metadata": {"resourceVersion": "0"}, "spec": {}}, 0

    async def both():
        return await asyncio.gather(first.attempt(), second.attempt())

    assert sorted(asyncio.run(both())) == [False, True]


def test_only_a_leader_can_lose():
    assert Standing().judged(1e9) == Standing()
    assert Standing().left_s(0.0) == 0.0
