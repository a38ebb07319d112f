"""What people may say about the pods of their model: resources, nodes, queue, image credentials.

None of it is part of a hash of the inputs: where and with how much a model is made does not make another model.
Names and forms are Kubernetes' own.  Security settings are not here: they are fixed (`plan/pods.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from controller.api.base import Name, Strict

QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"

_DOMAIN = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUALIFIED_PATTERN = f"^({_DOMAIN}/)?{_WORD}$"
"""Keys of labels and taints: a name, with a domain in front or not."""
EXTENDED_PATTERN = f"^{_DOMAIN}/{_WORD}$"
"""Resources that a cluster adds: `nvidia.com/gpu`."""
RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""Resources that every cluster has."""
_SCALE = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** (power + 1) for power, unit in enumerate("kMGT")},
    **{f"{unit}i": Decimal(1024) ** (power + 1) for power, unit in enumerate("KMGT")},
}

Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=32)]
"""An amount as Kubernetes writes it: `500m`, `"2"`, `4Gi`."""
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]


class Resources(Strict):
    """How much a container asks for, and how much it may take."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """What is set aside for it, by resource: `{cpu: "2", memory: 4Gi}`."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """What it may take at most; a program that takes more memory is killed."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problem := _resources_problem(self.requests, self.limits):
            raise ValueError(problem)
        return self


def _resources_problem(requests: Mapping[str, str], limits: Mapping[str, str]) -> str:
    """Say what no API server would take in a pod; empty when it would: the pod would never be made."""
    for name in (*requests, *limits):
        extended = re.fullmatch(EXTENDED_PATTERN, name) and "kubernetes.io/" not in name
        if name not in RESOURCES and (not extended or name.startswith("requests.")):
            return (
                f"{name} is no resource; known are {', '.join(RESOURCES)} and those of the cluster, nvidia.com/gpu"
            )
    for name, amount in requests.items():
        if name not in RESOURCES and (limits.get(name) != amount or not amount.isdecimal()):
            return f"{name} needs the same whole number in requests and limits"
        if name in limits and amount_of(amount) > amount_of(limits[name]):
            return f"requests.{name} {amount} is above limits.{name} {limits[name]}"
    if odd := [name for name in limits if name not in RESOURCES and not limits[name].isdecimal()]:
        return f"{odd[0]} needs a whole number"
    return ""


def amount_of(quantity: str) -> Decimal:
    """Read an amount as Kubernetes does: `500m` is 0.5, `4Gi` is 4 * 1024 ** 3.

    >>> amount_of("500m"), amount_of("1Ki"), amount_of("2k")
    (Decimal('0.500'), Decimal('1024'), Decimal('2000'))
    """
    number = quantity.rstrip("mkKMGTi")
    return Decimal(number) * _SCALE[quantity.removeprefix(number)]


class Toleration(Strict):
    """A taint of nodes that the pod may run on all the same."""

    key: Annotated[str, StringConstraints(max_length=317, pattern=QUALIFIED_PATTERN)] | None = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] | None = None
    """Equal (default): the value must be equal. Exists: any value."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which effect; absent: all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    """With NoExecute: how long the pod stays on the node, in seconds; absent: for ever."""

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator: Exists takes no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("without key, operator must be Exists: every taint")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds goes with effect: NoExecute")
        return self


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

    @field_validator("node_selector")
    @classmethod
    def _keys(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if not re.fullmatch(QUALIFIED_PATTERN, key) or len(key) > 317:
                raise ValueError(f"{key[:80]} is no key of a label: a name, with a domain and / in front or not")
        return value


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

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for ref in self.gateway_refs:
            same = [r for r in self.gateway_refs if (r.namespace, r.name) == (ref.namespace, ref.name)]
            sections = {r.section_name for r in same}
            if len(same) > 1 and (None in sections or len(sections) < len(same)):
                raise ValueError(f"Gateway {ref.name} is named twice: give each a sectionName of its own")
        return self


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
