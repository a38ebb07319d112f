"""Reads scikit-learn models: joblib, pickle and cloudpickle, which run what is in them, and skops, which does not.

What a skops file may hold is decided here and never by the artifact.  Never called before the digest was checked.
"""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from controller.clients.errors import ClientError
from controller.serving.formats.native import mismatch, not_loadable, short

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
TRUSTED_NAMES: Final = frozenset(
    {
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRanker",
        "lightgbm.sklearn.LGBMRegressor",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRanker",
        "xgboost.sklearn.XGBRegressor",
    }
)
"""Further types that hold trees and parameters, and run nothing when they are made."""


def read(path: Path, serialization: str, stated: str) -> tuple[Any, str]:
    """Load one file.

    Args:
        path: a verified file.
        serialization: joblib, pickle, cloudpickle or skops.
        stated: version of scikit-learn that MLmodel states; empty without one.

    Returns:
        The model, and the version of scikit-learn that it was made with; empty when nobody knows.

    Raises:
        Denied: ModelNotLoadable, naming the error and a way out; EnvironmentMismatch, naming both versions.
    """
    _same_release(stated)
    model, found = _unpickle(path, serialization)
    _same_release(found)
    return model, found or stated or _version_if_sklearn(model)


def _unpickle(path: Path, serialization: str) -> tuple[Any, str]:
    """Load one file; returns the model and the scikit-learn version it states when that is not the one here."""
    readers: dict[str, Callable[[Path], Any]] = {
        "joblib": _read_joblib,
        "pickle": _read_pickle,
        "cloudpickle": _read_pickle,
        "skops": _read_skops,
    }
    if serialization not in readers:
        raise not_loadable(f"its format is {serialization!r:.60}; known are {', '.join(readers)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = readers[serialization](path)
        except ClientError:
            raise
        except Exception as error:
            _same_release(_version_in(caught))
            raise not_loadable(_explain(path, error)) from error
        other = _version_in(caught)
    if not callable(getattr(model, "predict", None)):
        raise not_loadable(f"{path.name} holds {type(model).__name__}, which has no predict method")
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
    foreign = [
        t for t in unknown if t not in TRUSTED_NAMES and (not t.startswith(TRUSTED) or t.startswith(UNTRUSTED))
    ]
    if foreign:
        shown = ", ".join(sorted(foreign)[:5])
        raise not_loadable(
            f"{path.name} has {len(foreign)} types that are not of scikit-learn, numpy, scipy or pandas: "
            f"{shown[:200]}; leave model.joblib with their modules in code/ instead"
        )
    return skops.io.load(path, trusted=unknown)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [m.filename for m in members]
    if len(set(names)) != len(names):
        raise not_loadable(f"{path.name} has the same name twice in its archive")
    if any(n.startswith("/") or ".." in n.split("/") for n in names):
        raise not_loadable(f"{path.name} has a path in its archive that leaves it")
    if (size := sum(m.file_size for m in members)) > SKOPS_MAX_BYTES:
        raise not_loadable(f"{path.name} unpacks to {size:,} bytes, more than {SKOPS_MAX_BYTES:,}")


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
        raise mismatch("scikit-learn", stated, here)


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return f"{path.name} is not a skops file"
    if isinstance(error, AttributeError) and repr(sys.modules["__main__"]) in str(error):
        said = str(error).partition(" on <module")[0][:120]
        return (
            f"{path.name} names a class of the script that was started ({said}), which no other program can "
            "import: define it in a module of its own and import it there"
        )
    if isinstance(error, ImportError | AttributeError):
        return (
            f"{path.name} cannot be loaded: {short(error)}; leave the modules that it needs in code/ beside it, "
            "or set serving.image to an image that has them"
        )
    return f"{path.name} cannot be loaded: {short(error)}"
