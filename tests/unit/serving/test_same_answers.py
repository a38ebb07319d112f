"""The fast way from JSON to predictions answers whatever the careful one answers, and refuses what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from controller.serving import invocations
from controller.serving.engine import Engine
from controller.serving.pool import Pool
from controller.serving.predictor import Predictor
from controller.serving.table import read

NUMBERS = ["age", "income"]
MODELS = {
    "a linear classifier of numbers": lambda t, y: make_pipeline(StandardScaler(), LogisticRegression()).fit(t, y),
    "a forest": lambda t, y: RandomForestClassifier(7, random_state=1).fit(t, y),
    "trees that take gaps": lambda t, y: HistGradientBoostingClassifier(max_iter=5).fit(t, y),
    "a regression without names": lambda t, y: LinearRegression().fit(t.to_numpy(), t["income"] * 3),
    "a machine whose classes are not those of its probabilities": lambda t, y: SVC().fit(t, y),
}


class Both:
    """One model, asked in both ways."""

    def __init__(self, model, frame) -> None:
        self.predictor = Predictor(model, kind="joblib")
        self.kinds = {**invocations.kinds_of(frame), **self.predictor.kinds}
        self.engine = Engine(self.predictor, Pool(parallel=False), self.kinds)
        self.engine.prove(frame)

    def careful(self, body):
        """The way that was there first."""
        try:
            frame = invocations.parse_json(body, self.predictor.columns, self.kinds)
            try:
                return "answered", self.predictor.predict(frame)
            except Exception as error:
                if (refusal := invocations.refusal(frame, error)) is not None:
                    raise refusal from error
                return "failed", type(error).__name__
        except invocations.BadRequest as error:
            return "refused", error.message

    def fast(self, body):
        try:
            return "answered", self.engine.ask(self.engine.read_json(body))[0]
        except invocations.BadRequest as error:
            return "refused", error.message
        except Exception as error:
            return "failed", type(error).__name__


@pytest.fixture(scope="module")
def both(pipeline, table):
    draw = np.random.default_rng(3)
    numbers = pd.DataFrame({"age": draw.integers(18, 90, 80), "income": draw.normal(3, 1, 80)})
    target = np.where(numbers["income"] + numbers["age"] / 40 > 4, "yes", "no")
    found = {name: Both(fit(numbers, target), numbers.head(3)) for name, fit in MODELS.items()}
    return {**found, "a pipeline with texts": Both(pipeline, table.head(3))}


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=64),
    st.floats(-10, 100),
    st.integers(-(2**70), 2**70),
    st.integers(0, 90),
)
odd = st.sampled_from([None, True, "Ulm", "Bonn", "a:b", "", "1.5", [1], {"a": 1}, 2**63, -(2**63), 1e300, 10**25])
cell = st.one_of(number, st.floats(0, 90), odd)
NAMES = ["age", "income", "city", "x:y"]


@st.composite
def bodies(draw):
    """A request in one of the forms, mostly right, as JSON that may be spaced or have a name twice."""
    names = draw(
        st.one_of(
            st.sampled_from([NUMBERS, ["income", "age"], ["age", "income", "city"], NAMES]),
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
        )
    )
    cells = draw(st.sampled_from([number, number, st.floats(0, 90), cell]))
    texts = draw(st.booleans())

    def value(name):
        return draw(st.sampled_from(["Ulm", "Bonn", "at 12:30"])) if texts and name == "city" else draw(cells)

    rows = [[value(name) for name in names] for _ in range(draw(st.integers(0, 4)))]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    document = draw(
        st.sampled_from(
            [
                {"dataframe_split": {"columns": names, "data": rows}},
                {"dataframe_split": {"columns": names, "data": rows, "index": list(range(len(rows)))}},
                {"dataframe_records": records},
                {"instances": records},
                {"instances": rows},
                {"inputs": rows},
                {"inputs": columns},
                {"instances": [row[0] for row in rows]},
                {"instances": rows, "params": {}},
            ]
        )
    )
    text = json.dumps(document, indent=draw(st.sampled_from([None, 1])))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.sampled_from(['"age": ', '"columns": ', '"data": ']))
        text = text.replace(at, f"{at}1, {at}", 1)
    if draw(st.integers(0, 19)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text.encode()


TWICE = b'{"dataframe_split": {"columns": ["x:y"], "data": [["x"]], "data": [["y"]]}}'
HIDDEN = b'{"instances": [{"age": "x", "age": "\\u003a", "income": 1}]}'


@pytest.mark.parametrize("name", [*MODELS, "a pipeline with texts"])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies())
@example(body=TWICE)
@example(body=HIDDEN)
@example(body=b'{"instances": [[1e400, 2]]}')
@example(body=b'{"instances": [[-0, -0.0], [9007199254740993, 0.1]]}')
@example(body=b'{"inputs": {"age": [1, null], "income": [0.5, 2]}}')
def test_any_request_gets_the_same_predictions_or_the_same_refusal(name, body, both):
    assert both[name].fast(body) == both[name].careful(body)


@pytest.mark.parametrize(
    ("name", "arrays"),
    [*((name, True) for name in MODELS), ("a pipeline with texts", False)],
)
def test_models_of_numbers_are_given_arrays_and_others_frames(name, arrays, both):
    assert both[name].engine.arrays is arrays


def test_what_people_send_is_read_in_the_fast_way(both):
    """Else the property above would compare the careful way with itself."""
    rows: list = [[40, 2.5], [20, None]]
    columns = tuple(NUMBERS)
    kinds = dict.fromkeys(NUMBERS, "number")
    records = [dict(zip(NUMBERS, row, strict=True)) for row in rows]
    documents: tuple[dict, ...] = (
        {"dataframe_split": {"columns": NUMBERS, "data": rows}},
        {"dataframe_split": {"columns": NUMBERS[::-1], "data": [row[::-1] for row in rows]}},
        {"dataframe_records": records},
        {"instances": rows},
        {"inputs": {name: [row[n] for row in rows] for n, name in enumerate(NUMBERS)}},
    )
    for document in documents:
        found = read(json.dumps(document).encode(), columns, kinds, True)
        assert found is not None
        np.testing.assert_array_equal(found.matrix, [[40, 2.5], [20, np.nan]])
    texts = [{"city": "Ulm: the old town", "age": 3}]
    found = read(json.dumps({"instances": texts}).encode(), ("age", "city"), {}, False)
    assert found is not None
    assert found.cells == [(3,), ("Ulm: the old town",)]


def test_a_model_that_runs_code_of_its_author_is_never_asked_in_the_event_loop(both, table):
    assert both["a linear classifier of numbers"].engine.inline_rows > 0
    frame = table[NUMBERS]
    foreign = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(frame, table["city"])
    assert Both(foreign, frame.head(3)).engine.inline_rows == 0


def test_a_model_whose_array_gives_another_answer_is_given_frames(table):
    class Sly(LogisticRegression):  # type: ignore[misc]
        def predict(self, X):
            found = super().predict(X)
            return found if hasattr(X, "columns") else found[::-1]

    Sly.__module__ = "sklearn.linear_model._sly"
    frame = table[NUMBERS]
    both = Both(Sly().fit(frame, np.arange(len(frame)) % 2), frame.head(20))
    assert both.engine.arrays is False
