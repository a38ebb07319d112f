"""Options for all tests."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.cluster.fixtures", "tests.corpus.rows"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")
