"""Git and the registry as an object of ours may use them: with the credentials of its namespace's Secrets.

Every reconcile asks anew, so a Secret that was changed is used from the next poll on; where a server refuses the
credentials of a poll, the Secret is read again at once.  Nothing here writes a credential anywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from controller.api.kinds import ModelRepository, ModelSpec
from controller.api.meta import LABEL_MODEL, Key, Manifest
from controller.api.modelrepository import ModelRepositorySpec
from controller.clients import credentials
from controller.clients.credentials import WebLogin
from controller.clients.errors import ClientError, Denied, NotFound, Unavailable
from controller.clients.git_types import Credential, GitRef, Head, TreeEntry
from controller.plan.pods import DATA_VOLUME, GIT_VOLUME, LOG_VOLUME, REGISTRY_SECRET, REGISTRY_VOLUME
from controller.plan.verdict import Refused, Unknown
from controller.reconcile.ledger import LedgerBook
from controller.reconcile.ports import RegistryPort
from controller.reconcile.secrets import SecretBook, User
from controller.reconcile.world import GitPort, World

Login = Callable[[], WebLogin]
SOURCE: Final = "source.secretRef"
LOG: Final = "serving.predictionLog.storage.secretRef"
NOT_HERE: Final = (
    "local mode has no Secrets: leave secretRef out, and follow a local clone (file:///…) or a public repository"
)


class LoginGit(Protocol):
    """The Git client, as far as it takes credentials."""

    async def resolve(
        self, url: str, ref: GitRef, *, credential: Credential | None, max_age_s: float, timeout_s: float | None
    ) -> Head:
        """Resolve a ref."""
        ...

    async def refresh(
        self, url: str, ref: GitRef, *, credential: Credential | None, timeout_s: float | None
    ) -> Head:
        """Resolve a ref by a new poll."""
        ...

    async def files(self, url: str, commit: str, *, credential: Credential | None) -> tuple[TreeEntry, ...]:
        """List the files of a commit."""
        ...

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, credential: Credential | None, limit: int | None
    ) -> dict[str, bytes]:
        """Read files of a commit."""
        ...

    async def retire(self, url: str, credential: Credential) -> None:
        """Give up the copy of a repository that was read with a credential."""
        ...


class BoundGit:
    """The Git port with one credential, for one reconcile."""

    def __init__(
        self,
        git: LoginGit,
        credential: Credential,
        again: Callable[[], Awaitable[Credential]],
        worked: Callable[[Credential], Awaitable[None]],
    ) -> None:
        """Bind a client: `again` reads the Secret anew, `worked` is told of each login that the server took."""
        self._git, self._credential, self._again, self._worked = git, credential, again, worked

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, timeout_s: float | None = None) -> Head:
        """Return the commit that a ref means, as of a poll at most `max_age_s` ago."""
        return await self._polling(
            lambda c: self._git.resolve(url, ref, credential=c, max_age_s=max_age_s, timeout_s=timeout_s)
        )

    async def refresh(self, url: str, ref: GitRef, *, timeout_s: float | None = None) -> Head:
        """Resolve by a poll that begins after this call."""
        return await self._polling(lambda c: self._git.refresh(url, ref, credential=c, timeout_s=timeout_s))

    async def files(self, url: str, commit: str) -> tuple[TreeEntry, ...]:
        """List all files of a commit, sorted by path."""
        return await self._git.files(url, commit, credential=self._credential)

    async def read_many(
        self, url: str, commit: str, paths: Sequence[str], *, limit: int | None = None
    ) -> Mapping[str, bytes]:
        """Read several regular files of a commit."""
        return await self._git.read_many(url, commit, paths, credential=self._credential, limit=limit)

    async def _polling(self, poll: Callable[[Credential], Awaitable[Head]]) -> Head:
        """Poll; if the credentials are refused and the Secret has others by now, poll with those."""
        try:
            head = await poll(self._credential)
        except Unavailable as error:
            if error.reason != "AuthenticationFailed":
                raise
            newer = await self._again()
            if newer.digest() == self._credential.digest():
                raise
            self._credential = newer
            head = await poll(newer)
        await self._worked(self._credential)
        return head


@dataclass(slots=True)
class _Slot:
    """The login of one namespace's registry; requests in flight see a change with their next one."""

    login: WebLogin | ClientError = field(default_factory=WebLogin)

    def __call__(self) -> WebLogin:
        error = self.login
        if isinstance(error, Unavailable):
            raise Unavailable(error.message, reason=error.reason)
        if isinstance(error, ClientError):
            # Never NotFound: who asks for a ledger would take it for the ledger's absence.
            raise Denied(error.message, reason=error.reason)
        return error


