"""`mainspring predict`: asks the served model over HTTP and says which revision answered.

The request goes to `status.url`, through the router, as any client's would.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.errors import USAGE, Failure
from controller.cli.output import Form, say, say_json
from controller.cli.session import DEFAULT_STATE, Namespace, Session, State, run
from controller.cli.target import find

if TYPE_CHECKING:
    import httpx

Ask = Callable[[bytes, str, float], Awaitable["httpx.Response"]]
"""Sends rows: body, media type, longest wait in seconds."""

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
HEADERS: Final = ("model", "revision", "version", "commit")
JSON_TYPE, CSV_TYPE = "application/json", "text/csv"


def predict_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The ModelSpec.")],
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="JSON or CSV file with rows; `-` is standard input.")
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", help="One row as a JSON object of columns. Repeatable.")
    ] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")] = Form.TEXT,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Longest wait in seconds.")] = 30.0,
    namespace: Namespace = "default",
    state: State = DEFAULT_STATE,
) -> None:
    """Ask the served model."""
    if (data is None) == (not row):
        raise Failure("give the rows: --data FILE, or --row '{\"column\": value}'", code=USAGE)
    body, media = _rows(row) if row else _file(data or "-")

    async def work(session: Session) -> httpx.Response:
        manifest = await find(session.store, name, namespace, kinds=("ModelSpec",))
        url = address(manifest.get("status") or {}, manifest["metadata"]["name"])
        return await session.asking(namespace, name.rpartition("/")[2], url)(body, media, timeout)

    _answer(run(state, work), output)


def address(status: dict[str, Any], name: str) -> str:
    """Find where requests go.

    Raises:
        Failure: nothing serves.
    """
    url = status.get("url")
    if not url or not status.get("champion"):
        raise Failure(f"modelspec/{name} serves nothing yet; mainspring explain modelspec/{name} says why")
    return str(url)


def _rows(rows: list[str]) -> tuple[bytes, str]:
    parsed = []
    for text in rows:
        value = _json(text, "--row")
        if not isinstance(value, dict):
            raise Failure(f"--row: a JSON object of columns is wanted, not {text[:60]}", code=USAGE)
        parsed.append(value)
    return json.dumps({"dataframe_records": parsed}).encode(), JSON_TYPE


def _file(name: str) -> tuple[bytes, str]:
    """Read rows: CSV as it is; JSON in one of MLflow's forms, a list of rows, or one row."""
    if name != "-" and not Path(name).is_file():
        raise Failure(f"{name} is no file", code=USAGE)
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    is_json = name.lower().endswith(".json") or (
        not name.lower().endswith(".csv") and content.lstrip()[:1] in (b"{", b"[")
    )
    if not is_json:
        return content, CSV_TYPE
    value = _json(content.decode("utf-8", "replace"), name)
    if isinstance(value, dict) and any(form in value for form in FORMS):
        return content, JSON_TYPE
    rows = value if isinstance(value, list) else [value]
    form = "dataframe_records" if all(isinstance(r, dict) for r in rows) else "instances"
    return json.dumps({form: rows}).encode(), JSON_TYPE


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(f"{where}: not JSON: {error}", code=USAGE) from None


def direct(url: str, who: str) -> Ask:
    """Return what posts rows to an address; `who` must run for anybody to answer there."""

    async def ask(body: bytes, media: str, timeout_s: float) -> httpx.Response:
        import httpx

        try:
            # No proxy: local mode's router listens on this machine.
            async with httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
                return await client.post(url, content=body, headers={"content-type": media})
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise Failure(f"{url} does not answer ({what}); is {who} running?") from None

    return ask


def _answer(response: httpx.Response, output: Form) -> None:
    """Print the predictions and who made them.

    Raises:
        Failure: the server refused; with its message.
    """
    try:
        content = response.json()
    except ValueError:
        content = response.text[:500]
    if not response.is_success:
        said = content.get("message", content) if isinstance(content, dict) else content
        raise Failure(" ".join(f"the server says {response.status_code}: {said}".split()))
    by = {name: response.headers.get(f"x-mainspring-{name}", "") for name in HEADERS}
    predictions = content.get("predictions", content) if isinstance(content, dict) else content
    if output is Form.JSON:
        say_json({"predictions": predictions, **by})
        return
    values = predictions if isinstance(predictions, list) else [predictions]
    say(*(v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values))
    version = f" version {by['version']}" if by["version"] else ""
    say(f"from {by['revision'] or 'an unnamed revision'}{version}, commit {by['commit'] or 'unknown'}")
