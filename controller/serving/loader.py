"""Loads a model that was verified: MLflow's scikit-learn flavour, skops or joblib.

Loading a pickle runs what is in it, so the manifest's digest is checked first, on a private copy, and the copy is
what is loaded.  MLflow's own loaders are never used: they run code that MLmodel names.  What is allowed is decided
here and never by the artifact.
"""

from __future__ import annotations

import atexit
import pickle
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from controller.clients import artifacts
from controller.clients.artifacts import FileDigest, Format
from controller.clients.errors import ClientError, Denied
from controller.serving.predictor import Predictor

MLMODEL_MAX_BYTES: Final = 1 << 20
EXAMPLE_MAX_BYTES: Final = 1 << 20
SKOPS_MAX_BYTES: Final = 4 << 30
"""Most bytes that a skops file may unpack to."""
TRUSTED: Final = ("sklearn.", "numpy.", "scipy.", "pandas.")
UNTRUSTED: Final = (
    "numpy.f2py",
    "numpy.testing",
    "numpy.distutils",
    "sklearn.utils._testing",
    "pandas.io",
    "scipy.io",
)
"""Parts of the trusted libraries that run programs or open files by name."""

_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)$")


@dataclass(frozen=True, slots=True)
class Flavor:
    """What MLmodel says, and nothing else of it is used."""

    file: str
    serialization: str
    packages: dict[str, str]
    columns: tuple[str, ...] | None = None
    kinds: dict[str, str] = field(default_factory=dict)


def verify_and_load(root: Path, digest: str) -> tuple[Predictor, tuple[FileDigest, ...]]:
    """Copy, verify the copy, load the copy.

    Args:
        root: a directory that `artifacts.locate` understands; all files of the artifact are part of the digest.
        digest: `sha256:<64 hex>` of the manifest.

    Raises:
        Denied: ManifestMismatch before anything is loaded; ModelNotLoadable, EnvironmentMismatch.
    """
    located = artifacts.locate(root)
    private = Path(tempfile.mkdtemp(prefix="mainspring-model-"))
    copy = private / "model"
    try:
        files = artifacts.matched(artifacts.snapshot(located.root, copy), digest)
        _lock(copy)
        return load(copy, located.format), files
    finally:
        if (copy / artifacts.CODE).is_dir():
            # Its modules may import one another as late as in a prediction.
            atexit.register(shutil.rmtree, private, ignore_errors=True)
        else:
            shutil.rmtree(private, ignore_errors=True)


def load(root: Path, kind: Format) -> Predictor:
    """Load a model whose files were verified by the caller. Modules in `code/` can be imported from then on.

    Raises:
        Denied: ModelNotLoadable, naming the error and a way out; EnvironmentMismatch, naming both versions.
    """
    flavor = read_mlmodel(root) if kind == "mlflow" else Flavor(f"model.{kind}", kind, {})
    stated = flavor.packages.get("scikit-learn", "")
    _same_release(stated)
    if (code := root / artifacts.CODE).is_dir():
        # At the end, so that it replaces no module of ours or of a library.
        sys.path.append(str(code))
    model, found = _unpickle(root / flavor.file, flavor.serialization)
    _same_release(found)
    packages = dict(flavor.packages)
    if version := found or stated or _version_if_sklearn(model):
        packages["scikit-learn"] = version
    return Predictor(
        model,
        kind=kind,
        packages=packages,
        named=flavor.columns,
        kinds=flavor.kinds,
        example=_example(root) if kind == "mlflow" else None,
    )


