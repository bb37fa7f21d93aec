"""`run --profile`: where the time of a run went."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tilesegment.errors import OutputError
from tilesegment.profiling import draw_profile, summarise_times

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def profiled(client: "Client", folder: str | Path | None) -> Iterator[None]:
    """Write profile.json and profile.svg of what the workers do inside the block; None: do not.

    Raises:
        OutputError: if nothing can be written there; before the block begins.
    """
    if folder is None:
        yield
        return
    from tilesegment.execution.timings import timed

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "profile.json").touch()
    except OSError as error:
        raise OutputError(f"cannot write the profile to {folder}: {error.strerror}") from error
    with timed(client) as times:
        yield
    profile = summarise_times(times)
    (folder / "profile.json").write_text(json.dumps(profile.as_json(), indent=2) + "\n")
    (folder / "profile.svg").write_text(draw_profile(profile))
