"""The file under the local store: modes, damage, several processes, and a writer killed at any moment."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys

import pytest

from controller.api.meta import key_of
from controller.clients.errors import Unavailable
from controller.local.store import Store

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 30
WRITER = """
import asyncio, sys
from controller.api.meta import Key, owner_reference
from controller.local.store import Store

def config(name, **metadata):
    metadata = {"name": name, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": "y" * 500}}

async def main(path, mine, limit):
    store = Store.open(path)
    for number in range(limit):
        owner = await store.apply(config(f"{mine}-owner-{number}"))
        await store.apply(config(f"{mine}-child-{number}", ownerReferences=[owner_reference(owner)]))
        note = {f"{mine}.example.com/n{number % 50}": str(number)}
        await store.annotate(Key("ConfigMap", "default", "shared"), note)
        await store.delete(Key("ConfigMap", "default", f"{mine}-owner-{number - 5}"))
        print(number, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
"""Writes owners with a child each, deletes each owner five rounds later, and tells when a round is written."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "objects.db"


def config(name="settings", level="1"):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"level": level}}


def start_writer(path, mine, limit):
    command = [sys.executable, "-c", WRITER, str(path), mine, str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_objects_survive_closing_and_opening(path):
    first = Store.open(path)
    made = await first.apply(config())
    first.close()
    second = Store.open(str(path))
    assert await second.get(key_of(made)) == made
    assert (await second.apply(config()))["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    second.close()


async def test_only_the_user_can_read_the_file_and_its_directory(path):
    store = Store.open(path)
    await store.apply(config())
    assert mode(path.parent) == 0o700
    assert {item.name: mode(item) for item in path.parent.iterdir()} == dict.fromkeys(
        ("objects.db", "objects.db-wal", "objects.db-shm"), 0o600
    )
    store.close()


def test_a_file_that_others_could_read_is_closed_to_them(path):
    Store.open(path).close()
    path.chmod(0o644)
    Store.open(path).close()
    assert mode(path) == 0o600


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"this is no database " * 500, id="another kind of file"),
        pytest.param(lambda data: data[: len(data) // 2], id="half a file"),
        pytest.param(lambda data: data[:4096] + b"\xff" * 8192 + data[12288:], id="overwritten pages"),
    ],
)
async def test_a_damaged_file_is_unavailable_and_the_message_says_what_to_do(path, damage):
    store = Store.open(path)
    for number in range(100):
        await store.apply(config(f"n{number}"))
    store.close()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Unavailable) as error:
        Store.open(path)
    assert error.value.reason == "StoreDamaged"
    assert "move the file away" in error.value.message
    assert "\n" not in error.value.message


def test_a_file_of_a_newer_format_is_left_alone(path):
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Unavailable, match="format 99, this version reads 1"):
        Store.open(path)


def test_a_directory_in_the_place_of_the_file_is_unavailable(path):
    path.mkdir(parents=True)
    with pytest.raises(Unavailable, match="cannot be opened"):
        Store.open(path)


async def test_a_file_deleted_while_in_use_is_noticed(path):
    store = Store.open(path)
    await store.apply(config())
    path.unlink()
    with pytest.raises(Unavailable) as error:
        await store.apply(config(level="2"))
    assert error.value.reason == "StoreReplaced"
    store.close()


async def test_a_watch_sees_what_another_connection_writes(path):
    reader, writer = Store.open(path), Store.open(path)
    events = reader.watch(["ConfigMap"])
    made = await writer.apply(config())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await anext(events)).object == made
        changed, told = await asyncio.gather(writer.apply(config(level="2")), anext(events))
        assert (told.type, told.object) == ("Modified", changed)
        _, told = await asyncio.gather(writer.delete(key_of(made)), anext(events))
        assert (told.type, told.object["data"]) == ("Deleted", {"level": "2"})
    reader.close()
    writer.close()


async def test_two_processes_write_one_file_and_lose_nothing(path):
    store = Store.open(path)
    await store.apply(config("shared"))
    writers = [start_writer(path, name, 60) for name in ("a", "b")]
    for writer in writers:
        writer.communicate(timeout=DEADLINE_SECONDS)
        assert writer.returncode == 0
    found = await store.list("ConfigMap")
    (shared,) = [item for item in found if item["metadata"]["name"] == "shared"]
    assert len(shared["metadata"]["annotations"]) == 100
    versions = [int(item["metadata"]["resourceVersion"]) for item in found]
    assert len(set(versions)) == len(versions)
    store.close()


def test_processes_that_make_the_file_at_the_same_time_agree(path):
    opener = "import sys; from controller.local.store import Store; Store.open(sys.argv[1]).close()"
    openers = [subprocess.Popen([sys.executable, "-c", opener, str(path)]) for _ in range(4)]
    assert [process.wait(timeout=DEADLINE_SECONDS) for process in openers] == [0, 0, 0, 0]


async def test_a_killed_writer_loses_nothing_it_was_told_is_written_and_leaves_no_orphan(path):
    first = Store.open(path)
    await first.apply(config("shared"))
    first.close()
    for round_ in range(4):
        writer = start_writer(path, f"w{round_}", 100_000)
        told = [int(writer.stdout.readline()) for _ in range(10 + 7 * round_)]
        writer.kill()
        told += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait(timeout=DEADLINE_SECONDS)

        store = Store.open(path)
        found = {item["metadata"]["name"]: item for item in await store.list("ConfigMap")}
        last = told[-1]
        assert f"w{round_}-owner-{last}" in found
        assert f"w{round_}-child-{last}" in found
        assert f"w{round_}-owner-{last - 5}" not in found
        uids = {item["metadata"]["uid"] for item in found.values()}
        owners = [ref["uid"] for item in found.values() for ref in item["metadata"].get("ownerReferences", ())]
        assert set(owners) <= uids
        versions = [int(item["metadata"]["resourceVersion"]) for item in found.values()]
        after = await store.apply(config(f"after-{round_}"))
        assert int(after["metadata"]["resourceVersion"]) > max(versions)
        store.close()
