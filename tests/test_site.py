"""The pages make a site without a warning, and it asks for nothing from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brats_train.cli.main import COMMANDS
from tests.commands import PATIENCE

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {path.parent.name for path in site.rglob("index.html")}
    assert pages >= {path.stem for path in (ROOT / "docs").rglob("*.md")}
    assert pages >= {"contributing", "changelog", "data-folder"}
    assert "Quick start" in (site / "index.html").read_text()


def test_every_command_and_public_name_is_described(site: Path) -> None:
    commands = (site / "reference" / "commands" / "index.html").read_text()
    assert not [name for name in COMMANDS if f'id="brats-{name}"' not in commands]
    assert "UNSET" not in commands  # what click calls a default that is none
    api = (site / "reference" / "api" / "index.html").read_text()
    for name in ("build_cache", "open_cache", "load_model", "BratsSlices", "CheckpointError"):
        assert re.search(rf'id="brats_\w+\.[\w.]*{name}"', api), name


def test_links_to_files_of_the_checkout_lead_there(site: Path) -> None:
    assert (site / "files" / "scripts" / "slurm_train.sh").is_file()
    assert "files/scripts/slurm_train.sh" in (site / "how-to" / "index.html").read_text()


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    """Links may lead anywhere; scripts, styles, fonts and pictures are the site's own."""
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|source)\b[^>]*\bsrc=\"([^\"]+)", page.read_text())
        loaded += re.findall(
            r"<link\b[^>]*\brel=\"(?:stylesheet|icon)\"[^>]*\bhref=\"([^\"]+)", page.read_text()
        )
        assert not [address for address in loaded if "//" in address], page