@dataclass(slots=True)
class Access:
    """What the operator needs to use credentials: the Secrets, and Git and registries that take them."""

    secrets: SecretBook
    git: LoginGit
    open_registry: Callable[[Login], tuple[RegistryPort, LedgerBook]]
    _opened: dict[Key, tuple[_Slot, RegistryPort, LedgerBook]] = field(default_factory=dict)
    _last: dict[tuple[str, str, str], Credential] = field(default_factory=dict)
    """(namespace, Secret, URL) → the login that worked last."""

    async def bound_git(self, name: str, user: User, url: str) -> BoundGit:
        """Return Git with the login of a Secret; raises as `SecretBook.get` and `credentials.git`."""

        async def again() -> Credential:
            return credentials.git(await self.secrets.get(name, user, fresh=True), url)

        async def worked(credential: Credential) -> None:
            before = self._last.get(place)
            self._last[place] = credential
            others = {c.digest() for (_, _, u), c in self._last.items() if u == url}
            if before is not None and before.digest() not in others:
                # A copy belongs to its login: short-lived tokens would fill the disk with copies.
                await self.git.retire(url, before)

        place = (user.key.namespace, name, url)
        return BoundGit(self.git, credentials.git(await self.secrets.get(name, user), url), again, worked)

    async def registry(self, named: str | None, user: User) -> tuple[RegistryPort, LedgerBook] | None:
        """Return the registry with the login of a Secret: the named one, or the well-known one of the namespace.

        A Secret that cannot be used makes every request raise why, so that nothing is taken for absent; what was
        read of the ledger before still counts.  None: the namespace has no Secret.
        """
        key = Key("Secret", user.key.namespace, named or REGISTRY_SECRET)
        login: WebLogin | ClientError
        try:
            secret = await (self.secrets.get(named, user) if named else self.secrets.find(REGISTRY_SECRET, user))
            if secret is None:
                return None
            login = credentials.registry(secret)
        except ClientError as error:
            login = error
        if key not in self._opened:
            slot = _Slot()
            self._opened[key] = (slot, *self.open_registry(slot))
        slot, registry, ledger = self._opened[key]
        slot.login = login
        return registry, ledger

    def forget(self) -> None:
        """Forget what was read: another operator may have written since."""
        self.secrets.forget()
        for _, _, ledger in self._opened.values():
            ledger.forget()


async def scoped(world: World, key: Key) -> World:
    """Return the world as one object may use it: the registry with the login of its ModelSpec's namespace."""
    if world.access is None:
        return world
    manifest = await world.kube.get(key) or {}
    if key.kind == "ModelRevision":
        key = Key("ModelSpec", key.namespace, str(_at(manifest, "spec", "model") or key.name))
        manifest = await world.kube.get(key) or {}
    named = _at(manifest, "spec", "registry", "secretRef", "name")
    found = await world.access.registry(str(named) if named else None, User(key, "registry.secretRef"))
    if found is None:
        return world
    registry, ledger = found
    return replace(world, registry=registry, ledger=ledger)


