"""How a scikit-learn model may be asked: by an array instead of a frame, once for class and probabilities.

What is said here is by the model's structure; the server tries it on the sample before it is used.  Wherever one
is not sure, the plain way stays.  Imports nothing of scikit-learn: classes are known by their names.
"""

from __future__ import annotations

from typing import Any, Final

NEEDS_NAMES: Final = frozenset({"ColumnTransformer", "FunctionTransformer"})
"""Steps that look at names of columns, or run code that may."""
RUNS_ANYTHING: Final = frozenset({"FunctionTransformer"})
"""Steps that run code of the model's author."""
BY_SCORES: Final = frozenset(
    f"sklearn.{name}"
    for name in (
        "linear_model._logistic.LogisticRegression",
        "linear_model._logistic.LogisticRegressionCV",
        "tree._classes.DecisionTreeClassifier",
        "tree._classes.ExtraTreeClassifier",
        "ensemble._forest.RandomForestClassifier",
        "ensemble._forest.ExtraTreesClassifier",
        "ensemble._gb.GradientBoostingClassifier",
        "ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "naive_bayes.GaussianNB",
        "naive_bayes.BernoulliNB",
        "naive_bayes.MultinomialNB",
        "neural_network._multilayer_perceptron.MLPClassifier",
        "calibration.CalibratedClassifierCV",
    )
)
"""Classifiers that predict the class of the highest probability."""
MARGIN: Final = 1e-9
"""Where the two highest probabilities are closer than this, the model itself is asked for the class."""


def only_sklearn(model: Any) -> bool:
    """Say whether an estimator and all its steps come from scikit-learn."""
    steps = getattr(model, "steps", None) or getattr(model, "transformers_", None)
    if steps is not None:
        return all(isinstance(s[1], str) or only_sklearn(s[1]) for s in steps)
    return type(model).__module__.startswith("sklearn.")


def takes_arrays(model: Any) -> bool:
    """Say whether a fitted estimator treats an array as it treats a frame with its columns in order."""
    return isinstance(getattr(model, "n_features_in_", None), int) and _made_of(model, NEEDS_NAMES)


def runs_nothing_foreign(model: Any) -> bool:
    """Say whether all code that an estimator runs is scikit-learn's own: it ends, and waits for nobody."""
    return _made_of(model, RUNS_ANYTHING)


def _made_of(model: Any, without: frozenset[str]) -> bool:
    """Say whether an estimator and all that is inside of it is scikit-learn's, and none of it of these classes."""
    if not only_sklearn(model):
        return False
    try:
        inside = model.get_params(deep=True).values()
    except (AttributeError, TypeError, ValueError):
        return False
    parts = [model, *(p for p in inside if hasattr(p, "get_params") and not isinstance(p, type))]
    return all(type(p).__module__.startswith("sklearn.") and type(p).__name__ not in without for p in parts)


def by_scores(model: Any) -> bool:
    """Say whether a classifier's class is that of its highest probability."""
    last = model.steps[-1][1] if getattr(model, "steps", None) else model
    kind = f"{type(last).__module__}.{type(last).__qualname__}"
    return kind in BY_SCORES and type(model).__module__.startswith("sklearn.")


def margins(scores: Any) -> Any:
    """Give the distance of the two highest probabilities of each row; infinite where there is one class."""
    import numpy as np

    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    if scores.shape[1] == 2:
        return np.abs(scores[:, 0] - scores[:, 1])
    highest = np.partition(scores, -2, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def is_clear(scores: Any, least: float) -> bool:
    """Say whether the two highest probabilities of every row are more than `least` apart."""
    if len(scores) == 1:
        # Plain Python is faster than numpy here, and most requests have one row.
        row = scores[0].tolist()
        place = row.index(best := max(row))
        return all(best - other > least for other in (*row[:place], *row[place + 1 :]))
    return bool(margins(scores).min() > least)


def classes_and_scores(model: Any, rows: Any) -> tuple[Any, Any]:
    """Ask a model once; returns its classes for the rows, and the probabilities of shape (rows, classes), or None.

    Raises:
        Whatever the model raises when it predicts.
    """
    import numpy as np

    try:
        scores = np.asarray(model.predict_proba(rows))
    except Exception:  # noqa: BLE001 - a model may raise anything; what it predicts, or raises then, counts
        return model.predict(rows), None
    if scores.ndim != 2 or scores.shape[1] < 2:
        return model.predict(rows), scores
    if not is_clear(scores, MARGIN):
        return model.predict(rows), scores
    return np.asarray(model.classes_)[scores.argmax(axis=1)], scores
