"""What BentoML serves in the measurement; run by its own interpreter, imports nothing of ours."""

from __future__ import annotations

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1, metrics={"enabled": False})
class Model:
    """One model behind one method."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api(route="/invocations")
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Predict a batch."""
        return self.model.predict(np.asarray(x, dtype=np.float64))
