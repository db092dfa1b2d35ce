"""Writing the exported folder: the whole network under its library's own names, and everything needed to use it.

    model.safetensors   the full state dict, float32, plain torchvision or timm keys
    labels.txt          one class per line, in the order of the logits
    README.md           the model card, with the snippet that loads this folder without searchft
    config.json         architecture, classes, preprocessing, recipe, where the weights came from, metrics, versions

config.json is written last and holds the SHA-256 of the weights: a folder cut short or mixed up is noticed on loading. A trial
keeps only its delta against the pretrained network; one that lacks something is refused, never filled up with initial values.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searchft._version import __version__
from searchft.errors import InputError, StorageError
from searchft.export.card import card_text
from searchft.export.load import CARD, CONFIG, FORMAT, FORMAT_VERSION, LABELS, MODEL, build_exported, read_config
from searchft.files import sha256_of, write_atomic, write_json
from searchft.recipe import BackboneFacts, DataSettings, Recipe, SpaceFacts, open_parameters

_VERSIONS_OF = ("torch", "torchvision", "timm", "safetensors", "numpy", "pillow")


def check_target(out: Path, force: bool = False) -> None:
    """Raises InputError where `out` holds something that is no earlier export of ours, unless `force`."""
    if out.exists() and not out.is_dir():
        raise InputError("must be a folder but is a file", str(out))
    if not out.is_dir() or not any(out.iterdir()) or force:
        return
    try:
        read_config(out)
    except InputError as error:
        rule = "is not empty and no earlier export: choose another --out, or say --force to write into it all the same"
        raise InputError(rule, str(out)) from error


def export_trial(
    recipe: Recipe,
    facts: SpaceFacts,
    settings: DataSettings,
    delta: Path,
    out: Path,
    metrics: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    *,
    epoch: int | None = None,
) -> Path:
    """Writes a trial into the folder `out`, and returns `out`.

    Args:
        recipe, facts, settings: what the trial ran; the study's; its `data:` section, which decides the preprocessing.
        delta: the weights of the trial's best epoch.
        metrics: kept in config.json as they are; `add_metrics` adds to them later.
        about: for the model card: `study`, `trial`, `words` (the recipe in words).
        epoch: the trial's best epoch in the record; None: not known.

    Raises InputError for a delta that is not this trial's, StorageError where the disk refuses.
    """
    from safetensors.torch import save

    from searchft.models import architecture_of, build_model

    # 1. The trained network: the pretrained one with the delta over it.
    backbone = facts.backbones[recipe.architecture()]
    classes = list(facts.data.classes)
    model = build_model(recipe, backbone, len(classes), head_seed=recipe.seed)
    state = dict(model.state_dict())
    opened = set(open_parameters(recipe, backbone).parameters)
    opened |= {name for name in state if name.startswith(f"{backbone.head}.")}
    for name, tensor in _load_delta(delta, state, opened, recipe.key(facts), epoch).items():
        state[name] = tensor.to(state[name].dtype)
    # 2. As the library builds it, without the auxiliary heads that serve training only. What JSON cannot say raises here.
    architecture = json.loads(json.dumps(architecture_of(recipe, backbone, len(classes)), allow_nan=False))
    exported = build_exported(architecture)
    state = {name: state[name].clone().contiguous() for name in exported.state_dict()}
    exported.load_state_dict(state)
    # 3. Over an earlier export the weights come first: until the configuration is replaced too, its checksum tells that the
    #    two do not belong together.
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / MODEL, save(state, metadata={"format": "pt"}))
    write_atomic(out / LABELS, ("\n".join(classes) + "\n").encode())
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "classes": classes,
        "preprocessing": preprocessing_of(settings, backbone),
        "recipe": recipe.to_json(),
        "weights": {
            "asked": recipe.weights,
            "loaded": backbone.weights,
            "source": backbone.weights_source,
            "sha256": backbone.weights_sha256,
            "fell_back": backbone.fell_back,
        },
        "data": {
            "source": facts.data.source,
            "fingerprint": facts.data.fingerprint,
            "settings": {key: value for key, value in settings.to_json().items() if key != "root"},
            "images": {split: facts.data.size(split) for split, _ in facts.data.counts},
        },
        "about": dict(about or {}),
        "metrics": dict(metrics),
        "model_sha256": sha256_of(out / MODEL),
        "versions": {
            "searchft": __version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _VERSIONS_OF},
        },
    }
    _write_config(out, config)
    return out


def add_metrics(out: Path, metrics: Mapping[str, Any]) -> None:
    """Adds to (or replaces in) an exported folder's metrics, and writes its model card anew."""
    config = read_config(out)
    _write_config(out, config | {"metrics": {**config["metrics"], **metrics}})


def preprocessing_of(settings: DataSettings, backbone: BackboneFacts) -> dict[str, Any]:
    """From an image to the network's input, in full, as plain numbers."""
    stored = max(settings.store_size, settings.image_size)
    first = round((stored - settings.image_size) / 2)  # as data.transforms.centre_crop
    return {
        "steps": "EXIF orientation, RGB, resize to stored_size, crop (left, top, right, bottom), /255, minus mean, by std",
        "resize": settings.resize,
        "stored_size": stored,
        "interpolation": settings.interpolation,
        "crop": [first, first, first + settings.image_size, first + settings.image_size],
        "image_size": settings.image_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
    }


def _load_delta(delta: Path, state: Mapping[str, Any], opened: set[str], key: str, epoch: int | None) -> dict[str, Any]:
    """The delta's tensors, found whole, fitting, complete (all of `opened`), and of this trial's best epoch."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from searchft.train.checkpoints import check_delta

    try:
        made = check_delta(delta)
        trained: dict[str, Any] = load_file(delta)
    except FileNotFoundError as error:
        raise InputError("the trial's weights are gone (search.keep_checkpoints decides how many stay)", str(delta)) from error
    except SafetensorError as error:
        raise StorageError(f"{delta} is damaged: {error}", str(delta)) from error
    wrong = [name for name, tensor in trained.items() if name not in state or tensor.shape != state[name].shape]
    missing = sorted(opened - set(trained))
    if names := wrong or missing:
        fault = "does not fit the recipe's network" if wrong else "lacks what the recipe trains"
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise InputError(f"{fault}: {', '.join(names[:3])}{more}", str(delta))
    if made.get("key") != key or (epoch is not None and made.get("epoch") != str(epoch)):
        held = f"key {made.get('key', 'none')[:12]}, epoch {made.get('epoch', 'none')}"
        wanted = f"key {key[:12]}" + (f", epoch {epoch}" if epoch is not None else "")
        raise InputError(f"must hold the trial's own weights ({wanted}) but holds others ({held}): put them back", str(delta))
    return trained


def _write_config(out: Path, config: Mapping[str, Any]) -> None:
    write_atomic(out / CARD, card_text(dict(config), shown_as=out.name).encode())
    write_json(out / CONFIG, config)
