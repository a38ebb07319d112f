"""One MLflow server for every test that needs one: it takes seconds to start."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from controller.local.mlflow_server import MlflowServer


@functools.cache
def tracking_uri() -> str:
    """Start the server at the first call; it is stopped and its files are removed when the tests end."""
    home = Path(tempfile.mkdtemp(prefix="mainspring-mlflow-"))
    server = MlflowServer(home / "data", home / "state")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    atexit.register(server.stop)
    return server.start()
