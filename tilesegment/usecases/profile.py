"""`run --profile`: where the time of a run went."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tilesegment.errors import OutputError
from tilesegment.profiling import Profile, WorkerTimes, draw_profile, summarise_times

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
    times: Mapping[str, WorkerTimes] = {}
    try:
        with timed(client) as times:
            yield
    finally:
        # Of a run that stopped too: where its time went may be why.
        _write(folder, summarise_times(times))


def _write(folder: Path, profile: Profile) -> None:
    (folder / "profile.json").write_text(json.dumps(profile.as_json(), indent=2) + "\n")
    (folder / "profile.svg").write_text(draw_profile(profile))
