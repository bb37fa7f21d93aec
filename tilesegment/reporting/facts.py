"""What the report tells, worked out of a label image's provenance: names and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilesegment.colours import RGB
from tilesegment.config import is_exact
from tilesegment.geometry import Spacing

Row = tuple[str, str]
"""A name and a text."""

_AREAS_UM2 = (("km²", 1e18), ("ha", 1e16), ("m²", 1e12), ("mm²", 1e6), ("µm²", 1.0))
_LARGEST_SHOWN = 10
"""Quarantined tiles that are named."""


@dataclass(frozen=True)
class ClassRow:
    """One class in the table."""

    name: str
    colour: RGB
    share: float
    pixels: int
    area: str
    """Empty where the pixel size is unknown."""


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    title: str
    rows: tuple[Row, ...]


def area_text(um2: float) -> str:
    """An area as people read it.

    >>> area_text(2_500_000), area_text(12.0)
    ('2.5 mm²', '12 µm²')
    """
    unit, size = next((item for item in _AREAS_UM2 if um2 >= item[1]), _AREAS_UM2[-1])
    return f"{um2 / size:,.3g} {unit}" if um2 / size < 1000 else f"{um2 / size:,.0f} {unit}"


def duration_text(seconds: float) -> str:
    """A duration as people read it.

    >>> duration_text(4.04), duration_text(3700)
    ('4.0 s', '1 h 2 min')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def class_rows(
    shares: Mapping[str, float], colours: Mapping[str, RGB], pixels: int, size: Spacing | None
) -> list[ClassRow]:
    """The classes with what they cover.

    Args:
        shares: of the pixels, by name.
        colours: by name.
        pixels: of the level that was segmented.
        size: of one of them, micrometres; None if unknown.
    """
    return [
        ClassRow(
            name,
            colours.get(name, (0, 0, 0)),
            share,
            round(share * pixels),
            "" if size is None else area_text(share * pixels * size.y * size.x),
        )
        for name, share in shares.items()
    ]


def headline(summary: Mapping[str, Any], pixels: int) -> list[Row]:
    """The numbers at the top."""
    return [
        ("megapixels", f"{pixels / 1e6:,.1f}"),
        ("tiles", f"{summary['tiles']:,}"),
        ("from first tile to last level", duration_text(summary["seconds"])),
        ("megapixels per second", f"{summary['megapixels_per_second']:.2f}"),
    ]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must not overlook."""
    failed = summary["quarantined"]
    if not failed:
        return []
    named = "; ".join(
        f"rows {place['rows'][0]} to {place['rows'][1]}, columns {place['columns'][0]} to "
        f"{place['columns'][1]} of plane {place['plane']}: {place['reason']}"
        for place in failed[:_LARGEST_SHOWN]
    )
    return [f"{len(failed)} tiles failed everywhere and are background ({named})."]


def tile_section(summary: Mapping[str, Any]) -> Section:
    """How many tiles, and what became of them."""
    counts = [
        ("computed by the network", summary["computed"]),
        ("finished by an earlier run", summary["skipped"]),
        ("of one value, computed once", summary.get("reused", 0)),
        ("outside the mask, or without data", summary.get("masked", 0)),
        ("failed everywhere, background", len(summary["quarantined"])),
    ]
    rows = [(name, f"{count:,}") for name, count in counts if count]
    return Section("Tiles", (("in all", f"{summary['tiles']:,}"), *rows))


def seam_section(verified: int, workers: Mapping[str, Any]) -> Section:
    """What is known of the seams.

    Args:
        verified: windows that were computed again.
        workers: of the run, as its provenance tells of them.
    """
    if not verified:
        text = (
            "Not asked for with this run. `tilesegment verify` computes random windows of the "
            "labels again, otherwise than the run did, and compares each label."
        )
        return Section("Seam check", (("windows", text),))
    text = f"{verified} windows were computed again, from a wider context and another origin"
    exact = is_exact(workers["device"], workers["precision"])
    equal = "no label differs" if exact else "at most 1 label in 1000 differs"
    return Section("Seam check", (("windows", text), ("found", equal)))


def plan_section(made: Mapping[str, Any], pixel_size: Spacing | None) -> Section:
    """How the run was cut."""
    plan, options = made["plan"], made["options"]
    size = "" if pixel_size is None else f", {pixel_size.y:g} x {pixel_size.x:g} µm per pixel"
    rows = [
        ("level", f"{plan['level']}{size} ({plan['reason']})"),
        ("tile", f"{plan['tile']} px"),
        ("halo", f"{plan['halo']} px per side"),
        ("precision", made["fingerprint"]["precision"]),
    ]
    if plan["resampled_by"]:
        rows.append(("resampled", _pixels(plan["resampled_by"])))
    if plan["blend"]:
        blend = plan["blend"]
        rows.append(("windows", f"{blend['window']} px every {blend['step']}, {blend['kind']}"))
    if options["average"] > 1:
        rows.append(("views", f"{options['average']}, averaged"))
    if options["mask"] != "none":
        rows.append(("mask", options["mask"]))
    rows += _refinement_rows(plan.get("refinement"))
    if options.get("probabilities"):
        rows.append(("probabilities", "stored beside the labels"))
    return Section("Plan", tuple(rows))


def _pixels(step: Sequence[float]) -> str:
    return f"{step[0]:.4g} x {step[1]:.4g} px of the level to one that the network is shown"


def _refinement_rows(refinement: Mapping[str, Any] | None) -> list[Row]:
    if not refinement:
        return []
    rows = []
    if refinement["smooth"]:
        rows.append(("smoothing", f"Gaussian, {refinement['smooth']:g} px"))
    if refinement["crf"]:
        crf = refinement["crf"]
        rows.append(("CRF", f"{crf['iterations']} iterations, contrast {crf['contrast']:g}"))
    if refinement["class thresholds"]:
        named = ", ".join(f"class {number}: {p:g}" for number, p in refinement["class thresholds"])
        rows.append(("thresholds", named))
    return rows


def version_section(made: Mapping[str, Any], versions: Mapping[str, str]) -> Section:
    """With what it was made."""
    workers = made["workers"]
    rows = [
        ("model", f"{made['model']} ({made['fingerprint']['model']})"),
        ("tilesegment", made["version"]),
        ("workers", f"{workers['device']}, {workers['capability']}, torch {workers['torch']}"),
        *((name, text) for name, text in versions.items()),
    ]
    return Section("Versions", tuple(rows))
