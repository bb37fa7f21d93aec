"""The images and the compose file: linted, agreeing with each other, their steps run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tilesegment

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("FROM "):
            current = found.setdefault(line.split()[-1], [])
        current.append(line)
    return found


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


@pytest.mark.skipif(not HADOLINT.exists(), reason="lints with hadolint, which is not here")
def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    assert subprocess.run([HADOLINT, DOCKERFILE], check=False).returncode == 0
    planted = tmp_path / "Dockerfile"
    planted.write_text("FROM python\nRUN apt-get install curl\n")
    result = subprocess.run([HADOLINT, planted], capture_output=True, check=False)
    assert result.returncode == 1


def test_every_base_and_every_torch_has_a_version() -> None:
    names = set(stages())
    for lines in stages().values():
        image = lines[0].split()[1]
        assert image in names or re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", image)
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert set(re.findall(r"torch==([\d.]+)", DOCKERFILE.read_text())) == {pinned[1]}


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_nothing_runs_as_root_and_the_program_is_there(target: str) -> None:
    everything = stages()
    assert everything[target][0] == f"FROM runtime AS {target}"
    assert f"COPY --from=build-{target} /opt/tilesegment /opt/tilesegment" in everything[target]
    runtime = everything["runtime"]
    assert "USER 1000:1000" in runtime
    assert any(line.startswith("HEALTHCHECK") for line in runtime)
    assert not any(line.startswith("USER") for line in everything[target])


def test_what_the_installation_reads_is_not_ignored() -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text()
    kept = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    assert {path for path in kept if not (ROOT / path).exists()} == set()
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tilesegment",
        "cli",
        "constraints.txt",
    } <= kept


def test_the_services_fit_together() -> None:
    services = compose()["services"]
    assert set(services) == {"scheduler", "worker", "run"}
    for service in services.values():
        assert service["image"] == f"tilesegment:{tilesegment.__version__}"
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert service["build"]["target"] in stages()
        assert service["networks"] == ["workers"]
        assert "ports" not in service
    assert compose()["networks"]["workers"]["internal"]
    assert services["worker"]["volumes"] == services["run"]["volumes"]
    assert "tcp://scheduler:8786" in services["worker"]["command"]
    assert "tcp://scheduler:8786" in services["run"]["command"]


@pytest.mark.slow
def test_the_steps_of_the_image_make_a_program_that_runs(tmp_path: Path) -> None:
    """Without Docker: the RUN steps of the CPU image, with its folders moved to a place of ours."""
    source, program = tmp_path / "source", tmp_path / "opt"
    for name in ("cli", "tilesegment"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", "LICENSE", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "TORCH_INDEX": os.environ.get("TORCH_INDEX", "https://download.pytorch.org/whl/cpu"),
    }
    steps = [line for name in ("build", "build-cpu") for line in stages()[name]]
    for line in steps:
        if line.startswith("RUN "):
            step = line[4:].replace("/opt/tilesegment", str(program))
            step = step.replace("/source", str(source)).replace("python -m", f"{sys.executable} -m")
            subprocess.run(["bash", "-euc", step], env=environment, check=True)
    for words in (["--version"], ["models"]):
        command = [program / "bin" / "tilesegment", *words]
        assert subprocess.run(command, env=environment, cwd="/", check=False).returncode == 0
    shown = subprocess.run(
        [program / "bin" / "dask", "cuda", "worker", "--help"], env=environment, check=False
    )
    assert shown.returncode == 0
