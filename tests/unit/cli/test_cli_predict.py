"""`mainspring predict`: rows in three forms go to the served model, and its answer says who gave it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.cli_session import mainspring, model, put

HEADERS = {
    "x-mainspring-model": "bikes",
    "x-mainspring-revision": "bikes-dd1196040a",
    "x-mainspring-version": "1",
    "x-mainspring-commit": "c506f45455933c98fab1a4caebd8be4c950a14e5",
}


class Servant(ThreadingHTTPServer):
    """Answers as a server of ours and keeps what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer = (200, {"predictions": [17.5, "many"]})


class Handler(BaseHTTPRequestHandler):
    server: Servant

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, self.headers["content-type"], body))
        code, content = self.server.answer
        data = json.dumps(content).encode()
        self.send_response(code)
        for name, value in {**HEADERS, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        return


@pytest.fixture
def servant():
    server = Servant()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def state(tmp_path, servant):
    url = f"http://127.0.0.1:{servant.server_port}/default/bikes"
    status = {"observedGeneration": 1, "url": url, "champion": {"revision": "bikes-dd1196040a"}}
    put(tmp_path / "state", model(), statuses={"bikes": status})
    return tmp_path / "state"


def test_a_row_is_sent_and_the_answer_names_its_revision(state, servant):
    answer = mainspring(state, "predict", "bikes", "--row", '{"temp": 0.3}', "--row", '{"temp": 0.9}')
    path, media, body = servant.asked[0]
    assert (path, media) == ("/default/bikes/invocations", "application/json")
    assert json.loads(body) == {"dataframe_records": [{"temp": 0.3}, {"temp": 0.9}]}
    assert answer.lines == [
        "17.5",
        "many",
        "from bikes-dd1196040a version 1, commit c506f45455933c98fab1a4caebd8be4c950a14e5",
    ]


def test_json_has_the_predictions_and_who_made_them(state):
    found = json.loads(mainspring(state, "predict", "bikes", "--row", "{}", "-o", "json").out)
    assert found == {
        "predictions": [17.5, "many"],
        "model": "bikes",
        "revision": "bikes-dd1196040a",
        "version": "1",
        "commit": "c506f45455933c98fab1a4caebd8be4c950a14e5",
    }


@pytest.mark.parametrize(
    ("name", "content", "media", "sent"),
    [
        ("rows.csv", "temp\n0.3\n", "text/csv", "temp\n0.3\n"),
        ("rows.json", '[{"temp": 1}]', "application/json", '{"dataframe_records": [{"temp": 1}]}'),
        ("rows.json", '{"temp": 1}', "application/json", '{"dataframe_records": [{"temp": 1}]}'),
        ("rows.json", "[[1, 2]]", "application/json", '{"instances": [[1, 2]]}'),
        ("rows.json", '{"inputs": {"temp": [1]}}', "application/json", '{"inputs": {"temp": [1]}}'),
        ("-", '[{"temp": 1}]', "application/json", '{"dataframe_records": [{"temp": 1}]}'),
        ("-", "temp\n0.3\n", "text/csv", "temp\n0.3\n"),
    ],
    ids=["CSV", "JSON rows", "one JSON row", "JSON lists", "a form of MLflow", "JSON on stdin", "CSV on stdin"],
)
def test_files_go_as_they_are_or_in_the_form_that_the_server_reads(
    name, content, media, sent, state, servant, tmp_path
):
    (tmp_path / "rows.csv").write_text(content)
    (tmp_path / "rows.json").write_text(content)
    where = "-" if name == "-" else str(tmp_path / name)
    assert mainspring(state, "predict", "bikes", "--data", where, stdin=content).code == 0
    assert servant.asked[0][1:] == (media, sent.encode())


def test_a_refusal_of_the_server_is_its_own_words_and_exit_code_1(state, servant):
    servant.answer = (400, {"error_code": "BAD_REQUEST", "message": "row 1: column temp is missing"})
    answer = mainspring(state, "predict", "bikes", "--row", "{}")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "error: the server says 400: row 1: column temp is missing\n"


def test_a_server_that_is_away_is_named(tmp_path):
    status = {"url": "http://127.0.0.1:9/default/bikes", "champion": {"revision": "bikes-dd1196040a"}}
    put(tmp_path, model(), statuses={"bikes": status})
    answer = mainspring(tmp_path, "predict", "bikes", "--row", "{}")
    assert answer.code == 1
    assert answer.err.startswith("error: http://127.0.0.1:9/default/bikes/invocations does not answer (")
    assert answer.err.endswith("); is mainspring up running?\n")


def test_a_model_that_serves_nothing_says_where_to_look(tmp_path):
    put(tmp_path, model())
    answer = mainspring(tmp_path, "predict", "bikes", "--row", "{}")
    assert answer.err == "error: modelspec/bikes serves nothing yet; mainspring explain modelspec/bikes says why\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give the rows: --data FILE, or --row '{\"column\": value}'"),
        (["--row", "{temp: 1}"], "--row: not JSON: Expecting property name enclosed in double quotes"),
        (["--row", "[1]"], "--row: a JSON object of columns is wanted, not [1]"),
        (["--data", "nowhere.csv"], "nowhere.csv is no file"),
    ],
    ids=["no rows", "no JSON", "no object", "no file"],
)
def test_a_wrong_call_is_a_usage_error(args, said, tmp_path):
    answer = mainspring(tmp_path, "predict", "bikes", *args)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {said}")
