"""A checkout can be run, installed and published as it stands: launcher, dependencies, pins."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import brats_cache

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("brats_cache", "brats_train")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Where the name one imports is not the name one installs.
DISTRIBUTIONS = {
    "cc3d": "connected-components-3d",
    "cv2": "opencv-python-headless",
    "mlflow": "mlflow-skinny",
    "mpl_toolkits": "matplotlib",
    "PIL": "pillow",
    "yaml": "pyyaml",
}

# Each is written so that it does not match itself.
UNWELCOME = {
    "a registry's host": r"pypi\.(org|python)|pythonhosted\.|\.pytorch\.org/whl|conda\.org",
    "an index's option": r"--(extra-)?index[-]url|--find[-]links|PIP_(EXTRA_)?INDEX[_]URL",
    "a person's folder": r"(?<![\w.~])/(?:root|home/\w+|Users/\w+)/",
}


def run_python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def imported_names(package: str) -> set[str]:
    """The top-level names of all absolute imports in `package`, at module level or deeper."""
    names = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def requirements(*, development: bool) -> list[Requirement]:
    """Everything pyproject.toml asks for, with or without what only development needs."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"]]
    for extra, of_extra in extras.items():
        if development or extra != "dev":
            lines += of_extra
    named = [Requirement(line) for line in lines]
    return [each for each in named if each.name != PROJECT["name"]]  # an extra of its own extras


def read_pins() -> dict[str, Requirement]:
    """constraints.txt by canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras})


def test_launcher_is_the_command_line(tmp_path: Path) -> None:
    """`torchrun brats ...` runs `python -u brats ...`, from whatever folder."""
    launcher = ROOT / "brats"
    assert os.access(launcher, os.X_OK)
    result = run_python("-u", launcher, "--help", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "build-cache" in result.stdout


def test_launcher_costs_a_spawned_worker_nothing(tmp_path: Path) -> None:
    """multiprocessing runs the main script again in a spawned process, as `__mp_main__`."""
    program = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__mp_main__'); "
        f"sys.exit(bool({set(PACKAGES)} & sys.modules.keys()))"
    )
    result = run_python("-c", program, ROOT / "brats", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_launcher_completes_commands_and_values(tmp_path: Path) -> None:
    for words, wanted in (("brats tra", "train"), ("brats train --target ", "regions")):
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = subprocess.run(
            [sys.executable, ROOT / "brats"],
            env={**os.environ, **asked, "_BRATS_COMPLETE": "bash_complete"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"plain,{wanted}" in result.stdout.splitlines(), result.stderr


def test_launcher_without_the_libraries_says_what_to_do(tmp_path: Path) -> None:
    result = run_python("-S", ROOT / "brats", "--help", cwd=tmp_path)
    assert result.returncode == 1
    assert "pip install" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_declared_dependency(package: str) -> None:
    declared = {canonicalize_name(r.name) for r in requirements(development=False)}
    foreign = imported_names(package) - set(sys.stdlib_module_names) - set(PACKAGES)
    missing = {n for n in foreign if canonicalize_name(DISTRIBUTIONS.get(n, n)) not in declared}
    assert not missing


def test_messages_name_extras_that_can_be_installed() -> None:
    """From a checkout: no index has the project, and one has another of a similar name."""
    named = []
    for path in [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]:
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        named += re.findall(r"pip install (?:-c \S+ )?(.+?)(?: in the checkout)", text)
        assert text.count("pip install") == len(
            re.findall(r"pip install .+? in the checkout", text)
        )
    assert named
    extras = {extra for words in named for extra in re.findall(r"\[(\w+)\]", words)}
    assert {"tune", "onnx", "cluster"} <= extras <= PROJECT["optional-dependencies"].keys()


def test_cache_code_knows_nothing_of_training() -> None:
    assert not imported_names("brats_cache") & {"torch", "torchvision", "kornia", "brats_train"}


def test_cache_modules_do_not_load_torch() -> None:
    """Nor through a library: worker processes start in a blink."""
    modules = ", ".join(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "brats_cache").rglob("[!_]*.py"))
    )
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules and 'torch is loaded')"
    result = run_python("-c", program, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    pins = read_pins()
    for requirement in requirements(development=True):
        (pinned,) = pins[canonicalize_name(requirement.name)].specifier
        assert pinned.operator == "=="
        assert pinned.version in requirement.specifier, f"{requirement} but {pinned}"


def walk_installed(pins: dict[str, Requirement]) -> Iterator[str]:
    """Canonical names of what the project brings here, libraries of libraries too.

    A distribution installed at another version than its pin is not followed: what it brings is
    not what the pins were made from.
    """
    todo, seen = requirements(development=True), set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        try:
            found = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if key[0] in pins and found.version in pins[key[0]].specifier:
            below = [Requirement(line) for line in found.requires or []]
            todo += [each for each in below if applies(each, requirement.extras)]


def test_libraries_of_libraries_are_pinned() -> None:
    pins = read_pins()
    assert not set(walk_installed(pins)) - pins.keys()


def test_no_published_file_names_a_registry_or_a_persons_folder() -> None:
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(git, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout here, so nothing tells which files are published")
    offences = []
    for path in (ROOT / name for name in listing.split("\0") if name):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        for what, pattern in UNWELCOME.items():
            offences += [f"{path}: {what}: {m.group()}" for m in re.finditer(pattern, text)]
    assert not offences


def test_version_and_date_of_the_release_are_the_same_everywhere() -> None:
    changelog, citation = ((ROOT / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff"))
    version, date = re.findall(r"^## \[([\d.]+)\] - ([\d-]{10})$", changelog, re.MULTILINE)[0]
    assert version == brats_cache.__version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation


def test_the_wheel_holds_every_module_and_page(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    command = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", ".")
    result = run_python(*command, "--wheel-dir", tmp_path / "wheels", cwd=source)
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"brats_cache/py.typed", "brats_train/py.typed"} <= wanted
    assert not wanted - held
