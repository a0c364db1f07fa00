"""Models named hf://owner/name: from the local cache, from the hub, or one clear message."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from brats_cache.common.errors import CheckpointError
from brats_cache.format.reader import Cache
from brats_train.models.hub import HubName, fetch_model, hub_name
from brats_train.models.sources import absolute
from tests.train.runs import call, contents, find, ids, make_run, predict

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    run = make_run(folder / "run", cache)
    call("export", "--run", run, "--format", "hub", "--out", folder / "out")
    return folder / "out"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub, and no network."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))

    def unreachable(url: str, **_: Any) -> None:
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    return folder


def put_in_cache(hub_cache: Path, exported: Path) -> Path:
    """What `hf download some/glioma` leaves in the cache."""
    repository = hub_cache / "models--some--glioma"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    shutil.copytree(exported, repository / "snapshots" / SHA)
    return repository / "snapshots" / SHA


def test_a_name_is_read_with_its_slashes_joined_or_not() -> None:
    plain = HubName(owner="some", name="glioma-2.0", revision=None)
    assert hub_name("hf://some/glioma-2.0") == plain
    assert hub_name(Path("hf://some/glioma-2.0")) == plain
    assert str(plain) == "hf://some/glioma-2.0"
    assert absolute(Path(str(plain))) == str(plain)
    tagged = hub_name("hf://some/glioma@v1.2")
    assert tagged == HubName(owner="some", name="glioma", revision="v1.2")
    assert hub_name("runs/latest") is None
    for wrong in ("hf://glioma", "hf://a/b/c", "hf://", "hf://a/b c"):
        with pytest.raises(CheckpointError, match="expected hf://OWNER/NAME"):
            hub_name(wrong)


def test_predict_and_eval_take_a_model_from_the_local_cache(
    hub_cache: Path,
    exported: Path,
    phantom_dir: Path,
    cache: Cache,
    cache_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot = put_in_cache(hub_cache, exported)
    monkeypatch.chdir(tmp_path)
    scans = find(phantom_dir, f"{ids(cache, 'val')[0]}_t1.nii").parent
    predict("hf://some/glioma", scans, tmp_path / "one")
    predict(exported, scans, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    call("eval", "--run", "hf://some/glioma", "--cache", cache_path, "--device", "cpu")
    assert (tmp_path / "runs" / "some--glioma" / "eval" / "val" / "summary.json").is_file()
    assert contents(snapshot) == contents(exported)  # nothing was written into the cache


@pytest.mark.parametrize("is_cut_short", [False, True])
def test_what_is_not_in_the_cache_is_downloaded(
    hub_cache: Path, exported: Path, is_cut_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = huggingface_hub.snapshot_download, []
    if is_cut_short:
        (put_in_cache(hub_cache, exported) / "model.safetensors").unlink()

    def download(repo_id: str, local_files_only: bool = False, **words: Any) -> str:
        if local_files_only:
            return real(repo_id, local_files_only=True, **words)
        asked.append((repo_id, words["revision"]))
        return str(exported)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: url)
    assert fetch_model(HubName(owner="some", name="glioma", revision="main")) == exported
    assert asked == [("some/glioma", "main")]


def test_offline_one_message_says_what_was_tried_and_the_way_out(
    hub_cache: Path, tmp_path: Path, cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("predict", tmp_path, "--run", "hf://some/glioma", code=1)
    told = capsys.readouterr().err
    assert told.count("Error") == 1
    for word in ("hf://some/glioma", str(hub_cache), "Name or service", "hf download some/glioma"):
        assert word in told
    assert "Traceback" not in told
    words = ("--run", tmp_path / "r", "--cache", cache_path, "--device", "cpu")
    call("train", "--init-from", "hf://a/b/c", *words, code=1)
    assert "expected hf://OWNER/NAME" in capsys.readouterr().err
