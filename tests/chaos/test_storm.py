"""The storm, for as long as CI has patience; docs/reliability.md has the figures of long ones."""

from pathlib import Path

import pytest

from tests.chaos.storm import storm


@pytest.mark.parametrize("noisy", [False, True])
def test_a_short_storm_leaves_no_wrong_output(noisy: bool, tmp_path: Path) -> None:
    findings = storm(tmp_path, kills=6, seconds=60, seed=1, noisy=noisy, commands=False)
    assert findings.rounds
    assert findings.wrong_outputs == 0
    assert findings.unfinished_sightings == 0
    assert findings.executions <= findings.executions_bound
