"""The weights that an encoder starts from: of a file, or ImageNet's from the hub."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import huggingface_hub
import pytest
import torch
import xxhash
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from brats_cache.common.errors import BratsError
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.pretrained import load_encoder_weights

State = dict[str, Tensor]


def small_model(in_channels: int = 4, classes: int = 1) -> nn.Module:
    return build_model(ModelConfig(in_channels=in_channels, classes=classes, encoder="resnet18"))


def encoder_of(model: nn.Module) -> State:
    return model.get_submodule("encoder").state_dict()


@pytest.fixture(scope="module")
def torchvision_state() -> State:
    """What torchvision publishes for a ResNet-18, with every value another than a new model's."""
    from torchvision.models import resnet18

    state = resnet18(weights=None).state_dict()
    return {key: torch.rand(value.shape) + 0.5 for key, value in state.items()} | {
        key: torch.tensor(7) for key in state if key.endswith("num_batches_tracked")
    }


@pytest.fixture
def weights_path(tmp_path: Path, torchvision_state: State) -> Path:
    path = tmp_path / "resnet18-abc.pth"
    torch.save(torchvision_state, path)
    return path


# Weights from a file


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_a_timm_encoder_takes_the_state_of_the_whole_timm_model(name: str, tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model(name, pretrained=False)
    path = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), path)
    encoder = f"tu-{name}"
    model = build_model(ModelConfig(in_channels=3, classes=1, encoder=encoder)).eval()
    load_encoder_weights(model, encoder, str(path))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.eval().forward_features(images)
        assert torch.equal(model.get_submodule("encoder")(images)[-1], expected)


@pytest.mark.parametrize("in_channels", [1, 2, 3, 4])
def test_the_first_convolution_repeats_rgb_and_keeps_its_scale(
    in_channels: int, weights_path: Path, torchvision_state: State
) -> None:
    model = small_model(in_channels)
    load_encoder_weights(model, "resnet18", str(weights_path))
    rgb = torchvision_state["conv1.weight"]
    if in_channels == 1:
        expected = rgb.sum(1, keepdim=True)
    else:
        expected = torch.stack([rgb[:, i % 3] for i in range(in_channels)], 1) * 3 / in_channels
    own = encoder_of(model)
    torch.testing.assert_close(own["conv1.weight"], expected)
    for key in own.keys() - {"conv1.weight"}:
        assert torch.equal(own[key], torchvision_state[key]), key


def test_a_grey_image_gives_the_first_convolution_what_rgb_gave_it(weights_path: Path) -> None:
    """Why the weights are scaled: equal channels leave the encoder's activations as trained."""
    grey = torch.randn(1, 1, 32, 32)
    stems = []
    for in_channels in (1, 3):
        model = small_model(in_channels)
        load_encoder_weights(model, "resnet18", str(weights_path))
        stem = model.get_submodule("encoder.conv1")
        stems.append(stem(grey.expand(1, in_channels, 32, 32)))
    torch.testing.assert_close(stems[0], stems[1], rtol=1e-4, atol=1e-3)


def without_head(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if "num_batches" not in key}


def prefixed(state: State) -> State:
    return {f"encoder.{key}": value for key, value in without_head(state).items()}


def whole_unet(state: State) -> State:
    model = small_model(in_channels=3, classes=5)
    return model.state_dict() | prefixed(state)


FORMS = (dict, without_head, without_counters, prefixed, whole_unet)
CONTAINERS = ((dict, ".pt"), (dict, ".safetensors"), (whole_unet, ".safetensors"))


@pytest.mark.parametrize(("form", "suffix"), [*((form, ".pth") for form in FORMS), *CONTAINERS])
def test_every_form_and_container_gives_the_same_encoder(
    form: Callable[[State], State], suffix: str, tmp_path: Path, torchvision_state: State
) -> None:
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(form(torchvision_state), path)
    model = small_model()
    decoder = {k: v.clone() for k, v in model.state_dict().items() if k[:8] != "encoder."}
    load_encoder_weights(model, "resnet18", str(path))
    own = encoder_of(model)
    for key in own.keys() - {"conv1.weight"}:
        if form is not without_counters or "num_batches" not in key:
            assert torch.equal(own[key], torchvision_state[key]), key
    assert all(torch.equal(model.state_dict()[key], decoder[key]) for key in decoder)


def test_weights_of_an_equal_number_of_modalities_are_taken_as_they_are(tmp_path: Path) -> None:
    trained = small_model(in_channels=4)
    path = tmp_path / "unet.pt"
    torch.save(trained.state_dict(), path)
    model = small_model(in_channels=4, classes=3)
    load_encoder_weights(model, "resnet18", str(path))
    assert all(torch.equal(encoder_of(trained)[k], v) for k, v in encoder_of(model).items())


def test_the_record_names_the_file_and_its_content(weights_path: Path) -> None:
    record = load_encoder_weights(small_model(), "resnet18", str(weights_path))
    checksum = xxhash.xxh3_64(weights_path.read_bytes()).hexdigest()
    assert record == f"file resnet18-abc.pth xxh3:{checksum}"


def test_none_leaves_the_weights_alone() -> None:
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert load_encoder_weights(model, "resnet18", "none") == "none (random initialisation)"
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


# Files that do not fit


@cache
def model_to_refuse() -> nn.Module:
    return small_model()


def refused(path: Path, model: nn.Module | None = None, encoder: str = "resnet18") -> str:
    """The one message about `path`, which leaves the model as it was."""
    model = model or model_to_refuse()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(BratsError) as caught:
        load_encoder_weights(model, encoder, str(path))
    assert path.name in str(caught.value)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    return str(caught.value)


