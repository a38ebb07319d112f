"""Real scikit-learn models, fitted once and saved in every format that is served."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.support.serving_models import FORMATS


@pytest.fixture(scope="session")
def table() -> pd.DataFrame:
    """60 rows: two numbers and a string."""
    draw = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "age": draw.integers(18, 90, 60),
            "income": draw.normal(3, 1, 60),
            "city": draw.choice(["Bonn", "Ulm"], 60),
        }
    )


@pytest.fixture(scope="session")
def target(table: pd.DataFrame) -> np.ndarray:
    return np.where(table["income"] + (table["city"] == "Ulm") > 3.4, "yes", "no")


@pytest.fixture(scope="session")
def pipeline(table: pd.DataFrame, target: np.ndarray):
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        remainder="passthrough",
    )
    return make_pipeline(encode, LogisticRegression(max_iter=500)).fit(table, target)


@pytest.fixture(scope="session")
def numeric(table: pd.DataFrame, target: np.ndarray):
    return LogisticRegression(max_iter=500).fit(table[["age", "income"]], target)


@pytest.fixture(scope="session")
def gaps(table: pd.DataFrame, target: np.ndarray):
    """A model that takes missing values."""
    return HistGradientBoostingClassifier(max_iter=5).fit(table[["age", "income"]], target)


@pytest.fixture(scope="session")
def regression(table: pd.DataFrame):
    """A model fitted on bare numbers: it names no columns."""
    return LinearRegression().fit(table[["age"]].to_numpy(), table["income"])


@pytest.fixture(scope="session")
def saved(tmp_path_factory, pipeline, table):
    """Directory of the same pipeline by format, as a training would leave it."""
    base = tmp_path_factory.mktemp("saved")
    (base / "joblib").mkdir()
    joblib.dump(pipeline, base / "joblib" / "model.joblib")
    (base / "skops").mkdir()
    skops.io.dump(pipeline, base / "skops" / "model.skops")
    import mlflow.sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("cloudpickle", "pickle", "skops"):
            mlflow.sklearn.save_model(
                pipeline,
                str(base / f"mlflow-{kind}" / "model"),
                serialization_format=kind,
                input_example=table.head(1),
                pip_requirements=["scikit-learn==1.9.1", "pandas"],
                **({"skops_trusted_types": []} if kind == "skops" else {}),
            )
    return {kind: base / kind for kind in FORMATS}
