"""The command line: one file per verb, each a thin shell over the public API.

stdout is data, stderr is talk. A failure is one message and an exit code; a traceback appears only
with ``--debug``.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import click

from snn_deploy.errors import Exit, SnnDeployError

# Verb: module and one-line help, so that `--help` imports no verb.
_VERBS = {
    "train": "Train a network from a recipe.",
    "check": "Hold a network against a chip's rules and limits; writes nothing.",
    "export": "Freeze, quantize and write a trained network for a target.",
    "inspect": "Show what is in an exported folder or a network file.",
    "sim": "Replay a recording through an exported network.",
    "energy": "Count operations and price them on a chip.",
    "diff": "Say where two stages of one network part first, and why.",
    "verify": "Check an exported folder, and its parity with the trained network.",
    "targets": "List targets and energy profiles.",
    "completion": "Print what makes bash, zsh or fish complete verbs and options.",
    "record": "Bin files of events into a recording.",
}


class _Verbs(click.Group):
    """Loads a verb's module only when that verb is run."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"snn_deploy.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="snn-deploy", prog_name="snn-deploy")
@click.option("--debug", is_flag=True, help="Show a traceback on failure.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Put a spiking neural network trained with ASGL on a neuromorphic chip, exactly."""
    context.obj = {"debug": debug}


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    debug = "--debug" in arguments
    try:
        code = cli.main(arguments, prog_name="snn-deploy", standalone_mode=False)
        return int(code or Exit.OK)
    except SnnDeployError as error:
        return _report(error, debug)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "sklearn"):
            raise
        missing = SnnDeployError(
            "SD107",
            f"this verb needs the package {error.name}",
            fix="pip install 'snn-deploy[train]' (the README says how to get a CPU build of torch)",
        )
        return _report(missing, debug)
    except MemoryError:
        return _report(SnnDeployError("SD500", "out of memory", fix="give fewer samples"), debug)
    except Exception as error:
        internal = SnnDeployError(
            "SD500",
            f"{type(error).__name__}: {error}",
            fix="this is a fault of snn-deploy: please report it with the output of --debug",
        )
        return _report(internal, debug)


def _report(error: SnnDeployError, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(error, file=sys.stderr)
    return error.exit
