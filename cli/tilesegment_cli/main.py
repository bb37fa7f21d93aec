"""The command line: one group, one module per command."""

import logging
import os
import sys

import click

from tilesegment import __version__
from tilesegment.errors import TilesegmentError
from tilesegment_cli.calibrate import calibrate
from tilesegment_cli.check import check
from tilesegment_cli.clean import clean
from tilesegment_cli.evaluate import evaluate
from tilesegment_cli.export import export
from tilesegment_cli.import_ import import_
from tilesegment_cli.info import info
from tilesegment_cli.models import models
from tilesegment_cli.objects import objects
from tilesegment_cli.plan import plan
from tilesegment_cli.run import run
from tilesegment_cli.settings import load_settings, with_source
from tilesegment_cli.train import train
from tilesegment_cli.verify import verify
from tilesegment_cli.view import view

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tilesegment")
@click.option(
    "--config",
    metavar="FILE",
    help="Settings: clusters by name, defaults of options. Otherwise tilesegment.toml of the "
    "working directory, or of the user's configuration folder.",
)
@click.pass_context
def tilesegment(context: click.Context, config: str | None) -> None:
    """Segment images of any size with a U-Net, exactly as one forward pass would.

    \b
    First steps:
      tilesegment import slide.svs slide.zarr
      tilesegment run slide.zarr
      tilesegment export slide.zarr overlay.png

    Every option can also be given as an environment variable, TILESEGMENT_RUN_CLUSTER=gpu, or in a
    settings file; what is typed comes first.
    """
    load_settings(context, config)


for command in (
    import_,
    info,
    plan,
    run,
    verify,
    clean,
    objects,
    export,
    view,
    check,
    models,
    train,
    calibrate,
    evaluate,
):
    tilesegment.add_command(command)


def main() -> None:
    """Entry point: errors become one line on stderr and the exit code of their kind."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    # They log what is odd in a file besides raising; the error alone is the one clear line.
    for library in ("tifffile", "rasterio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # Read when dask.distributed is imported, here and in the workers.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
    try:
        tilesegment(auto_envvar_prefix="TILESEGMENT", standalone_mode=False)
    except TilesegmentError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.BadParameter as error:
        with_source(error).show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(_INTERRUPTED)
