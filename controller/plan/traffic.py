"""Brings servers up and splits the requests among them, by one of two means.

A route splits by exact weights: local mode's router, or the Gateway API where `serving.route` is given.
Otherwise whole servers split them: the Service of the model selects all of its servers, so that k of a challenger
beside n of the champion get k / (n + k).  Requests only ever reach servers that are ready, and never fewer of
them than the champion has: it keeps all of its servers until it is replaced, and then one goes for each new one.
"""

from __future__ import annotations

from controller.api.meta import Key
from controller.api.pods import Autoscaling, challengers, reachable
from controller.plan import predlog, recall
from controller.plan import servers as objects
from controller.plan.actions import ApplyManifest, DeleteManifest, SetAlias, SetWeights
from controller.plan.observed import DeploymentSeen, SourceSeen
from controller.plan.predlog import Logged
from controller.plan.revision import registry_name
from controller.plan.round import Round, Served
from controller.plan.verdict import Cause, Refused, Unknown


def ensure_servers(r: Round, served: Served, why: Cause, replicas: int | None = None) -> None:
    """Ask for the Deployment and the Service of a revision where they are missing or differ from what is wanted.

    Args:
        r: the round.
        served: the revision.
        why: the cause, if the Deployment is missing.
        replicas: how many servers; None: as many as the champion has.
    """
    name, found = served.deployment, r.seen.deployments.get(served.deployment)
    wanted = champion_size(r, found) if replicas is None else replicas
    scaled = found is not None and _is_autoscaled(r, found)
    if found is not None and scaled:
        wanted = found.replicas
    changed = _change(r, served, found, wanted)
    if found is None or changed is not None:
        built = objects.deployment(
            r.model,
            r.seen.manifest,
            name=name,
            revision=served.revision,
            run=served.run,
            digest=served.digest,
            version=served.version,
            commit=served.commit,
            tracking_uri=r.seen.tracking_uri,
            replicas=wanted,
            runtime=served.runtime,
            settings=r.seen.pods,
            log=log_of(r, found),
            compare=_compared(r, served, found),
            smoke=_tested(r, served, found),
        )
        if found is not None and scaled:
            # The number is not ours: it goes back as it is, or not at all where it has changed meanwhile.
            built["metadata"]["resourceVersion"] = found.version
        r.actions.append(ApplyManifest(manifest=built, why=changed or why))
    if name not in r.seen.services:
        why = Cause("ServiceMissing", f"the servers of {served.revision} need one to be reached by")
        service = objects.service(r.model, r.seen.manifest, name=name, revision=served.revision)
        r.actions.append(ApplyManifest(manifest=service, why=why))


def _is_autoscaled(r: Round, found: DeploymentSeen) -> bool:
    """Tell whether an autoscaler decides how many servers there are; one at zero or held decides nothing."""
    rule = r.seen.autoscaler
    return rule is not None and rule[0] == found.name and rule[1] < rule[2] and found.replicas > 0


def _change(r: Round, served: Served, found: DeploymentSeen | None, wanted: int) -> Cause | None:
    """Say in what the Deployment differs from what is wanted; None when in nothing."""
    if found is None:
        return None
    if found.replicas != wanted:
        asked = "minReplicas asks for" if wanted == r.model.spec.serving.min_replicas else "its part takes"
        return Cause("ReplicasChanged", f"{found.name} has {found.replicas} servers, {asked} {wanted}")
    if found.compare != _compared(r, served, found):
        whom = r.champion.revision if r.champion else "the champion"
        return Cause("ComparisonChanged", f"{found.name} is to compare its answers with those of {whom}")
    hardened = r.seen.pods.hardened
    if found.serve != objects.serve_digest(r.model, log_of(r, found), hardened=hardened):
        what = "resources or nodes" if r.model.spec.serving.prediction_log is None else "resources, nodes or log"
        return Cause("ServersChanged", f"{what} of {found.name} changed: one by one is replaced")
    if not hardened:
        return None
    image = served.runtime or r.seen.pods.server_image
    if found.image and found.image != image:
        return Cause("ImageRestored", f"{found.name} was given image {found.image}; {image} is what was judged")
    return None