def _at(value: Any, *path: str) -> Any:
    """Read a field of what may be wrong in any way."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


async def git_for(world: World, owner: ModelSpec | ModelRepository) -> GitPort:
    """Return Git with the login that an object names; as it is where it names none.

    Raises:
        NotFound, Denied, Unavailable: as `SecretBook.get` and `credentials.git` say; Denied(SecretsNotHere).
    """
    if world.access is None:
        if named := _naming(owner):
            raise Denied(f"{named[0]} names a Secret, and {NOT_HERE}", reason="SecretsNotHere")
        return world.git
    where, field_ = (owner.spec.source, SOURCE) if isinstance(owner, ModelSpec) else (owner.spec, "secretRef")
    if where.secret_ref is None:
        return world.git
    user = User(Key(owner.kind, owner.metadata.namespace, owner.metadata.name), field_)
    return await world.access.bound_git(where.secret_ref.name, user, where.url)


def _naming(owner: ModelSpec | ModelRepository) -> list[str]:
    """List the fields of an object that name a Secret."""
    spec = owner.spec
    if isinstance(spec, ModelRepositorySpec):
        return ["secretRef"] if spec.secret_ref else []
    found = [SOURCE] if spec.source.secret_ref else []
    found += ["registry.secretRef"] if spec.registry_secret else []
    return found + [f"data[{d.name}].secretRef" for d in spec.data if d.secret_ref]


async def log_secret(world: World, model: ModelSpec) -> Refused | Unknown | None:
    """Say what is wrong with the Secret of the prediction log's store; None: nothing, or none is named."""
    asked = model.spec.serving.prediction_log
    storage = asked.storage if asked is not None and asked.on else None
    if world.access is None or storage is None or storage.secret_ref is None:
        return None
    user = User(Key("ModelSpec", model.metadata.namespace, model.metadata.name), LOG)
    try:
        secret = await world.access.secrets.get(storage.secret_ref.name, user)
        credentials.store(secret, storage.uri.partition(":")[0])
    except (Denied, NotFound) as error:
        return Refused(error.reason, error.message)
    except ClientError as error:
        return Unknown(error.reason, error.message)
    return None


async def check_mounts(world: World, manifest: Manifest) -> None:
    """Check every Secret that the pods of a Job or Deployment would mount, before it is written.

    The last wall: the kubelet mounts what a pod names, whoever wrote the name.  An object that has the same mounts
    already is left alone, so that servers can still be scaled or stopped.

    Raises:
        Denied, Unavailable: as `SecretBook.get` and the reader of the use say.
    """
    mounted = _mounted(manifest)
    meta = manifest["metadata"]
    if world.access is None or not mounted:
        return
    before = await world.kube.get(Key(manifest["kind"], meta["namespace"], meta["name"]))
    if before is not None and _mounted(before) == mounted:
        return
    model = Key("ModelSpec", meta["namespace"], meta["labels"][LABEL_MODEL])
    for volume, name in sorted(mounted.items()):
        user = User(model, _FIELDS.get(volume, "data[].secretRef"))
        try:
            secret = await world.access.secrets.get(name, user)
        except NotFound as error:
            # Time alone does not bring it: a person must act, and reads so.
            raise Denied(error.message, reason=error.reason) from None
        if volume == LOG_VOLUME:
            continue  # Its keys are looked at elsewhere: what is wrong with them keeps nobody from serving.
        if volume == REGISTRY_VOLUME:
            credentials.registry(secret)
        elif volume.startswith(DATA_VOLUME):
            credentials.data(secret)


_FIELDS: Final = {GIT_VOLUME: SOURCE, REGISTRY_VOLUME: "registry.secretRef", LOG_VOLUME: LOG}


def _mounted(manifest: Manifest) -> dict[str, str]:
    """Return volume → Secret of what must be there; what is optional has a name that nobody chose."""
    volumes = manifest["spec"]["template"]["spec"].get("volumes") or ()
    secrets = ((v["name"], v.get("secret") or {}) for v in volumes)
    return {name: s["secretName"] for name, s in secrets if s and (not s.get("optional") or name == LOG_VOLUME)}
