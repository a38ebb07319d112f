"""What the controller may rely on from the registry, on a real MLflow server and on the fake of the stories."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from controller.clients.errors import Conflict, Denied, NotFound
from controller.clients.registry import Registry
from controller.reconcile.ports import RegistryPort
from tests.support.fake_registry import FakeRegistry
from tests.support.mlflow_shared import tracking_uri

FILES = {"MLmodel": b"flavors: {}\n", "data/model.skops": b"\x00\x01" * 3000, "read me? 100% a+b;c=d ü.txt": b""}


@pytest.fixture(params=["fake", "real"])
def play(request):
    """Run one story; the real registry belongs to the event loop of the story."""
    if request.param == "fake":
        return lambda story: asyncio.run(story(FakeRegistry()))
    uri = tracking_uri()

    async def with_real(story):
        registry = Registry(uri)
        try:
            await story(registry)
        finally:
            await registry.aclose()

    return lambda story: asyncio.run(with_real(story))


@pytest.fixture
def name():
    return f"bikes-{uuid.uuid4().hex[:10]}"


def test_both_satisfy_the_port():
    ports: list[RegistryPort] = [FakeRegistry(), Registry("http://127.0.0.1:9")]
    assert len(ports) == 2


def test_a_run_per_revision_and_attempt_is_made_once(play, name):
    async def story(registry):
        await registry.ping()
        first = await registry.ensure_run(
            name,
            environment="ml",
            revision=f"{name}-r1",
            attempt=1,
            tags={"commit": "c" * 40},
            params={"depth": 3, "a$b": "x" * 9000},
        )
        again = await registry.ensure_run(
            name,
            environment="ml",
            revision=f"{name}-r1",
            attempt=1,
            tags={"commit": "c" * 40},
            params={"depth": 3, "a$b": "x" * 9000},
        )
        other = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=2)
        assert first == again
        assert other != first
        assert await registry.ensure_experiment(name) == await registry.ensure_experiment(name)

    play(story)


def test_metrics_and_the_end_of_a_run_may_be_written_twice(play, name):
    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        for _ in range(2):
            await registry.log_metrics(run, {"roc_auc": 0.91, "slice:age/p 95": 3.5, "broken": float("nan")})
            await registry.finish_run(run, "FINISHED")

    play(story)


def test_files_come_back_as_they_went(play, name, tmp_path):
    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        folder = tmp_path / "left"
        for file, content in FILES.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        for _ in range(2):
            await registry.upload(run, "model", folder)
            await registry.upload(run, "mainspring", {"report.json": b"{}", "deep/er.txt": b"x"})
        for _ in range(2):
            assert await registry.download_model(run, tmp_path / "came") == len(FILES)
        came = {
            p.relative_to(tmp_path / "came").as_posix(): p for p in (tmp_path / "came").rglob("*") if p.is_file()
        }
        assert {n: p.read_bytes() for n, p in came.items()} == FILES
        assert await registry.read_artifact(run, "mainspring/report.json") == b"{}"
        await registry.write_statement(run, b"signed")
        assert await registry.read_artifact(run, "mainspring/lineage.json") == b"signed"

    play(story)


@pytest.mark.parametrize(
    "path",
    ["../other", "model/../../x", "/etc/passwd", "a//b", "a\\b", "a\nb", ".", "a%2e%2e", "a#b", "x" * 300],
)
def test_a_path_that_leaves_the_run_is_refused(play, name, path):
    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        with pytest.raises(Denied, match="is refused: plain names only"):
            await registry.upload(run, "", {path: b"x"})
        with pytest.raises(Denied, match="is refused: plain names only"):
            await registry.read_artifact(run, path)

    play(story)


def test_a_link_is_not_uploaded(play, name, tmp_path):
    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        (tmp_path / "left").mkdir()
        (tmp_path / "left" / "secret").symlink_to("/etc/hostname")
        with pytest.raises(Denied, match="'secret' is refused"):
            await registry.upload(run, "model", tmp_path / "left")

    play(story)


def test_what_is_missing_or_too_large_is_said(play, name, tmp_path):
    async def story(registry):
        run = await registry.ensure_run(name, environment="ml", revision=f"{name}-r1", attempt=1)
        await registry.upload(run, "", {"big.json": b"x" * 2000})
        with pytest.raises(Denied, match=r"big\.json of run .* is larger than 1,999 bytes"):
            await registry.read_artifact(run, "big.json", 1999)
        assert len(await registry.read_artifact(run, "big.json", 2000)) == 2000
        with pytest.raises(NotFound):
            await registry.read_artifact(run, "small.json")
        with pytest.raises(NotFound, match="has no model"):
            await registry.download_model(run, tmp_path / "none")
        with pytest.raises(NotFound, match=r"f{32}"):
            await registry.read_artifact("f" * 32, "x")

    play(story)


def test_a_revision_has_one_version_and_an_alias_names_one(play, name):
    async def story(registry):
        assert await registry.get_aliases(name) == {}
        for n, revision in enumerate([f"{name}-r1", f"{name}-r2"], start=1):
            run = await registry.ensure_run(name, environment="ml", revision=revision, attempt=1)
            await registry.upload(run, "model", {"MLmodel": b"x"})
            for _ in range(2):
                assert await registry.ensure_version(
                    name, run, environment="ml", revision=revision, tags={"a": "b"}
                ) == str(n)
        for version in ("1", "2", "2"):
            await registry.set_alias(name, "production-champion", version)
            assert await registry.get_aliases(name) == {"production-champion": version}
        with pytest.raises(NotFound, match="version=99"):
            await registry.set_alias(name, "production-champion", "99")

    play(story)


def test_two_environments_share_neither_run_nor_version(play, name):
    async def story(registry):
        runs, versions = [], []
        for environment in ("staging", "production"):
            own = {"environment": environment, "revision": f"{name}-r1"}
            runs.append(await registry.ensure_run(name, **own, attempt=1))
            await registry.upload(runs[-1], "model", {"MLmodel": environment.encode()})
            versions.append(await registry.ensure_version(name, runs[-1], **own))
        assert runs[0] != runs[1]
        assert versions == ["1", "2"]
        assert await registry.read_artifact(runs[0], "model/MLmodel") == b"staging"

    play(story)


def test_ledger_entries_are_kept_in_order_and_never_replaced(play, name):
    async def story(registry):
        assert await registry.read_ledger(name, "production") == ()
        for seq, envelope in enumerate([b"one", b"two", b"two"], start=1):
            for _ in range(2):
                await registry.append_ledger(name, "production", seq, envelope)
        assert await registry.read_ledger(name, "production") == (b"one", b"two", b"two")
        assert await registry.read_ledger(name, "staging") == ()
        with pytest.raises(Conflict, match=r"ledger entry 2 of .* is another one already"):
            await registry.append_ledger(name, "production", 2, b"other")
        assert await registry.read_ledger(name, "production") == (b"one", b"two", b"two")

    play(story)


@pytest.mark.parametrize("second", [b"entry", b"decided anew"], ids=["the same entry", "another entry"])
def test_an_entry_whose_writer_died_before_its_tag_does_not_count_and_is_written_anew(play, name, second):
    async def story(registry):
        run = await registry.ledger_run(name, "production")
        await registry.upload(run, "ledger", {"000001.json": b"entry"})
        assert await registry.read_ledger(name, "production") == ()
        await registry.append_ledger(name, "production", 1, second)
        assert await registry.read_ledger(name, "production") == (second,)

    play(story)


def test_a_missing_entry_leaves_its_place_empty(play, name):
    async def story(registry):
        await registry.append_ledger(name, "production", 1, b"one")
        await registry.append_ledger(name, "production", 3, b"three")
        assert await registry.read_ledger(name, "production") == (b"one", b"", b"three")

    play(story)


def test_an_entry_that_was_replaced_in_the_store_is_handed_over_as_it_is(play, name):
    async def story(registry):
        await registry.append_ledger(name, "production", 1, b"one")
        run = await registry.ledger_run(name, "production")
        await registry.upload(run, "ledger", {"000001.json": b"forged"})
        assert (await registry.read_ledger(name, "production"))[0] in (b"one", b"forged")

    play(story)
