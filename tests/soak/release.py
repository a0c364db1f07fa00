"""The wheel in a bare environment, outside the checkout: README's commands and its Python.

The sdist and the wheel are built and checked by twine. The wheel is installed with the oldest
dependencies that pyproject.toml admits, then with the newest; in a folder with a few phantoms the
commands of README's "Your own scans" are typed, and its Python is run. Trainings are short.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.commands import ROOT
from tests.soak.versions import oldest

# Added to a training: no weights can be downloaded everywhere, and the last --max-minutes counts.
SHORT = "--encoder-weights none --set model.encoder=resnet18 --epochs 2 --max-minutes 1"
CASE = "data/phantoms/BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData/BraTS20_Training_001"


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak release")
    parser.add_argument("--only", choices=["oldest", "newest"])
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter")
    parser.add_argument("--folder", type=Path, help="where environments are made (6 GB each)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="brats release ") as name:
        folder = Path(name)
        wheel = build(folder, options.python)
        for which in [options.only] if options.only else ["oldest", "newest"]:
            home = folder / which
            home.mkdir()
            environment = install(home / "venv", options.python, wheel, which)
            try_it(home, environment)
            print(f"{which}: README's commands work from the wheel", flush=True)


def build(folder: Path, python: Path) -> Path:
    """Builds sdist and wheel, the wheel from the sdist; twine checks both. Returns the wheel."""
    tools = folder / "tools" / "bin" / "python"
    run([python, "-m", "venv", folder / "tools"])
    run([tools, "-m", "pip", "install", "--quiet", "build", "twine"])
    source = folder / "source"  # a clone: no build leaves its folders in the checkout
    run(["git", "clone", "--quiet", ROOT, source])
    run([tools, "-m", "build", "--outdir", folder / "dist", source])
    made = sorted((folder / "dist").iterdir())
    run([tools, "-m", "twine", "check", "--strict", *made])
    (wheel,) = (path for path in made if path.suffix == ".whl")
    return wheel


def install(venv: Path, python: Path, wheel: Path, which: str) -> dict[str, str]:
    """Installs the wheel alone into a new environment. Returns the variables that enter it."""
    run([python, "-m", "venv", venv])
    limits = venv / "constraints.txt"
    limits.write_text("\n".join(oldest()) if which == "oldest" else "")
    inside = venv / "bin" / "python"
    run([inside, "-m", "pip", "install", "--quiet", "--constraint", limits, wheel])
    listed = subprocess.check_output([inside, "-m", "pip", "freeze"], text=True)
    print(f"{which}: {' '.join(listed.split())}", flush=True)
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**own, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}


def try_it(home: Path, environment: dict[str, str]) -> None:
    """Types README's commands in `home`, and runs its Python there."""
    phantoms = "brats phantom data/phantoms --cases 8 --test-cases 0 --shape 64,64,40 --seed 1"
    run(shlex.split(phantoms), cwd=home, env=environment)
    for words in commands((ROOT / "README.md").read_text()):
        run(words, cwd=home, env=environment)
    for number, script in enumerate(scripts((ROOT / "README.md").read_text())):
        (home / f"script{number}.py").write_text(script)
        run(["python", f"script{number}.py"], cwd=home, env=environment)


def commands(readme: str) -> Iterator[list[str]]:
    """The commands of "Your own scans", with names that exist and short trainings."""
    section = re.search(r"^## Your own scans\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    assert section
    blocks = re.findall(r"^```\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 8, lines
    for line in lines:
        words = shlex.split(with_names(line), comments=True)
        if words[0] == "torchrun":  # as README has it for another folder than the checkout
            words.insert(1, "--no-python")
        if "view" in words:  # a page, instead of a server that runs until Ctrl-C
            words += ["--out", "view.html"]
        yield words + (shlex.split(SHORT) if "train" in words else [])


def scripts(readme: str) -> list[str]:
    """README's blocks of Python."""
    found = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert len(found) == 3
    return [with_names(script) for script in found]


def with_names(text: str) -> str:
    """The case and its mask that README only stands for."""
    mask = f"predictions/{Path(CASE).name}.nii.gz"
    return text.replace("predictions/case.nii.gz", mask).replace("path/to/case", CASE)


def run(words: Sequence[object], **options: object) -> None:
    print("$", shlex.join(map(str, words)), flush=True)
    subprocess.run([str(word) for word in words], check=True, **options)  # type: ignore[call-overload]
