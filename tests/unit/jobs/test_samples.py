"""What of a value of the data may stand in a message that many people read."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from controller.api.data import Check
from controller.jobs import checks, checks_pandera, samples
from controller.jobs.entry import WrongInput
from tests.corpus import standing


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        pytest.param("1,5", "temp", "'1,5'", id="a number as text"),
        pytest.param("Oslo", "city", "'Oslo'", id="a place"),
        pytest.param(4711, "street_number", "4711", id="a number is a measurement, whatever its column"),
        pytest.param("loan-17", "id", "'loan-17'", id="an id of ours"),
        pytest.param("2026-03-02", "day", "'2026-03-02'", id="a day"),
        pytest.param("2026-03-02T08:00:00", "at", "'2026-03-02T08:00:00'", id="a moment"),
        pytest.param("2026-03-02 08:00:00.123456+01:00", "at", "'2026-03-02 08:00:00.123…", id="a moment, cut"),
        pytest.param("anna@example.com", "contact", "***", id="D19 an e-mail address"),
        pytest.param("+47 22 33 44 55 66", "contact", "***", id="D19 a telephone number"),
        pytest.param(4111111111111111, "ref", "***", id="D19 a card, also as a number"),
        pytest.param("NO93 8601 1117 947", "ref", "***", id="D19 an IBAN"),
        pytest.param("10.1.2.3", "from", "***", id="D19 an address of a machine"),
        pytest.param("Anna Berg", "first_name", "***", id="D19 a column of names"),
        pytest.param("Anna Berg", "customerName", "***", id="D19 a column of names, written together"),
        pytest.param("Storgata 1", "HOME_ADDRESS", "***", id="D19 a column of addresses"),
        pytest.param("token=hunter2", "note", "'token=***'", id="D19 a secret"),
        pytest.param("a\x1b[31m\u202eb", "note", "'a\\x1b[31m\\u202eb'", id="D13 signs that steer a terminal"),
    ],
)
def test_a_value_is_shown_short_and_never_a_person(value, column, shown):
    assert samples.value(value, column) == shown
    hidden = (str(value),) if shown == "***" else ()
    standing.refused(
        WrongInput("DataInvalid", f"check c failed: x has 1 value ({shown} at row 1)"), secrets=hidden
    )


@pytest.mark.parametrize("column", ["username", "e_mail", "phone", "iban", "birth_date"])
def test_d19_no_check_of_texts_shows_a_person(column):
    frame = pd.DataFrame({column: ["Anna Berg", "Bo Dahl", "Cy Eng"]})
    rules: list[dict[str, Any]] = [{"allowed": ["x"]}, {"type": "Number"}, {"min": 0}]
    made = [Check.model_validate({"name": "c", "column": column, **rule}) for rule in rules]
    now = pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime()
    told = [e.message for e in checks.judge(frame, made, target="t", champion_rows=None, now=now)]
    schema = checks_pandera.parse(f"columns: {{{column}: {{isin: [x], str_matches: x}}}}".encode(), "s.yaml")
    told += checks_pandera.judge(frame, schema)
    assert len(told) == 5
    assert not [m for m in told if "Anna" in m or "Berg" in m]
    assert all("at row 1" in m for m in told)
    message = "; ".join(f"check c failed: {m}" for m in told)
    standing.refused(WrongInput("DataInvalid", message), secrets=("Anna", "Berg", "Dahl"))
