"""Loading an exported folder by the snippet's own steps (`card.py`), so that logits are equal bit for bit, and checking it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from searchft.errors import InputError, StorageError
from searchft.files import read_json, sha256_of
from searchft.recipe.kinds import LAYERS

ARGUMENTS = frozenset({"aux_logits", "transform_input", "init_weights", "image_size"})
"""Of a library's constructor: those that we write. Another could name a file to unpickle (timm's `checkpoint_path`)."""
FORMAT = "searchft-export"
FORMAT_VERSION = 1
CONFIG = "config.json"
MODEL = "model.safetensors"
LABELS = "labels.txt"
CARD = "README.md"
"""What an exported folder holds. The configuration is written last, because it vouches for the others."""


def load_exported(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The exported network in eval mode, float32, on the CPU, and its config.json.

    Raises InputError where the folder is no complete export of ours, or needs a library that is not here.
    """
    folder = Path(folder)
    config = read_config(folder)
    weights = folder / MODEL
    if not weights.is_file() or sha256_of(weights) != config["model_sha256"]:
        raise InputError(f"{MODEL} is not the file that {CONFIG} describes: export again", str(folder))
    from safetensors.torch import load_file

    model = build_exported(config["architecture"])
    model.load_state_dict(load_file(weights))
    return model.eval(), config


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of an exported folder. Raises InputError where there is none, or one that we do not know."""
    path = Path(folder) / CONFIG
    try:
        config = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        rule = f"is no exported folder: it has no {CONFIG} (searchft export STUDY --out DIR writes one)"
        raise InputError(rule, str(folder)) from error
    except StorageError as error:
        raise InputError(str(error), str(path)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"is no exported folder of searchft: its {CONFIG} is something else", str(folder))
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"has format {version}, this searchft reads {FORMAT_VERSION}: update it", str(folder))
    return config


def build_exported(architecture: dict[str, Any]) -> nn.Module:
    """The network that config.json's `architecture` describes. Raises InputError for what we never write: it could run code."""
    name, library = architecture["name"], architecture["library"]
    kinds = {one[-2] for one in (*architecture.get("new_layers", []), *architecture["head"]["layers"])}
    if strange := sorted({*architecture.get("kwargs", {})} - ARGUMENTS | kinds - {*LAYERS, "Sequential"}):
        raise InputError(f"names {', '.join(strange)}, which no export of ours does: it is not built", f"{name}, {CONFIG}")
    if library == "torchvision":
        import torchvision

        model = torchvision.models.get_model(name, **architecture["kwargs"])
    elif library == "timm":
        import timm

        model = timm.create_model(name, **architecture["kwargs"])
    elif library == "torch.nn":  # a table of layers is the whole network
        model = nn.Sequential()
    elif library == "python":
        from searchft.models.backbones import build_own

        model = build_own(f"python:{name}", architecture["num_classes"])
    else:
        raise InputError(f"is a network of {library!r}, which only its author's code can build", name)

    def set_attribute(path: str, value: Any) -> None:
        module, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(module), attribute, value)

    for path, count in architecture.get("kept", {}).items():
        model.set_submodule(path, model.get_submodule(path)[:count])
    for path, kind, arguments in architecture.get("new_layers", []):
        set_attribute(path, getattr(nn, kind)(**arguments))
    if "adapters" in architecture:
        from searchft.models.adapters import attach_adapters

        attach_adapters(model, architecture["adapters"])
    for path, value in architecture["edits"].items():
        set_attribute(path, value)
    layers = [getattr(nn, kind)(**arguments) for kind, arguments in architecture["head"]["layers"]]
    model.set_submodule(architecture["head"]["module"], nn.Sequential(*layers) if len(layers) > 1 else layers[0])
    assert isinstance(model, nn.Module)
    return model