def _compared(r: Round, served: Served, found: DeploymentSeen | None) -> str:
    """Say with whose answers servers compare theirs; only a challenger's are ever told anew: pods are replaced."""
    rule, champion = r.model.spec.serving.canary.comparison, r.champion
    as_told = found.compare if found is not None else ""
    if rule is None or champion is None or served.revision != r.rolling or recall.returns(r, served):
        return as_told
    if not r.seen.local:
        return objects.comparison(objects.address_of(champion.deployment, r.model.metadata.namespace), rule)
    # The router has a path for every Service beside that of the model.
    beside = r.seen.url.rpartition("/")[0]
    return objects.comparison(f"{beside}/{champion.deployment}", rule) if beside else as_told


def _tested(r: Round, served: Served, found: DeploymentSeen | None) -> str:
    """Say which request servers must answer before any other: as they were told, or as the commit of now says."""
    rule, source = r.model.spec.serving.smoke_test, r.seen.source
    if found is not None or rule is None or served.revision != r.rolling or recall.returns(r, served):
        return found.smoke if found is not None else ""
    return objects.smoke_test(source.smoke, rule) if isinstance(source, SourceSeen) and source.smoke else ""


def log_of(r: Round, found: DeploymentSeen | None) -> Logged | None:
    """Say how the servers of a Deployment log; not at all where they would begin with a Secret that is refused."""
    log = predlog.wanted(r.model, r.seen.pods)
    if not isinstance(log, Logged):
        return None
    on = objects.serve_digest(r.model, log, hardened=r.seen.pods.hardened)
    if isinstance(r.seen.log_secret, Refused) and (found is None or found.serve != on):
        return None
    return log


def champion_size(r: Round, found: DeploymentSeen | None) -> int:
    """Say how many servers the champion has: minReplicas, or what the autoscaler made of it.

    A new champion begins with as many as the autoscaler had made of the one before.
    """
    serving = r.model.spec.serving
    if serving.max_replicas is None or r.seen.local or found is None:
        return serving.min_replicas
    before = max((d.replicas for d in leaving(r)), default=0)
    return min(max(found.replicas, before, serving.min_replicas), serving.max_replicas)


def leaving(r: Round) -> list[DeploymentSeen]:
    """List the servers of former champions that answer until the champion of now has its place."""
    champion = r.champion.deployment if r.champion else ""
    coming = r.served(r.rolling) if r.rolling else None
    stay = {champion, coming.deployment if coming is not None else ""}
    others = [d for name, d in sorted(r.seen.deployments.items()) if name not in stay]
    return [d for d in others if d.ready and _was_champion(r, d) and (r.seen.route or {}).get(d.name, 0)]


def _was_champion(r: Round, found: DeploymentSeen) -> bool:
    """Tell whether these are a former champion's, and not a challenger's that was taken out of the traffic."""
    previous = r.status.previous
    if previous is not None and previous.revision == found.revision:
        return previous.verdict == "Replaced"
    return r.ledger is None or found.revision in r.ledger.promoted


def has_its_place(r: Round, served: Served) -> bool:
    """Tell whether the champion has all the servers that it is to have, ready."""
    found = r.seen.deployments.get(served.deployment)
    return found is not None and found.ready >= champion_size(r, found)


def champions(r: Round) -> int:
    """Count the servers that the champion is to have now."""
    return champion_size(r, r.seen.deployments.get(r.champion.deployment) if r.champion else None)


def handed_over(r: Round, served: Served) -> str:
    """Say how far a champion is in the place of the one before; empty when it has all of its servers."""
    found, before = r.seen.deployments.get(served.deployment), leaving(r)
    if found is None or not before or has_its_place(r, served):
        return ""
    return f" ({found.ready} of {champion_size(r, found)} servers ready, {before[0].revision} still answers too)"


