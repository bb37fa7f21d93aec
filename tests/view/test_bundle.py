"""The libraries that are committed are those that the lock file names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tilesegment.view.server import PAGE

SOURCES = PAGE.with_name("bundle")
VENDOR = PAGE / "vendor"


def test_the_bundle_is_up_to_date(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here")
    sources = shutil.copytree(
        SOURCES, tmp_path / "bundle", ignore=shutil.ignore_patterns("node_modules")
    )
    installed = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=sources, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    if "ENOTFOUND" in installed.stderr or "ECONNREFUSED" in installed.stderr:
        pytest.skip("npm reaches no registry")
    assert installed.returncode == 0, installed.stderr
    made = tmp_path / "made"
    made.mkdir()
    command = [npm, "run", "build", "--", str(made)]
    subprocess.run(command, cwd=sources, capture_output=True, timeout=120, check=True)
    new, committed = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (made, VENDOR)
    )
    assert new.keys() == committed.keys()
    stale = [name for name in new if new[name] != committed[name]]
    assert not stale, "run in tilesegment/view/bundle: npm ci && npm run build"


def test_the_lock_file_names_no_registry_and_exact_versions() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    package = json.loads((SOURCES / "package.json").read_text())
    wanted = {**package["dependencies"], **package["devDependencies"]}
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


def test_every_bundled_package_has_its_licence() -> None:
    licences = (VENDOR / "LICENCES.txt").read_text()
    for package in ("ol", "zarrita", "@zarrita/storage", "numcodecs", "rbush", "quickselect"):
        assert re.search(rf"^{re.escape(package)} \d+\.\d+\.\d+ \(", licences, re.MULTILINE)


def test_our_own_modules_import_only_each_other_and_the_bundle() -> None:
    for module in PAGE.glob("*.js"):
        for target in re.findall(r"from '([^']+)'", module.read_text()):
            assert (PAGE / target).resolve().is_relative_to(PAGE)
            assert (PAGE / target).is_file(), f"{module.name} imports {target}"
