"""Models on Hugging Face's hub, named hf://owner/name or hf://owner/name@revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from brats_cache.common.errors import CheckpointError, first_line, printable
from brats_train.models.exported_folder import CARD, CONFIG, WEIGHTS

__all__ = ["HubName", "fetch_model", "hub_name"]

_TIMEOUT_SECONDS = 5
# A path of the command line has one slash left, since pathlib joins two.
_NAME = re.compile(r"hf:/{1,2}(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:@(?P<revision>[\w./-]+))?/?")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository on the hub.

    Attributes:
        owner: A person or an organisation.
        name: Of the model.
        revision: A branch, tag or commit, None for the main branch.
    """

    owner: str
    name: str
    revision: str | None

    @property
    def repo_id(self) -> str:
        """OWNER/NAME, as huggingface_hub has it."""
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"hf://{self.repo_id}{f'@{self.revision}' if self.revision else ''}"


def hub_name(source: str | Path) -> HubName | None:
    """Reads hf://owner/name.

    Returns:
        The name, None for what does not begin with hf:/ and so is a path.

    Raises:
        CheckpointError: It begins so, and is no such name.
    """
    text = str(source)
    if not text.startswith("hf:/"):
        return None
    match = _NAME.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"{printable(text)}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION."
        )
    return HubName(**match.groupdict())


def fetch_model(name: HubName) -> Path:
    """The folder of a model on the hub: from the local cache, or else downloaded into it.

    What is in the cache is used as it is, so that results do not change by themselves and no
    network is needed; `hf download OWNER/NAME` brings a newer one.

    Raises:
        CheckpointError: It is neither in the cache nor to be had.
    """
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE

    files = [CONFIG, WEIGHTS, CARD]
    try:
        folder = Path(
            hub.snapshot_download(
                name.repo_id, revision=name.revision, allow_patterns=files, local_files_only=True
            )
        )
        if (folder / CONFIG).exists() and (folder / WEIGHTS).exists():
            return folder  # else a download was cut short
    except FileNotFoundError:  # what huggingface_hub raises is one of these
        pass
    except Exception as error:  # a name that the hub would refuse
        raise CheckpointError(f"{name}: no name of a model ({first_line(error)}).") from error
    try:
        # snapshot_download tries a hub that cannot be reached for a minute and more. One question
        # asked first tells at once, and that the repository holds a model of this program.
        url = hub.hf_hub_url(name.repo_id, CONFIG, revision=name.revision)
        hub.get_hf_file_metadata(url, timeout=_TIMEOUT_SECONDS)
        return Path(
            hub.snapshot_download(name.repo_id, revision=name.revision, allow_patterns=files)
        )
    except Exception as error:  # the hub's transport, and so its exceptions, change by version
        raise CheckpointError(
            f"{name}: cannot be had: not in the cache {HF_HUB_CACHE}, and the hub failed "
            f"({first_line(error)}).\nFetch it on a machine that has a network, "
            f"`hf download {name.repo_id} --local-dir FOLDER`, copy FOLDER here and name that."
        ) from error