def read_mlmodel(root: Path) -> Flavor:
    """Read the scikit-learn flavour of an MLmodel file; another flavour, loader or path is refused.

    Raises:
        Denied: ModelNotLoadable.
    """
    path = root / "MLmodel"
    if path.stat().st_size > MLMODEL_MAX_BYTES:
        raise _not_loadable(f"MLmodel has {path.stat().st_size:,} bytes, more than {MLMODEL_MAX_BYTES:,}")
    try:
        document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        flavors = document["flavors"]
        named = sorted(str(f) for f in flavors)
        flavor = dict(flavors.get("sklearn") or {})
    except (
        yaml.YAMLError,
        UnicodeDecodeError,
        RecursionError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise _not_loadable("MLmodel is not a YAML file with flavors") from error
    if not flavor:
        raise _not_loadable(
            f"MLmodel has the flavors {', '.join(named)[:200] or 'none'}, not sklearn: "
            "log the model with mlflow.sklearn, or leave model.skops or model.joblib"
        )
    file, serialization = str(flavor.get("pickled_model")), str(flavor.get("serialization_format"))
    if file not in artifacts.list_files(root):
        raise _not_loadable(f"MLmodel names the file {file!r:.100}, which is not one of the artifact's")
    columns, kinds = _signature(document.get("signature"))
    return Flavor(file, serialization, _stated_packages(root, flavor), columns, kinds)


def _stated_packages(root: Path, flavor: dict[str, Any]) -> dict[str, str]:
    packages: dict[str, str] = {}
    requirements = root / "requirements.txt"
    if requirements.is_file() and requirements.stat().st_size <= MLMODEL_MAX_BYTES:
        for line in requirements.read_text(errors="replace").splitlines()[:500]:
            if match := _REQUIREMENT.match(line.partition(";")[0].strip()):
                packages[match[1].lower()] = match[2]
    if version := flavor.get("sklearn_version"):
        packages["scikit-learn"] = str(version)[:64]
    return packages


def _example(root: Path) -> bytes | None:
    """Read the request that MLflow keeps beside a model, a body for /invocations."""
    path = root / "serving_input_example.json"
    return path.read_bytes() if path.is_file() and path.stat().st_size <= EXAMPLE_MAX_BYTES else None


_KINDS: Final = {"string": "string", "boolean": "boolean"} | dict.fromkeys(
    ("double", "float", "integer", "long"), "number"
)


def _signature(signature: Any) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    try:
        inputs = yaml.load(signature["inputs"], Loader=yaml.CSafeLoader)
        columns = tuple(str(i["name"]) for i in inputs)
        return columns, {str(i["name"]): _KINDS[i["type"]] for i in inputs if i.get("type") in _KINDS}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None, {}


def _unpickle(path: Path, serialization: str) -> tuple[Any, str]:
    """Load one file; returns the model and the scikit-learn version it states when that is not the one here."""
    readers: dict[str, Callable[[Path], Any]] = {
        "joblib": _read_joblib,
        "pickle": _read_pickle,
        "cloudpickle": _read_pickle,
        "skops": _read_skops,
    }
    if serialization not in readers:
        raise _not_loadable(f"its format is {serialization!r:.60}; known are {', '.join(readers)}")
    other = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = readers[serialization](path)
        except ClientError:
            raise
        except Exception as error:
            _same_release(_version_in(caught))
            raise _not_loadable(_explain(path, error)) from error
        other = _version_in(caught)
    if not callable(getattr(model, "predict", None)):
        raise _not_loadable(f"{path.name} holds {type(model).__name__}, which has no predict method")
    return model, other


def _read_joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - verified by digest


def _read_skops(path: Path) -> Any:
    import skops.io

    _check_zip(path)
    unknown = skops.io.get_untrusted_types(file=path)
    foreign = [t for t in unknown if not t.startswith(TRUSTED) or t.startswith(UNTRUSTED)]
    if foreign:
        shown = ", ".join(sorted(foreign)[:5])
        raise _not_loadable(
            f"{path.name} has {len(foreign)} types that are not of scikit-learn, numpy, scipy or pandas: "
            f"{shown[:200]}; leave model.joblib with their modules in code/ instead"
        )
    return skops.io.load(path, trusted=unknown)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [m.filename for m in members]
    if len(set(names)) != len(names):
        raise _not_loadable(f"{path.name} has the same name twice in its archive")
    if any(n.startswith("/") or ".." in n.split("/") for n in names):
        raise _not_loadable(f"{path.name} has a path in its archive that leaves it")
    if (size := sum(m.file_size for m in members)) > SKOPS_MAX_BYTES:
        raise _not_loadable(f"{path.name} unpacks to {size:,} bytes, more than {SKOPS_MAX_BYTES:,}")


def _version_in(caught: list[warnings.WarningMessage]) -> str:
    found = (getattr(w.message, "original_sklearn_version", None) for w in caught)
    return next((str(v)[:64] for v in found if v), "")


def _version_if_sklearn(model: Any) -> str:
    """Name the version here: an estimator of scikit-learn that loads without a warning states just that one."""
    if not type(model).__module__.startswith("sklearn."):
        return ""
    import sklearn

    return str(sklearn.__version__)


def _same_release(stated: str) -> None:
    if not stated:
        return
    import sklearn

    here = str(sklearn.__version__)
    if stated.split(".")[:2] != here.split(".")[:2]:
        raise Denied(
            f"the model was trained with scikit-learn {stated}, and {here} runs here: "
            "train it in the runtime image, or set serving.image to one with its version",
            reason="EnvironmentMismatch",
        )


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return f"{path.name} is not a skops file"
    if isinstance(error, ImportError | AttributeError):
        return (
            f"{path.name} cannot be loaded: {_short(error)}; leave the modules that it needs in code/ beside it, "
            "or set serving.image to an image that has them"
        )
    return f"{path.name} cannot be loaded: {_short(error)}"


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _lock(copy: Path) -> None:
    for entry in copy.rglob("*"):
        if entry.is_file():
            entry.chmod(0o400)


def _not_loadable(message: str) -> Denied:
    return Denied(f"the model cannot be loaded: {message}", reason="ModelNotLoadable")
