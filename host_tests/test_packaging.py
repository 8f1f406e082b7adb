"""The wheel: it carries every template, and from an empty folder it emits the checkout's bytes."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from edgebnn import __version__, api
from edgebnn.codegen.env import resource_dir
from edgebnn.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples" / "models").glob("*.pt"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it.

    In an environment of its own: that of the tests has no build backend.
    """
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(folder), str(wheel)], check=True, timeout=120)
    return folder


def from_wheel(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in ``folder``, with the wheel's edgebnn before the checkout's."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.parametrize("kind", ["templates", "firmware"])
def test_wheel_carries_every_template(kind: str, wheel: Path) -> None:
    folder = resource_dir(kind)
    wanted = {
        f"edgebnn/_data/{kind}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".pio", "__pycache__"} & set(path.parts)
    }
    assert len(wanted) > 5
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"edgebnn/_data/{kind}/")
        }
    assert packed == wanted


def test_wheel_carries_the_package_and_nothing_of_the_checkout(wheel: Path) -> None:
    package = ROOT / "edgebnn"
    modules = {f"edgebnn/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert modules | {"edgebnn/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"edgebnn", f"edgebnn-{__version__}.dist-info"}
    assert f"edgebnn-{__version__}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if name.endswith((".pt", ".pyc"))]


def test_sdist_carries_what_its_makefile_needs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "Makefile", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert "constraints.txt" in names  # make installs with it
    for folder in ("edgebnn", "templates", "firmware", "host_tests", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in names


_GENERATE = """
import sys
from pathlib import Path
import edgebnn, edgebnn.targets
assert Path(edgebnn.__file__).is_relative_to(sys.argv[1]), edgebnn.__file__
from edgebnn.codegen.env import resource_dir
assert resource_dir("templates").is_relative_to(sys.argv[1])
for model in sys.argv[2:]:
    for target in edgebnn.targets.TARGETS:
        library = edgebnn.generate(model, target=target, name="net")
        edgebnn.write(library, Path(Path(model).stem) / target)
"""


def test_installed_wheel_emits_the_checkouts_bytes(installed: Path, tmp_path: Path) -> None:
    assert EXAMPLES
    from_wheel(installed, tmp_path, "-c", _GENERATE, str(installed), *map(str, EXAMPLES))
    for model in EXAMPLES:
        for target in TARGETS:
            root = tmp_path / model.stem / target
            emitted = {
                path.relative_to(root).as_posix(): path.read_bytes()
                for path in root.rglob("*")
                if path.is_file()
            }
            library = api.generate(model, target=target, name="net")
            assert emitted == {name: text.encode() for name, text in library.files.items()}


def test_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    assert (installed / "bin" / "edgebnn").is_file()
    done = from_wheel(installed, tmp_path, str(installed / "bin" / "edgebnn"), "--version")
    assert done.stdout == f"edgebnn {__version__}\n"
