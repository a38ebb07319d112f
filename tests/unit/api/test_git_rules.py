"""Which URLs, refs, commits, hosts and paths a person may write, and what a refusal says."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api import git_rules
from controller.clients.errors import Denied
from tests.corpus import standing

OPTION, SPACE, EXPRESSION, PART = "option", "space, a control", "reads as an expression", "has a part"


@pytest.mark.parametrize("name", ["main", "release/1.2", "feature/größe", "v1.0.0", "a-b_c", "x@y", "#12"])
def test_ordinary_names_are_accepted_as_branch_and_tag(name):
    assert git_rules.branch_problem(name) is None
    assert git_rules.tag_problem(name) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("--upload-pack=x", OPTION, id="G07 --upload-pack=x"),
        pytest.param("-", OPTION, id="G07 a single dash"),
        pytest.param("a/-b", PART, id="G07 a dash after a slash"),
        pytest.param("@{-1}", EXPRESSION, id="G07 @{-1}"),
        pytest.param("HEAD@{1}", EXPRESSION, id="G07 HEAD@{1}"),
        pytest.param("@", EXPRESSION, id="G07 @"),
        pytest.param("a..b", EXPRESSION, id="G07 a..b"),
        pytest.param("a^{commit}", SPACE, id="G07 a^{commit}"),
        pytest.param("a b", SPACE, id="G07 with a space"),
        pytest.param("a\nb", SPACE, id="G07 with a newline"),
        pytest.param("a\0b", SPACE, id="G07 with NUL"),
        pytest.param("a\u202eb", SPACE, id="G07 with a right-to-left override"),
        pytest.param("main~1", SPACE, id="G07 with a tilde"),
        pytest.param("refs:x", SPACE, id="G07 with a colon"),
        pytest.param("x*", SPACE, id="G07 with a star"),
        pytest.param("a\\b", SPACE, id="G07 with a backslash"),
        pytest.param("x" * 300, "longer than 250", id="G07 300 characters"),
        pytest.param("", "empty", id="G07 empty"),
        pytest.param("a//b", PART, id="G07 double slash"),
        pytest.param("a/", PART, id="G07 slash at the end"),
        pytest.param("a.lock", PART, id="G07 ends with .lock"),
        pytest.param(".a", PART, id="G07 begins with a dot"),
        pytest.param("HEAD", "not a branch", id="G07 HEAD as a branch"),
        pytest.param("refs/heads/main", "full ref", id="G07 full ref where a name is wanted"),
    ],
)
def test_a_ref_that_git_could_read_otherwise_is_refused(name, says):
    problem = git_rules.branch_problem(name)
    assert problem is not None
    assert says in problem
    assert problem.isprintable()
    assert len(problem) < 400
    standing.spec_is(source={"url": standing.BIKES, "ref": {"branch": name}})


@given(st.text(min_size=1, max_size=30))
def test_whatever_is_accepted_git_accepts_too(name):
    if git_rules.branch_problem(name) is None:
        assert not name.startswith("-")
        done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
        assert done.returncode == 0


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param("0123456", "abbreviated to 7 digits", id="G02 short id"),
        pytest.param("A" * 40, "lower case", id="G02 upper case"),
        pytest.param("a" * 39, "abbreviated to 39", id="G02 39 digits"),
        pytest.param("a" * 41, "this has 41", id="G02 41 digits"),
        pytest.param("g" * 40, "hex", id="G02 not hex"),
        pytest.param("a" * 40 + "\n", "hex", id="G02 newline after it"),
        pytest.param("main", "hex", id="G02 a branch name"),
        pytest.param("", "this has 0", id="G02 empty"),
    ],
)
def test_only_full_commit_ids_are_accepted(value, says):
    problem = git_rules.commit_problem(value)
    assert problem is not None
    assert says in problem
    standing.spec_is(source={"url": standing.BIKES, "ref": {"commit": value}})


@pytest.mark.parametrize("value", ["a" * 40, "0" * 64])
def test_full_commit_ids_of_both_lengths_are_accepted(value):
    assert git_rules.commit_problem(value) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/team/churn.git",
        "https://git.example.com:8443/team/churn",
        "https://dev.azure.example/org/my%20project/_git/repo",
        "ssh://git@git.example.com:2222/team/churn.git",
        "git@git.example.com:team/churn.git",
        "https://[2606:4700::1]/x.git",
    ],
)
def test_ordinary_urls_are_accepted(url):
    assert git_rules.url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ext::sh -c touch% /tmp/x", id="G08 ext with spaces"),
        pytest.param("ext::sh", id="G08 ext helper"),
        pytest.param("fd::17", id="G08 fd helper"),
        pytest.param("https::https://example.com/x", id="G08 helper named like a scheme"),
        pytest.param("file:///etc", id="G08 file"),
        pytest.param("/etc", id="G08 absolute path"),
        pytest.param("../x", id="G08 relative path"),
        pytest.param("-oProxyCommand=touch", id="G08 option"),
        pytest.param("ssh://-oProxyCommand=x/y", id="G08 option as host"),
        pytest.param("ssh://git@-oProxyCommand=x/y", id="G08 option as host after a user"),
        pytest.param("-oProxyCommand=x:y", id="G08 option in scp form"),
        pytest.param("git@-oProxyCommand=x:y", id="G08 option as host in scp form"),
        pytest.param("git://example.com/x", id="G08 git"),
        pytest.param("http://example.com/x", id="G08 http"),
        pytest.param("ftp://example.com/x", id="G08 ftp"),
        pytest.param("HTTP://example.com/x", id="G08 http in upper case"),
    ],
)
def test_other_ways_of_transport_are_refused(url):
    assert git_rules.url_problem(url) is not None
    assert git_rules.protocol_problem(url) is not None
    standing.spec_is(source={"url": url, "ref": {"branch": "main"}})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("https://ada:hunter2@example.com/x", "credentials", id="G09 user and token"),
        pytest.param("https://ghp_abcdefghijklmnop1234@example.com/x", "credentials", id="G09 token as user"),
        pytest.param("ssh://git:hunter2@example.com/x", "password", id="G09 password in an ssh URL"),
        pytest.param("https://example.com/x?token=hunter2", "query", id="G09 token in the query"),
        pytest.param("https://example.com/a\nb", "control", id="newline"),
        pytest.param("https://example.com/a b", "space", id="space"),
        pytest.param("https://example.com/$(id)", "characters", id="shell characters"),
        pytest.param("https://example.com/a;b", "characters", id="semicolon"),
        pytest.param("https://example.com/a%0ab", "characters", id="encoded newline"),
        pytest.param("https://example.com/../x", "..", id="dots"),
        pytest.param("https://example.com/", "names no repository", id="no path"),
        pytest.param("https:///x", "host", id="no host"),
        pytest.param("https://exa$mple.com/x", "host", id="strange host"),
        pytest.param("https://example.com:99999/x", "cannot be read", id="strange port"),
        pytest.param("git@example.com:-x/y", "begins with '-'", id="option as path"),
        pytest.param("https://example.com/" + "a" * 3000, "longer", id="too long"),
    ],
)
def test_a_malformed_url_is_refused_without_its_secret(url, says):
    problem = git_rules.url_problem(url)
    assert problem is not None
    assert says in problem
    assert "hunter2" not in problem
    assert "ghp_" not in problem
    standing.spec_is(source={"url": url, "ref": {"branch": "main"}})


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.1", id="G10 loopback"),
        pytest.param("169.254.169.254", id="G10 metadata service"),
        pytest.param("::ffff:169.254.169.254", id="G10 mapped metadata service"),
        pytest.param("::1", id="G10 loopback v6"),
        pytest.param("64:ff9b::a9fe:a9fe", id="G10 NAT64 metadata service"),
        pytest.param("2002:a9fe:a9fe::1", id="G10 6to4 metadata service"),
        pytest.param("fe80::1", id="G10 link-local v6"),
        pytest.param("10.0.0.1", id="G10 private"),
        pytest.param("2130706433", id="G10 decimal"),
        pytest.param("0x7f000001", id="G10 hexadecimal"),
        pytest.param("0177.0.0.1", id="G10 octal"),
        pytest.param("127.1", id="G10 short"),
        pytest.param("0.0.0.0", id="G10 unspecified"),
        pytest.param("localhost", id="G10 localhost"),
        pytest.param("a.localhost.", id="G10 below localhost"),
    ],
)
def test_inner_addresses_are_refused_unless_listed(host):
    problem = git_rules.host_problem(host)
    assert problem is not None
    assert "address" in problem or "this machine" in problem
    assert git_rules.host_problem(host, [host.rstrip(".")]) is None
    standing.git_says(Denied(problem, reason="HostNotAllowed"))


def test_a_list_of_hosts_admits_only_those():
    allowed = ["git.example.com", "*.corp.example"]
    assert git_rules.host_problem("GIT.example.com", allowed) is None
    assert git_rules.host_problem("a.corp.example", allowed) is None
    refusal = git_rules.host_problem("corp.example.evil.com", allowed)
    assert refusal == ("the host 'corp.example.evil.com' is not in allowedHosts (*.corp.example, git.example.com)")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../x", id="G18 parent"),
        pytest.param("a/../../x", id="G18 parent in the middle"),
        pytest.param("/etc/passwd", id="G18 absolute"),
        pytest.param("a//b", id="G18 double slash"),
        pytest.param("a/", id="G18 slash at the end"),
        pytest.param("./a", id="G18 dot"),
        pytest.param("", id="G18 empty"),
        pytest.param("a\0b", id="G18 NUL"),
        pytest.param("a\u200bb", id="G20 zero-width"),
        pytest.param(".git/config", id="G21 .git"),
        pytest.param("x/.GIT/hooks/post-checkout", id="G21 .GIT"),
        pytest.param(".git./config", id="G21 .git with a dot"),
        pytest.param(".git /config", id="G21 .git with a space"),
        pytest.param("GIT~1/config", id="G21 short name of .git"),
        pytest.param("a" * 256, id="a name too long for a disk"),
        pytest.param("a/" * 3000 + "b", id="a path too long for a disk"),
    ],
)
def test_a_path_that_leaves_the_repository_is_refused(path):
    problem = git_rules.path_problem(path)
    assert problem is not None
    assert problem.isprintable()
    standing.spec_is(data=[{"name": "train", "path": path}])


@pytest.mark.parametrize("path", ["a.yaml", "a\\b", "a.", "größe/ä.csv", ".github/x", ".gitignore", "a b", "..a"])
def test_odd_but_honest_paths_are_accepted(path):
    assert git_rules.path_problem(path) is None


def test_paths_that_one_disk_would_merge_are_reported():
    twins = git_rules.path_twins(["a.yaml", "A.yaml", "\u00e9", "e\u0301", "b"])
    assert twins == (("A.yaml", "a.yaml"), ("e\u0301", "\u00e9"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("https://g.example.com/a.git", "https://g.example.com:443/b.git", True, id="https"),
        pytest.param("ssh://git@g.example.com/a.git", "git@g.example.com:b.git", True, id="ssh in both forms"),
        pytest.param("ssh://g.example.com:22/a.git", "git@g.example.com:b.git", True, id="ssh with its port"),
        pytest.param("https://g.example.com/a.git", "https://g.example.com:8443/a.git", False, id="another port"),
        pytest.param("https://g.example.com/a.git", "http://g.example.com/a.git", False, id="in clear"),
        pytest.param("https://g.example.com/a.git", "https://h.example.com/a.git", False, id="another host"),
        pytest.param("https://g.example.com:x/a.git", "https://g.example.com/a.git", False, id="no URL at all"),
    ],
)
def test_which_repositories_are_on_one_server(one, other, same):
    assert (git_rules.server_of(one) == git_rules.server_of(other)) is same
