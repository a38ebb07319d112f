"""The logins of `fetch`: read from mounted Secrets, each given out for the server that it is meant for only.

Below MAINSPRING_CREDENTIALS: `git/` for the repository, `data/<dataset>/` for a dataset; `registry/` is read by
the registry's client.  The champion may come from a server that its ModelSpec has left since: that one gets none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from controller.api import git_rules
from controller.api.reports import FetchTask
from controller.clients import credentials
from controller.clients.credentials import DataLogin
from controller.clients.git_types import Credential

Origin = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Logins:
    """What is mounted, and for whom."""

    git: Credential | None = None
    git_server: Origin | None = None
    data: Mapping[str, DataLogin] = field(default_factory=dict)
    """By dataset."""
    data_servers: Mapping[str, Origin] = field(default_factory=dict)
    """By dataset that comes from an address; what DVC keeps is where the commit says."""

    def for_git(self, url: str) -> Credential | None:
        """Return the login for a repository, if it is on the server of the task's own."""
        return self.git if git_rules.server_of(url) == self.git_server else None

    def for_data(self, dataset: str, uri: str) -> DataLogin | None:
        """Return the login for a dataset.

        Raises:
            Denied: SecretNotForHost: its Secret is for other hosts.
        """
        login = self.data.get(dataset)
        wanted = self.data_servers.get(dataset)
        if login is None or (wanted is not None and origin_of(uri) != wanted):
            return None
        login.secret.check_host(urlsplit(uri).hostname or "")
        return login


NO_LOGINS = Logins()


def read(task: FetchTask, directory: Path | None) -> Logins:
    """Read what is mounted for a task.

    Raises:
        Denied: SecretKeyMissing, SecretInvalid, SecretNotForHost, SecretNotUsed. NotFound: SecretNotFound: a
        directory is there and empty.
    """
    if directory is None:
        return NO_LOGINS
    url, git, data = task.source.url, None, {}
    if (directory / "git").is_dir():
        git = credentials.git(credentials.of_directory(directory / "git", "source.secretRef"), url)
    for pinned in task.data:
        place = directory / "data" / pinned.name
        if place.is_dir():
            data[pinned.name] = credentials.data(credentials.of_directory(place, f"data[{pinned.name}].secretRef"))
    servers = {d.name: origin_of(d.uri) for d in task.data if d.uri}
    return Logins(git, git_rules.server_of(url), data, servers)


def origin_of(uri: str) -> Origin:
    """Name the server of an address, as browsers compare them: scheme, host and port."""
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname or "", parts.port or git_rules.DEFAULT_PORTS.get(parts.scheme)
