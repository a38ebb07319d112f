"""`mainspring`: the verbs, their help, and how errors reach people.

A verb's module is imported when the verb is used and not before, so that help and completion stay quick.  No
traceback reaches a person unless MAINSPRING_DEBUG is set.  Nothing about models is decided here.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from controller import __version__
from controller.cli import place
from controller.cli.errors import EXIT_CODES, USAGE, WRONG, Failure


class Verb(NamedTuple):
    """One verb: where its function is, and its line in the help."""

    name: str
    group: str
    module: str
    summary: str


VERBS: Final = (
    Verb("demo", "Start here", "demo", "See the whole loop on this machine, with a model of its own."),
    Verb("up", "Start here", "verbs", "Run local mode in the foreground: controller, jobs, servers, MLflow."),
    Verb("operator", "Start here", "operator", "Run the operator of a cluster; its settings are MAINSPRING_*."),
    Verb("validate", "Write", "validate", "Check YAML files of Mainspring without a cluster."),
    Verb("plan", "Write", "plan", "Show what would be done, and why; change nothing."),
    Verb("apply", "Write", "apply", "Create or change objects from files."),
    Verb("get", "Look", "get", "List objects."),
    Verb("explain", "Look", "explain", "Say what serves, why it was let through, and what blocks."),
    Verb("gates", "Look", "gates", "Say what every gate asks, what was measured, and how it judges."),
    Verb(
        "compare",
        "Look",
        "compare",
        "Show two revisions side by side: code, data, settings, numbers.",
    ),
    Verb("trace", "Look", "trace", "Follow one model from commit and data to its servers, and back."),
    Verb("history", "Look", "history", "List every decision about a model, from its signed ledger."),
    Verb("logs", "Look", "logs", "Show what training steps or servers have written."),
    Verb("doctor", "Look", "doctor", "Check what Mainspring needs, and say what to do."),
    Verb("predict", "Use", "predict", "Ask the served model."),
    Verb("predictions", "Use", "predictions", "Read the log of its predictions: the last, how many, a file."),
    Verb("rollback", "Steer", "override", "Serve a former champion at once, for a while; then Git rules again."),
    Verb("promote", "Steer", "override", "Make what passed its gates champion without the rest of its canary."),
    Verb("abort", "Steer", "override", "Take what is on its way out of the requests, for a while."),
    Verb("reconcile", "Steer", "reconcile", "Ask for a look at once; also tries again what was given up."),
    Verb("suspend", "Steer", "suspend", "Stop deciding for an object; what serves goes on serving."),
    Verb("resume", "Steer", "suspend", "Go on deciding for a suspended object."),
)
"""All verbs, in the order of the help. The function is `<name>_command` in `controller/cli/<module>.py`."""


class Verbs(TyperGroup):
    """The group of all verbs, each imported on first use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Name the verbs without importing any."""
        return [v.name for v in VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import the verb's module and build its command; None when there is no such verb."""
        verb = next((v for v in VERBS if v.name == cmd_name), None)
        if verb is None:
            # Suggestions for a mistyped verb are looked up among the commands that are known.
            for known in VERBS:
                self.commands.setdefault(known.name, None)  # type: ignore[arg-type]
            return None
        module = import_module(f"controller.cli.{verb.module}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = getattr(module, f"{verb.name}_command")
        single.command(verb.name, help=None)(place.offered(verb.name, function))
        command = get_command(single)
        command.name = verb.name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the verbs in their groups."""
        for group in dict.fromkeys(v.group for v in VERBS):
            with formatter.section(group):
                formatter.write_dl([(v.name, v.summary) for v in VERBS if v.group == group])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what goes wrong becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if os.environ.get("MAINSPRING_DEBUG") or isinstance(error, typer.Abort | BrokenPipeError):
                raise
            if hasattr(error, "exit_code"):  # the library's own: usage errors and Exit
                raise
            message, code = describe(error)
            typer.echo(f"error: {message}", err=True)
            raise typer.Exit(code) from None


def describe(error: Exception) -> tuple[str, int]:
    """Say what an exception means to a person: one line, and the exit code."""
    from controller.clients.errors import ClientError

    if isinstance(error, Failure):
        return error.message, error.code
    if isinstance(error, ClientError):
        return _one_line(error.message), WRONG
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", WRONG
    if type(error) is ValueError:
        return _one_line(str(error)), WRONG
    hint = "set MAINSPRING_DEBUG=1 to see where, and please report it"
    return f"{type(error).__name__}: {_one_line(str(error)) or 'no message'} (a bug in Mainspring; {hint})", WRONG


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _epilog() -> str:
    codes = "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES)
    more = (
        "Every verb has --help. MAINSPRING_STATE names the state directory; MAINSPRING_DEBUG=1 shows tracebacks."
    )
    where = (
        "Verbs work on the local state directory if there is one, else on the cluster of the kubeconfig; "
        "--state, --kubeconfig and --context choose. `kubectl mainspring` works on the cluster."
    )
    return f"\b\nExit codes:\n{codes}\n\n{where}\n\n{more}"


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"mainspring {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="mainspring",
    cls=Verbs,
    help="Makes the models that are served match what Git asks for, and shows why.",
    epilog=_epilog(),
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def main() -> None:
    """Run the command line; the entry point of the package."""
    try:
        app(prog_name="kubectl mainspring" if place.as_plugin() else "mainspring")
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): that is no error, and the flush at exit must not say one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(USAGE - 1) from None
