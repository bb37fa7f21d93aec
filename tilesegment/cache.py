"""What was measured once, kept in the user's cache folder under the hash of what decides it."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """A place for one measurement."""

    kind: str
    """Of the measurement: the name of its folder."""
    facts: Any
    """All that decides it, as JSON has it."""

    def remembered(self) -> Mapping[str, Any] | None:
        """What was found earlier; a damaged file is as good as none."""
        try:
            found = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def remember(self, found: Mapping[str, Any]) -> None:
        """Keep it for the next time, if there is a place for it."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps(found))
            partial.replace(self._file)

    @property
    def _file(self) -> Path:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()
        return Path(root) / "tilesegment" / self.kind / f"{digest}.json"
