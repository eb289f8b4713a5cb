"""The table of commands and the conversion of errors to messages and exit codes.

Heavy imports happen inside the commands, so that ``--help`` is fast. To add a command, add a file
to this folder and a row to `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated, NoReturn

import typer

from medseg.cli.augment import augment
from medseg.cli.batch import batch
from medseg.cli.check import check
from medseg.cli.compare import compare
from medseg.cli.convert import convert
from medseg.cli.demo import demo
from medseg.cli.ensemble import ensemble
from medseg.cli.evaluate import evaluate
from medseg.cli.examples import help_of
from medseg.cli.export import export
from medseg.cli.import_model import import_model
from medseg.cli.import_weights import import_weights
from medseg.cli.info import info
from medseg.cli.job import job
from medseg.cli.learn_curve import learn_curve
from medseg.cli.manifest import manifest
from medseg.cli.measure import measure
from medseg.cli.models import models
from medseg.cli.output import print_error, print_notice
from medseg.cli.phantom import phantom
from medseg.cli.plan import plan
from medseg.cli.preview import preview
from medseg.cli.rank import rank
from medseg.cli.recipe import recipe
from medseg.cli.report import report
from medseg.cli.segment import segment
from medseg.cli.serve import serve
from medseg.cli.train import train
from medseg.cli.tune import tune
from medseg.cli.view import view
from medseg.errors import MedsegError, UsageError
from medseg.system.error_conversion import as_medseg_error
from medseg.system.memory import raise_thresholds
from medseg.system.notices import RESEARCH, collect_notices

app = typer.Typer(
    help=f"Turn CT and MR scans into checked segmentation masks.\n\n{RESEARCH}\n\n"
    "Exit codes: 0 success, 1 some cases failed, 2 usage error, 3 input refused, 4 model refused, "
    "5 out of memory or disk space.\n\n"
    "No scan at hand? `medseg phantom phantom_data --cases 1` makes one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130

COMMANDS: dict[str, Callable[..., None]] = {
    "segment": segment,
    "batch": batch,
    "job": job,
    "manifest": manifest,
    "check": check,
    "plan": plan,
    "train": train,
    "tune": tune,
    "evaluate": evaluate,
    "compare": compare,
    "measure": measure,
    "preview": preview,
    "view": view,
    "serve": serve,
    "report": report,
    "rank": rank,
    "learn-curve": learn_curve,
    "augment": augment,
    "convert": convert,
    "info": info,
    "models": models,
    "demo": demo,
    "phantom": phantom,
    "recipe": recipe,
    "ensemble": ensemble,
    "export": export,
    "import-model": import_model,
    "import-weights": import_weights,
}
for _name, _command in COMMANDS.items():
    app.command(_name, help=help_of(_name, cleandoc(_command.__doc__ or "")))(_command)


@app.callback(invoke_without_command=True)
def _first(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from medseg.system.own_version import own_version

        print(f"medseg {own_version()}")
        raise typer.Exit
    context.with_resource(collect_notices(show=print_notice))


def run() -> None:
    """Runs the command in ``sys.argv`` and exits with its code; errors are printed."""
    raise_thresholds()
    # Numpy's products are too small to share among threads, which would wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # library warnings are for developers
    try:
        code = app(standalone_mode=False)
    except MedsegError as error:
        _fail(error, error.exit_code)
    except Exception as error:
        # Errors of the parser; depending on its version, typer uses click or a copy of it.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            named = as_medseg_error(error)
            if named.reason == "unexpected":
                raise
            _fail(named, named.exit_code)
        else:
            known = [word for word in sys.argv[1:2] if word in COMMANDS]
            remedy = f"{' '.join(['medseg', *known, '--help'])} shows the valid arguments and options"
            _fail(UsageError(format_message(), remedy=remedy, reason="usage"), 2)
    if code == INTERRUPTED:  # typer's replacement for KeyboardInterrupt
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: MedsegError, code: int) -> NoReturn:
    print_error(error, code)
    sys.exit(code)
