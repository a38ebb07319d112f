"""What people may say about the pods of their model: resources, nodes, queue, image credentials.

None of it is part of a hash of the inputs: where and with how much a model is made does not make another model.
Names and forms are Kubernetes' own.  Security settings are not here: they are fixed (`plan/pods.py`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from controller.api.base import Name, Strict

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=32)]
"""An amount as Kubernetes writes it: `500m`, `"2"`, `4Gi`."""
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]


class Resources(Strict):
    """How much a container asks for, and how much it may take."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """What is set aside for it, by resource: `{cpu: "2", memory: 4Gi}`."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """What it may take at most; a program that takes more memory is killed."""


class Toleration(Strict):
    """A taint of nodes that the pod may run on all the same."""

    key: Annotated[str, StringConstraints(max_length=317)] | None = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] | None = None
    """Equal (default): the value must be equal. Exists: any value."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which effect; absent: all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    """With NoExecute: how long the pod stays on the node, in seconds; absent: for ever."""


class LocalRef(Strict):
    """An object of the same namespace, by name."""

    name: Name
    """Its name."""


class PodTemplate(Strict):
    """Where the pods run. Nothing else of a pod can be changed."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that are no hindrance."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods."""
    image_pull_secrets: Annotated[tuple[LocalRef, ...], Field(max_length=8)] = ()
    """Secrets of the namespace with the credentials of the image registry."""


class ParentRef(Strict):
    """A Gateway that the route is attached to."""

    name: Name
    """Name of the Gateway."""
    namespace: Name | None = None
    """Its namespace; default: that of the model. The Gateway decides whom it admits."""
    section_name: Name | None = None
    """One listener of it; default: all that fit."""


HOSTNAME_PATTERN = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
Hostname = Annotated[str, StringConstraints(pattern=HOSTNAME_PATTERN, max_length=253)]


class RouteSpec(Strict):
    """Exact weights by the Gateway API, and a way in from outside."""

    gateway_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=8)]
    """Gateways that carry the requests."""
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    """Host names that belong to the model; default: every host of the listener."""


class Autoscaling(Strict):
    """When servers are added: by a HorizontalPodAutoscaler on their CPU."""

    metric: Literal["cpu"] = "cpu"
    """What is measured: CPU time in percent of serving.resources.requests.cpu."""
    target: Annotated[int, Field(ge=1, le=100)] = 70
    """Percent to hold. Default 70."""


MOST_CHALLENGERS = 4
"""At most so many servers of a challenger for each of the champion: 80 % of the requests."""


def challengers(champions: int, weight: int) -> int:
    """Say how many servers of a challenger beside those of the champion come nearest to a share of the requests.

    k of a challenger beside n of the champion get k / (n + k), since every ready server gets as much as any other.

    Args:
        champions: servers of the champion, n >= 1.
        weight: wanted percent, 1 to 99.

    Returns:
        n * weight / (100 - weight), rounded to the nearest (a half to the even one), so that it is never off by
        as much as one server; at least 1, at most `MOST_CHALLENGERS` * n: who writes 99 does not mean 99 servers
        for each of the champion.

    >>> challengers(9, 10), challengers(2, 10), challengers(1, 50), challengers(2, 75), challengers(3, 99)
    (1, 1, 1, 6, 12)
    """
    return min(max(1, round(champions * weight / (100 - weight))), MOST_CHALLENGERS * champions)


def reachable(champions: int, weight: int) -> int:
    """Say which percent of the requests whole servers give where `weight` is asked for.

    >>> reachable(2, 10), reachable(9, 10), reachable(1, 50), reachable(3, 99)
    (33, 10, 50, 80)
    """
    count = challengers(champions, weight)
    return round(100 * count / (champions + count))