def size_of(r: Round, target: Served) -> int:
    """Say with how many servers a revision is brought up.

    As many as the champion has; where whole servers split the requests, its share decides, unless it comes back.
    """
    current = r.status.challenger
    if not r.seen.by_servers or r.champion is None or recall.returns(r, target):
        return champions(r)
    in_canary = current is not None and current.revision == target.revision and current.stage == "Canary"
    weight = current.weight if current is not None and in_canary else r.model.spec.serving.canary.step_weights[0]
    return challengers(champions(r), weight)


def servers_for(r: Round, weight: int) -> int:
    """Say how many ready servers a step needs where servers split the requests; 0 where a route does."""
    return challengers(champions(r), weight) if r.seen.by_servers and weight else 0


def servers_to_take_over(r: Round) -> int:
    """Say how many ready servers a challenger needs before a route sends it everything; 0 where servers split.

    There the former champion's servers go one by one, as the new ones come.
    """
    return 0 if r.seen.by_servers or r.seen.local else champions(r)


def settle(r: Round, challenger: Served | None, weight: int, why: Cause) -> None:
    """Ask for the champion's share and the challenger's, only to servers that are ready.

    Where servers split the requests, a share is a number of servers; that of a challenger which is not wanted any
    more ends in `clean_up`.
    """
    champion = r.champion
    if r.seen.by_servers:
        if champion is not None and challenger is not None and weight:
            ensure_servers(r, challenger, why, challengers(champions(r), weight))
        return
    if champion is None or not is_ready(r, champion):
        return
    if leaving(r) and not has_its_place(r, champion):
        return
    wanted = {champion.deployment: 100 - weight}
    if challenger is not None and weight:
        wanted[challenger.deployment] = weight
    if r.seen.route != wanted or r.seen.attached != objects.attached_digest(r.model):
        r.actions.append(
            SetWeights(manifest=objects.route(r.model, r.seen.manifest, wanted), weights=wanted, why=why)
        )


def falls_short(r: Round, target: Served, weight: int) -> bool:
    """Tell whether a challenger gets less than its share though it could have it."""
    if r.seen.by_servers or r.champion is None or not is_ready(r, r.champion):
        return False
    return (r.seen.route or {}).get(target.deployment, 0) < weight


def stands_at(r: Round, target: Served, weight: int) -> bool:
    """Tell whether the traffic already is as a step of this weight wants it."""
    if not r.seen.by_servers:
        return (r.seen.route or {}).get(target.deployment, 0) == weight
    found = r.seen.deployments.get(target.deployment)
    return found is not None and found.replicas == challengers(champions(r), weight)


def share_of(r: Round, weight: int) -> int:
    """Say which percent a step of this weight really gives, as whole servers split it; by a route, the weight."""
    return round(reachable(champions(r), weight)) if r.seen.by_servers else weight


def in_words(r: Round, weight: int) -> str:
    """Say which share whole servers really give; empty where a route gives the exact one."""
    if not r.seen.by_servers:
        return ""
    count, beside = challengers(champions(r), weight), champions(r)
    return f" ({count} of {count + beside} servers, {reachable(beside, weight)}%)"


def is_ready(r: Round, served: Served) -> bool:
    """Tell whether at least one server of a revision is ready."""
    found = r.seen.deployments.get(served.deployment)
    return found is not None and found.ready > 0


def clean_up(r: Round) -> None:
    """Delete servers that neither serve nor are about to; only once the traffic has let go of them."""
    if r.champion is None and r.ledger is None:
        return  # Who is champion is not known: any of them may be.
    keep = {r.champion.deployment} if r.champion else set()
    coming = r.served(r.rolling) if r.rolling else None
    if coming is not None:
        keep.add(coming.deployment)
    namespace = r.model.metadata.namespace
    for name in sorted(set(r.seen.deployments) | r.seen.services):
        if name in keep or _still_needed(r, name):
            continue
        why = Cause("NotServing", f"{name.rpartition('-')[0]} gets no requests")
        present = [("Deployment", name in r.seen.deployments), ("Service", name in r.seen.services)]
        for kind in (kind for kind, there in present if there):
            r.actions.append(DeleteManifest(key=Key(kind, namespace, name), uid=None, why=why))
    if r.seen.spare_route:
        why = Cause("NoRoute", "serving.route is not set any more: whole servers split the requests")
        key = Key("HTTPRoute", namespace, r.model.metadata.name)
        r.actions.append(DeleteManifest(key=key, uid=r.seen.spare_route, why=why))


