"""``tilesegment check``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tilesegment_cli.options import foreign_options, human_bytes, json_option

if TYPE_CHECKING:
    from tilesegment.config import ForeignOptions
    from tilesegment.geometry import Sides
    from tilesegment.usecases.check import CheckReport, TileCost


@click.command(
    epilog="""\b
Examples:
  tilesegment check nuclei
  tilesegment check my.safetensors --image slide.zarr
  tilesegment check my.safetensors --json
  tilesegment check network.onnx
"""
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--image",
    type=click.Path(),
    help="OME-Zarr image on whose middle the precisions are compared; default: a random texture.",
)
@foreign_options
@json_option
def check(model: str, image: str | None, foreign: "ForeignOptions", as_json: bool) -> None:
    """Run MODEL and report its border, alignment, sizes and costs.

    MODEL is a model file, the name of a bundled model, or a foreign network: ONNX, a bioimage.io
    folder, TorchScript, .pt2, or module:factory. The border is proved: not-a-number at
    a pixel reaches every output that depends on it. A network without a finite border is
    reported with what makes it so; that is no error.
    """
    from tilesegment.usecases.check import check as run_check

    report = run_check(model, image=image, foreign=foreign)
    click.echo(json.dumps(_facts(report)) if as_json else _text(report))


def _facts(report: "CheckReport") -> dict[str, Any]:
    measured = report.measured
    geometry = measured.geometry if measured.local else None
    return {
        "model": report.name,
        "local": measured.local,
        "reasons": list(measured.reasons),
        "border": _one_or_all(measured.border),
        "alignment": measured.legal_step if measured.local else None,
        "halo": geometry.halo if geometry else None,
        "field": _one_or_all(measured.field),
        "effective_border": report.effective_border,
        "proved": measured.proved,
        "difference": measured.difference,
        "smallest_input": measured.smallest_input,
        "legal_step": measured.legal_step,
        "fixed_size": measured.fixed_size,
        "period": list(measured.period),
        "offset": list(measured.offset),
        "loss": list(measured.loss),
        "channels": report.channels,
        "outputs": measured.outputs,
        "classes": list(report.classes),
        "parameters": report.cost.parameters,
        "multiply_adds_per_pixel": report.cost.multiply_adds,
        "memory_bytes_per_pixel": report.cost.memory_bytes,
        "tiles": [asdict(tile) for tile in report.tiles],
        "changed_labels": report.changed_labels,
        "remarks": list(measured.remarks),
    }


def _one_or_all(sides: "Sides | None") -> int | dict[str, int] | None:
    """One number where all sides agree."""
    if sides is None:
        return None
    return sides.top if len(set(asdict(sides).values())) == 1 else asdict(sides)


def _text(report: "CheckReport") -> str:
    return "\n".join(f"{name and name + ':':<12}{value}" for name, value in _rows(report))


def _rows(report: "CheckReport") -> list[tuple[str, str]]:
    measured, cost = report.measured, report.cost
    rows = [
        ("Model", report.name),
        ("Input", f"{report.channels} channel(s), {_sizes(report)}"),
        ("Output", _output(report)),
    ]
    if measured.local:
        rows += _local_rows(report)
    else:
        rows += [("Local", "no"), *(("", reason) for reason in measured.reasons)]
    rows.append(("Effective", f"99.9 % of a pixel's effect within {report.effective_border} px"))
    if cost.parameters is not None:
        rows.append(("Parameters", f"{cost.parameters:,}"))
    if cost.multiply_adds is not None:
        rows.append(("Arithmetic", f"{cost.multiply_adds:,.0f} multiply-adds per pixel"))
    if cost.memory_bytes is not None:
        rows.append(
            ("Memory", f"{cost.memory_bytes:.0f} bytes of input and feature maps per pixel")
        )
    rows += [("Tiles" if not index else "", _tile(tile)) for index, tile in enumerate(report.tiles)]
    rows += [
        (name, f"changes {share:.3%} of the labels of float32 on {report.samples}")
        for name, share in report.changed_labels.items()
    ]
    return rows + [("Remark", remark) for remark in measured.remarks]


def _sizes(report: "CheckReport") -> str:
    measured = report.measured
    if measured.fixed_size is not None:
        return f"{measured.fixed_size} px per side only"
    if measured.legal_step == 1:
        return f"any size from {measured.smallest_input} px"
    sizes = [measured.smallest_input + index * measured.legal_step for index in range(3)]
    return f"sizes {', '.join(map(str, sizes))}, ... px"


def _output(report: "CheckReport") -> str:
    loss = report.measured.loss
    size = "as large as the input" if loss == (0, 0) else f"{loss.y} x {loss.x} px smaller"
    names = f" ({', '.join(report.classes)})" if report.classes else ""
    return f"{report.measured.outputs} channel(s){names}, {size}"


def _local_rows(report: "CheckReport") -> list[tuple[str, str]]:
    measured = report.measured
    how = "proved" if measured.proved else "not proved"
    return [
        ("Local", "yes"),
        ("Border", f"{_sides(measured.border)}, {how}"),
        ("Field", f"{_sides(measured.field)} at the worst position on the grid"),
        ("Alignment", f"{measured.legal_step} px"),
        ("Halo", f"{measured.geometry.halo} px per side"),
        (
            "Confirmed",
            f"tiles differ by {measured.difference:.1g} of the largest output from the "
            "same pixels in a larger context",
        ),
    ]


def _sides(sides: "Sides | None") -> str:
    one = _one_or_all(sides)
    if isinstance(one, dict):
        return ", ".join(f"{pixels} px {side}" for side, pixels in one.items())
    return f"{one} px on every side"


def _tile(tile: "TileCost") -> str:
    memory = f", {human_bytes(tile.memory_bytes)}" if tile.memory_bytes is not None else ""
    return (
        f"{tile.tile} px: input {tile.input} px, computes {tile.compute_amplification:.2f} x the "
        f"pixels{memory}"
    )
