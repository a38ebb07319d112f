"""From a ref to a commit: what is resolved, what is refused with which reason, and how often a server is asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.git import GitPolicy, GitRef, Mirrors
from tests.corpus import standing
from tests.support.git_repos import Scratch

MAIN = GitRef(branch="main")


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def repo(tmp_path):
    made = Scratch.create(tmp_path / "repos" / "churn.git")
    made.commit({"train.py": b"print()\n"}, message="First")
    return made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def mirrors(tmp_path, clock):
    return Mirrors(tmp_path / "mirrors", GitPolicy(file_roots=(tmp_path / "repos",), timeout_s=20), clock)


def resolve(mirrors, url, ref=MAIN, max_age_s=60.0):
    return asyncio.run(mirrors.resolve(url, ref, max_age_s=max_age_s))


def refused(kind, mirrors, url, ref=MAIN):
    with pytest.raises(kind) as caught:
        resolve(mirrors, url, ref)
    assert "\n" not in caught.value.message
    standing.git_says(caught.value)
    return caught.value


def test_a_branch_is_resolved_to_its_commit_author_and_subject(mirrors, repo):
    tip = repo.commit({"train.py": b"2"}, message="Second\n\nwith a body")
    head = resolve(mirrors, repo.url)
    assert (head.commit, head.ref, head.subject) == (tip, "refs/heads/main", "Second")
    assert head.author == "Ada <ada@example.com>"
    assert head.committed_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_plain_path_is_a_repository_in_local_mode(mirrors, repo):
    assert resolve(mirrors, str(repo.path)).ref == "refs/heads/main"


@pytest.mark.parametrize(
    "ref", [GitRef(tag="v1"), GitRef(name="refs/tags/v1"), GitRef(name="refs/pull/7/head")], ids=str
)
def test_tags_and_full_refs_are_resolved_to_the_commit_behind_them(mirrors, repo, ref):
    tip = repo.git("rev-parse", "main")
    repo.ref("refs/pull/7/head", tip)
    repo.tag("v1", repo.tag("inner", tip))
    assert resolve(mirrors, repo.url, ref).commit == tip


def test_a_pinned_commit_is_resolved_wherever_a_branch_contains_it(mirrors, repo):
    first = repo.git("rev-parse", "main")
    repo.commit({"train.py": b"2"})
    assert resolve(mirrors, repo.url, GitRef(commit=first)).subject == "First"
    asked = mirrors.polls
    assert resolve(mirrors, repo.url, GitRef(commit=first)).commit == first
    assert mirrors.polls == asked, "a commit cannot change, so nobody is asked again"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        pytest.param(GitRef(branch="mian"), "has no branch 'mian'; nearest: main, ", id="G01 branch missing"),
        pytest.param(GitRef(tag="v1.00"), "has no tag 'v1.00'; nearest: v1.0, ", id="G01 tag missing"),
        pytest.param(GitRef(name="refs/x/y"), "has no ref 'refs/x/y'; nearest: ", id="G01 full ref missing"),
    ],
)
def test_a_missing_ref_is_reported_with_the_nearest_names(mirrors, repo, ref, says):
    for name in ("mainline", "domain", "other"):
        repo.commit({"a": b""}, branch=name)
    repo.tag("v1.0", "main")
    error = refused(NotFound, mirrors, repo.url, ref)
    assert error.reason == "RefNotFound"
    assert says in error.message
    assert len(error.message.split("nearest: ")[1].split(", ")) == 3


def test_an_empty_repository_says_so(mirrors, tmp_path):
    """G01."""
    error = refused(NotFound, mirrors, Scratch.create(tmp_path / "repos" / "empty.git").url)
    assert error.reason == "RefNotFound"
    assert "has no branches or tags" in error.message


def test_a_directory_that_is_no_repository_says_so(mirrors, tmp_path):
    (tmp_path / "repos" / "plain").mkdir(parents=True)
    error = refused(NotFound, mirrors, f"file://{tmp_path}/repos/plain")
    assert error.reason == "RepositoryNotFound"
    assert "check source.url" in error.message


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda repo: "f" * 40, id="G02 commit not in the repository"),
        pytest.param(lambda repo: repo.git("rev-parse", "main^{tree}"), id="G02 id of a tree"),
        pytest.param(lambda repo: repo.git("rev-parse", "main:train.py"), id="G02 id of a blob"),
        pytest.param(lambda repo: "a" * 64, id="G02 64 digits in a SHA-1 repository"),
    ],
)
def test_an_id_that_is_no_commit_here_is_not_found(mirrors, repo, make):
    commit = make(repo)
    error = refused(Denied, mirrors, repo.url, GitRef(commit=commit))
    assert error.reason == "CommitNotFound"
    assert commit in error.message


@pytest.mark.parametrize("value", ["0123456", "A" * 40, "a" * 39, "a" * 41], ids="G02 {}".format)
def test_a_commit_in_another_form_is_refused_before_anything_is_asked(value):
    with pytest.raises(Denied) as caught:
        GitRef(commit=value)
    assert caught.value.reason == "CommitNotFound"
    standing.git_says(caught.value)


def test_a_commit_of_a_fork_is_not_taken(mirrors, repo):
    """G03."""
    lost = repo.commit({"evil.py": b""}, branch="fork")
    repo.ref("refs/pull/1/head", lost)
    repo.git("update-ref", "-d", "refs/heads/fork")
    error = refused(Denied, mirrors, repo.url, GitRef(commit=lost))
    assert error.reason == "CommitNotReachable"
    assert "only 'refs/pull/1/head' has it" in error.message


def test_a_commit_that_a_force_push_removed_is_not_pinned_but_still_readable(mirrors, repo, tmp_path):
    """G03, G04."""
    old = resolve(mirrors, repo.url).commit
    new = repo.commit({"train.py": b"new"}, parents=[])
    assert asyncio.run(mirrors.refresh(repo.url, MAIN)).commit == new
    assert refused(Denied, mirrors, repo.url, GitRef(commit=old)).reason == "CommitNotReachable"
    asyncio.run(mirrors.ensure(repo.url, old, MAIN))
    assert asyncio.run(mirrors.read(repo.url, old, "train.py")) == b"print()\n"


def test_a_job_with_a_fresh_mirror_gets_the_very_commit_or_none(mirrors, repo, tmp_path):
    """G04, G26."""
    old = repo.git("rev-parse", "main")
    repo.commit({"train.py": b"new"}, parents=[])
    asyncio.run(mirrors.ensure(repo.url, old, MAIN))
    assert asyncio.run(mirrors.read(repo.url, old, "train.py")) == b"print()\n"
    with pytest.raises(Unavailable) as caught:
        asyncio.run(mirrors.ensure(repo.url, "f" * 40, MAIN))
    assert caught.value.reason == "CommitGone"
    assert "force-pushed" in caught.value.message
    standing.git_says(caught.value)


def test_a_deleted_branch_is_reported_and_its_commit_stays_readable(mirrors, repo, clock):
    """G05."""
    repo.commit({"a": b"x"}, branch="dev")
    head = resolve(mirrors, repo.url, GitRef(branch="dev"))
    repo.git("update-ref", "-d", "refs/heads/dev")
    clock.now += 61
    assert refused(NotFound, mirrors, repo.url, GitRef(branch="dev")).reason == "RefNotFound"
    assert asyncio.run(mirrors.read(repo.url, head.commit, "a")) == b"x"


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_a_branch_replaced_by_a_folder_of_branches_is_followed(mirrors, repo, clock):
    """G05: `dev` deleted, `dev/a` made; the two cannot exist together as files."""
    repo.commit({"a": b"x"}, branch="dev")
    resolve(mirrors, repo.url, GitRef(branch="dev"))
    repo.git("update-ref", "-d", "refs/heads/dev")
    tip = repo.commit({"a": b"y"}, branch="dev/a")
    clock.now += 61
    assert resolve(mirrors, repo.url, GitRef(branch="dev/a")).commit == tip


@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_a_moved_tag_says_where_it_was(mirrors, repo, clock):
    """G06."""
    repo.tag("v1", "main")
    first = resolve(mirrors, repo.url, GitRef(tag="v1"))
    tip = repo.commit({"a": b"2"})
    repo.tag("v1", "main")
    clock.now += 61
    second = resolve(mirrors, repo.url, GitRef(tag="v1"))
    assert (first.moved_from, second.commit, second.moved_from) == ("", tip, first.commit)


def test_a_tag_of_a_file_is_no_commit(mirrors, repo):
    repo.ref("refs/tags/blob", repo.git("rev-parse", "main:train.py"))
    error = refused(Denied, mirrors, repo.url, GitRef(tag="blob"))
    assert error.reason == "CommitNotFound"
    assert "does not point at a commit" in error.message


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("--upload-pack=touch marker", id="G07 --upload-pack=x"),
        pytest.param("--output=marker", id="G07 --output"),
        pytest.param("-", id="G07 dash"),
        pytest.param("@{-1}", id="G07 @{-1}"),
        pytest.param("a..b", id="G07 a..b"),
        pytest.param("a^{commit}", id="G07 a^{commit}"),
        pytest.param("a\nb", id="G07 newline"),
        pytest.param("x" * 300, id="G07 300 characters"),
    ],
)
@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_ref_in_disguise_is_refused(kind, name):
    with pytest.raises(Denied) as caught:
        GitRef(**{kind: name})
    assert caught.value.reason == "InvalidRef"
    assert caught.value.message.isprintable()
    standing.git_says(caught.value)


def test_a_ref_of_a_server_that_looks_like_an_option_is_not_even_shown(mirrors, repo, tmp_path):
    """G07: git itself lets such a name exist."""
    packed = f"{repo.git('rev-parse', 'main')} refs/heads/--upload-pack=touch${{IFS}}marker\n"
    (repo.path / "packed-refs").write_text(packed)
    error = refused(NotFound, mirrors, repo.url, GitRef(branch="upload-pack"))
    assert "--upload-pack" not in error.message
    assert not list(tmp_path.rglob("marker"))


@pytest.mark.parametrize("given", [{}, {"branch": "a", "tag": "b"}], ids=["none", "two"])
def test_a_ref_names_exactly_one_thing(given):
    with pytest.raises(Denied, match=f"exactly one of branch, tag, name or commit; {len(given)} are given"):
        GitRef(**given)


def test_commits_with_no_or_three_parents_strange_dates_and_authors_are_read(mirrors, repo):
    """G25."""
    parents = [repo.commit({"a": bytes([n])}, branch=f"p{n}", parents=[]) for n in range(3)]
    for date, year in (("0 +0000", 1970), ("4300000000 +0000", 2106)):
        dates = {"GIT_COMMITTER_DATE": f"@{date}", "GIT_AUTHOR_NAME": "<b>\u202eAda\x1b[31m</b>"}
        tip = repo.commit({"a": b"m"}, parents=parents, message="<script>\x1b[2J\u202e", env=dates)
        head = asyncio.run(mirrors.refresh(repo.url, MAIN))
        assert (head.commit, head.committed_at.year) == (tip, year)
        assert head.subject == "<script>\\x1b[2J\\u202e"
        assert head.author.isprintable()
        standing.git_finds(head)


@pytest.mark.parametrize("codec", ["no-such-codec", "undefined", "hex", "idna"])
@pytest.mark.apart("it works: nothing is wrong for a controller")
def test_a_commit_in_an_encoding_that_cannot_be_read_is_still_followed(mirrors, repo, codec):
    """G25: a header may not stop the controller."""
    tree = repo.git("rev-parse", "main^{tree}")
    who = "Ada <ada@example.com> 1700000000 +0000"
    raw = f"tree {tree}\nauthor {who}\ncommitter {who}\nencoding {codec}\n\nsubject\n"
    repo.ref("refs/heads/main", repo.raw("commit", raw.encode()))
    head = resolve(mirrors, repo.url)
    assert head.subject in ("subject", "(unreadable)")
    assert asyncio.run(mirrors.read(repo.url, head.commit, "train.py")) == b"print()\n"


def test_a_sha256_repository_is_refused_clearly(mirrors, tmp_path):
    """G27."""
    other = Scratch.create(tmp_path / "repos" / "new.git", object_format="sha256")
    other.ref("refs/heads/main", other.git("commit-tree", other.git("hash-object", "-w", "-t", "tree", "--stdin")))
    error = refused(Denied, mirrors, other.url)
    assert error.reason == "ObjectFormatNotSupported"
    assert "SHA-256" in error.message


# -- how often a server is asked -------------------------------------------------------------------------------


def test_fifty_specs_of_one_repository_cause_one_poll_and_one_fetch(mirrors, repo):
    async def all_at_once():
        refs = [MAIN, GitRef(branch="dev")]
        return await asyncio.gather(
            *(mirrors.resolve(repo.url, refs[n % 2], max_age_s=30) for n in range(50)), return_exceptions=True
        )

    repo.commit({"a": b""}, branch="dev")
    heads = asyncio.run(all_at_once())
    assert len({head.commit for head in heads}) == 2
    assert (mirrors.polls, mirrors.fetches) == (1, 1)


def test_a_poll_that_found_nothing_new_fetches_nothing(mirrors, repo, clock):
    resolve(mirrors, repo.url)
    resolve(mirrors, repo.url)
    assert (mirrors.polls, mirrors.fetches) == (1, 1)
    clock.now += 61
    resolve(mirrors, repo.url)
    assert (mirrors.polls, mirrors.fetches) == (2, 1)


def test_a_refresh_asks_at_once(mirrors, repo):
    resolve(mirrors, repo.url)
    tip = repo.commit({"a": b"2"})
    assert resolve(mirrors, repo.url).commit != tip
    assert asyncio.run(mirrors.refresh(repo.url, MAIN)).commit == tip


def test_those_who_wait_share_a_failure(mirrors, tmp_path):
    async def all_at_once():
        url = f"file://{tmp_path}/repos/absent"
        return await asyncio.gather(
            *(mirrors.resolve(url, MAIN, max_age_s=30) for _ in range(20)), return_exceptions=True
        )

    results = asyncio.run(all_at_once())
    assert {type(item) for item in results} == {NotFound}
    assert mirrors.polls == 1


def test_only_named_refs_are_fetched(mirrors, repo, tmp_path):
    """Decision 28."""
    other = repo.commit({"secret": b""}, branch="private", parents=[])
    resolve(mirrors, repo.url)
    assert not asyncio.run(mirrors.contains(repo.url, other))


def test_too_many_branches_to_search_for_a_commit_are_refused_but_a_named_one_works(tmp_path, repo):
    """G17."""
    policy = GitPolicy(file_roots=(tmp_path / "repos",), max_refs=20)
    mirrors = Mirrors(tmp_path / "few", policy)
    first = repo.git("rev-parse", "main")
    tip = repo.commit({"a": b""})
    repo.git("update-ref", "--stdin", stdin="".join(f"create refs/heads/b{n} {tip}\n" for n in range(50)).encode())
    error = refused(Denied, mirrors, repo.url, GitRef(commit=first))
    assert error.reason == "RepoTooLarge"
    assert "51 branches and tags" in error.message
    assert resolve(mirrors, repo.url).commit == tip


def test_history_between_two_commits_is_listed_and_bounded(mirrors, repo):
    old = resolve(mirrors, repo.url).commit
    for number in range(5):
        repo.commit({"train.py": b"%d" % number, "README.md": b"x"}, message=f"Change {number}")
    new = asyncio.run(mirrors.refresh(repo.url, MAIN)).commit
    heads = asyncio.run(mirrors.log(repo.url, old, new, limit=3))
    assert [head.subject for head in heads] == ["Change 4", "Change 3", "Change 2"]
    readme = asyncio.run(mirrors.log(repo.url, old, new, paths=["README.md"]))
    assert [head.subject for head in readme] == ["Change 0"]
    assert asyncio.run(mirrors.is_ancestor(repo.url, old, new))
    assert not asyncio.run(mirrors.is_ancestor(repo.url, new, old))
    assert asyncio.run(mirrors.reachable(repo.url, old, MAIN))


def test_every_error_is_one_of_the_four():
    assert issubclass(Denied, ClientError)
    assert issubclass(NotFound, ClientError)
