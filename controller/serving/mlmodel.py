"""Reads MLmodel, which describes a model in MLflow's format: which file it is, and what it states of itself.

MLflow's own loaders are never used: they run code that MLmodel names.  Only flavors whose file is read by a reader
of ours are taken, and of those only what is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from controller.clients import artifacts
from controller.serving.formats.native import not_loadable

MLMODEL_MAX_BYTES: Final = 1 << 20
EXAMPLE_MAX_BYTES: Final = 1 << 20

_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)$")
_KINDS: Final = {"string": "string", "boolean": "boolean"} | dict.fromkeys(
    ("double", "float", "integer", "long"), "number"
)


@dataclass(frozen=True, slots=True)
class Flavor:
    """What MLmodel says, and nothing else of it is used."""

    file: str
    """The model's file, one of the artifact's."""
    reader: str
    """joblib, pickle, cloudpickle, skops, onnx, xgboost or lightgbm."""
    framework: str
    """Name of the framework in requirements."""
    packages: dict[str, str]
    """Versions that are stated."""
    columns: tuple[str, ...] | None = None
    kinds: dict[str, str] = field(default_factory=dict)


def read(root: Path) -> Flavor:
    """Read MLmodel; another flavor, loader or path is refused.

    Raises:
        Denied: ModelNotLoadable.
    """
    path = root / "MLmodel"
    if path.stat().st_size > MLMODEL_MAX_BYTES:
        raise not_loadable(f"MLmodel has {path.stat().st_size:,} bytes, more than {MLMODEL_MAX_BYTES:,}")
    try:
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        flavors = {str(name): dict(given or {}) for name, given in document["flavors"].items()}
    except (
        yaml.YAMLError,
        UnicodeDecodeError,
        RecursionError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise not_loadable("MLmodel is not a YAML file with flavors") from error
    name = next((n for n in _FLAVORS if flavors.get(n)), None)
    if name is None:
        named = ", ".join(sorted(flavors))[:200] or "none"
        raise not_loadable(
            f"MLmodel has the flavors {named}, not one of {', '.join(_FLAVORS)}: "
            f"log the model with one of these, or leave one file: {', '.join(artifacts.SINGLE_FILES)}"
        )
    library, version, key = _FLAVORS[name]
    flavor = flavors[name]
    file = str(flavor.get(key))
    if file not in artifacts.list_files(root):
        raise not_loadable(f"MLmodel names the file {file!r:.100}, which is not one of the artifact's")
    packages = _requirements(root)
    if stated := flavor.get(version):
        packages[library] = str(stated)[:64]
    columns, kinds = _signature(document.get("signature"))
    return Flavor(file, _reader(name, file, flavor), library, packages, columns, kinds)


_FLAVORS: Final = {
    "sklearn": ("scikit-learn", "sklearn_version", "pickled_model"),
    "xgboost": ("xgboost", "xgb_version", "data"),
    "lightgbm": ("lightgbm", "lgb_version", "data"),
    "onnx": ("onnx", "onnx_version", "data"),
}
"""Flavor → its library, where it states the library's version, where it names the file."""


def _reader(name: str, file: str, flavor: dict[str, Any]) -> str:
    if name == "sklearn":
        return str(flavor.get("serialization_format"))
    if name == "lightgbm" and not file.endswith((".lgb", ".txt")):
        # LightGBM's estimators for scikit-learn are kept as such, its boosters in its own form.
        return "skops" if file.endswith(".skops") else str(flavor.get("serialization_format") or "cloudpickle")
    return name


def _requirements(root: Path) -> dict[str, str]:
    packages: dict[str, str] = {}
    requirements = root / "requirements.txt"
    if requirements.is_file() and requirements.stat().st_size <= MLMODEL_MAX_BYTES:
        for line in requirements.read_text(errors="replace").splitlines()[:500]:
            if match := _REQUIREMENT.match(line.partition(";")[0].strip()):
                packages[match[1].lower()] = match[2]
    return packages


def example(root: Path) -> bytes | None:
    """Read the request that MLflow keeps beside a model, a body for /invocations; None without one."""
    path = root / "serving_input_example.json"
    return path.read_bytes() if path.is_file() and path.stat().st_size <= EXAMPLE_MAX_BYTES else None


def _signature(signature: Any) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    try:
        inputs = yaml.load(signature["inputs"], Loader=yaml.CSafeLoader)
        columns = tuple(str(i["name"]) for i in inputs)
        return columns, {str(i["name"]): _KINDS[i["type"]] for i in inputs if i.get("type") in _KINDS}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None, {}