def test_missing_unknown_and_misshapen_weights_are_named_at_once(
    tmp_path: Path, torchvision_state: State
) -> None:
    state = dict(torchvision_state)
    del state["bn1.weight"], state["layer2.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["layer4.1.conv2.weight"] = torch.zeros(2, 3)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    message = refused(path)
    assert "2 missing (bn1.weight, layer2.0.conv1.weight)" in message
    assert "1 not known (layer9.weight)" in message
    assert "1 of another shape (layer4.1.conv2.weight (2, 3) for (512, 512, 3, 3))" in message


def test_another_networks_weights_are_refused_in_few_words(
    weights_path: Path,
) -> None:
    model = build_model(ModelConfig(in_channels=4, classes=1, encoder="resnet34"))
    message = refused(weights_path, model, "resnet34")
    assert "not the weights of resnet34" in message
    assert len(message) < 600


def test_another_number_of_modalities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save(small_model(in_channels=2).state_dict(), path)
    assert "conv1.weight (64, 2, 7, 7) for (64, 4, 7, 7)" in refused(path)


class _RunsACommand:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch was_executed",)


def _zip_pickle(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: _zip_pickle({"conv1.weight": _RunsACommand()}), id="archive"),
        pytest.param(lambda: pickle.dumps(_RunsACommand(), protocol=2), id="bare pickle"),
    ],
)
def test_a_pickle_that_runs_code_is_refused(
    content: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trap.pth"
    path.write_bytes(content())
    message = refused(path)
    assert "system" in message
    assert "weights_only" not in message  # torch's own advice is to switch the protection off
    assert not (tmp_path / "was_executed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(
    suffix: str, kept: float, tmp_path: Path, torchvision_state: State
) -> None:
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(torchvision_state, path)
    os.truncate(path, int(kept * path.stat().st_size))
    assert "cannot be read as weights" in refused(path)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_file_that_is_something_else_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("<!DOCTYPE html><html>404 not found</html>")
    assert "cannot be read as weights" in refused(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "model": {"a": torch.zeros(1)}}, r"epoch, model.*--init-from"),
        ([torch.zeros(1)], "one list"),
        ({}, "no weights of an encoder"),
        ({"conv1.weight": torch.ones(2, 2).to_sparse()}, r"than plain tensors \(conv1\.weight\)"),
        ({"conv1.weight": torch.empty(2, 2, device="meta")}, "than plain tensors"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(content: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "content.pt"
    torch.save(content, path)
    assert re.search(said, refused(path))


@pytest.mark.parametrize("name", ["imagnet", "absent.pth", "folder.pth", "weights.h5"])
def test_what_is_no_weights_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "weights.h5").touch()
    assert "--encoder-weights" in refused(tmp_path / name)


# ImageNet weights


class Hub:
    """Stands where huggingface_hub would go to the network; `calls` is what it was asked."""

    def __init__(self, *, cached: Path | None = None, online: Path | None = None) -> None:
        self.cached, self.online, self.calls = cached, online, list[str]()

    def hf_hub_download(
        self, repo_id: str, filename: str, revision: str, local_files_only: bool = False
    ) -> str:
        assert filename == "model.safetensors"
        self.calls.append("cache" if local_files_only else "download")
        path = self.cached if local_files_only else self.online
        if path is None:
            raise LocalEntryNotFoundError(f"{repo_id} at {revision} is not here")
        return str(path)

    def get_hf_file_metadata(self, url: str, timeout: float) -> object:
        self.calls.append(f"ask {url}")
        if self.online is None:
            raise ConnectionError("[Errno -2] Name or service not known")
        return object()

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> Hub:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.hf_hub_download)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", self.get_hf_file_metadata)
        return self


@pytest.fixture
def published_path(tmp_path: Path, torchvision_state: State) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(torchvision_state, path)
    return path


@pytest.mark.parametrize(("place", "last_call"), [("cached", "cache"), ("online", "download")])
def test_imagenet_weights_are_downloaded_once(
    monkeypatch: pytest.MonkeyPatch,
    published_path: Path,
    torchvision_state: State,
    place: str,
    last_call: str,
) -> None:
    hub = Hub(**{place: published_path}).stand_in(monkeypatch)
    model = small_model()
    record = load_encoder_weights(model, "resnet18", "imagenet")
    assert record == "imagenet (smp-hub/resnet18.imagenet)"
    assert torch.equal(encoder_of(model)["bn1.weight"], torchvision_state["bn1.weight"])
    assert hub.calls[-1] == last_call
    assert len(hub.calls) == (1 if place == "cached" else 3)  # without network where it is cached


def test_offline_one_message_says_what_was_tried_and_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub().stand_in(monkeypatch)
    model = build_model(ModelConfig(in_channels=4, classes=1))
    with pytest.raises(BratsError) as caught:
        load_encoder_weights(model, "resnet34", "imagenet")
    message = str(caught.value)
    assert "https://huggingface.co/smp-hub/resnet34.imagenet/resolve/" in message
    assert "model.safetensors" in message
    assert "Name or service not known" in message
    assert "--encoder-weights none" in message
    assert "--encoder-weights PATH" in message
    assert re.search(r"https://download\.pytorch\.org/models/resnet34-\w+\.pth", message)
    # hf_hub_download repeats itself for over a minute before it gives up on an absent hub.
    assert "download" not in hub.calls


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_every_encoder_has_published_weights(encoder: str) -> None:
    from segmentation_models_pytorch.encoders import encoders
    from torchvision.models import get_model_weights

    assert encoders[encoder]["pretrained_settings"]["imagenet"]["repo_id"].startswith("smp-hub/")
    assert get_model_weights(encoder)["IMAGENET1K_V1"].url.endswith(".pth")