def _still_needed(r: Round, name: str) -> bool:
    """Tell whether servers that are not wanted any more must go on answering for a while."""
    if not r.seen.by_servers:
        return (r.seen.route or {}).get(name, 0) > 0
    found, champion = r.seen.deployments.get(name), r.champion
    if found is None or champion is None or found.ready == 0:
        return False
    if not _was_champion(r, found):
        return not is_ready(r, champion)
    if has_its_place(r, champion):
        return False
    _hand_over(r, found, champion)
    return True


def _hand_over(r: Round, found: DeploymentSeen, champion: Served) -> None:
    """Let one of a former champion's servers go for each that is ready: full nodes have room for no more."""
    present, served = r.seen.deployments.get(champion.deployment), r.served(found.revision)
    if present is None or present.replicas < champions(r) or served is None or served.deployment != found.name:
        return
    left = max(champions(r) - present.ready, 1)
    if left < found.replicas:
        why = Cause("HandedOver", f"{champion.revision} has {present.ready} servers ready")
        ensure_servers(r, served, why, left)


def support(r: Round) -> None:
    """Ask for what stands beside the servers on a cluster: the model's Service, its budget, its autoscaler."""
    champion = r.champion
    if champion is None or r.seen.local:
        return
    by_all = objects.all_servers(r.model.metadata.name)
    selector = by_all if r.seen.by_servers else objects.servers_of(champion.deployment)
    if r.seen.stable is None or (r.seen.stable != selector and is_ready(r, champion)):
        why = Cause("Stable", f"{r.model.metadata.name} is reached by one name, whoever is champion")
        built = objects.stable_service(r.model, r.seen.manifest, selector)
        r.actions.append(ApplyManifest(manifest=built, why=why))
    if not r.seen.has_budget:
        why = Cause("BudgetMissing", "nodes are drained one server at a time")
        r.actions.append(ApplyManifest(manifest=objects.budget(r.model, r.seen.manifest), why=why))
    _autoscale(r, champion)


def _autoscale(r: Round, champion: Served) -> None:
    """Keep the autoscaler on the champion, and still while whole servers split the requests."""
    serving = r.model.spec.serving
    key = Key("HorizontalPodAutoscaler", r.model.metadata.namespace, r.model.metadata.name)
    if serving.max_replicas is None:
        if r.seen.autoscaler is not None:
            why = Cause("NotAutoscaled", "serving.maxReplicas is not set any more")
            r.actions.append(DeleteManifest(key=key, uid=None, why=why))
        return
    still = r.seen.by_servers and bool(r.rolling or leaving(r))
    least, most = (champions(r), champions(r)) if still else (serving.min_replicas, serving.max_replicas)
    target = (serving.autoscaling or Autoscaling()).target
    if r.seen.autoscaler != (champion.deployment, least, most, target):
        reason = "held still while servers split the requests" if still else f"from {least} to {most} servers"
        built = objects.autoscaler(r.model, r.seen.manifest, champion.deployment, least, most)
        r.actions.append(ApplyManifest(manifest=built, why=Cause("Autoscaled", reason)))


def point_alias(r: Round) -> None:
    """Point the registry's alias at the champion: last of all, since it is output only and must hinder nothing."""
    champion = r.champion
    if champion is None:
        return
    aliases, name = r.seen.aliases, f"{r.environment}-champion"
    if not isinstance(aliases, Unknown) and champion.version and aliases.get(name) != champion.version:
        was = aliases.get(name)
        message = f"version {champion.version} serves; the alias named {f'version {was}' if was else 'none'}"
        r.actions.append(
            SetAlias(
                registry_name=registry_name(r.model),
                alias=name,
                version=champion.version,
                why=Cause("ChampionMoved", message),
            )
        )
