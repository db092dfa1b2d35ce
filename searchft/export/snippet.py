"""The few lines that load an exported folder without searchft.

They import json, torch, torchvision or timm, safetensors and Pillow, are never more than ten, and are printed into the
model card with everything that this folder needs and nothing else (no line about edits where there are none). A test
runs them in a process of their own and compares logits bit for bit with `load_exported`.

They decode ordinary photos. Images with transparency or 16 bits are treated as in training by `searchft predict` only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searchft.export.load import read_config

_BUILDERS = {
    "torchvision": "torchvision.models.get_model(a['name'], **a['kwargs'])",
    "timm": "timm.create_model(a['name'], **a['kwargs'])",
    "torch.nn": "torch.nn.Sequential()",
}
MAX_LINES = 10


def snippet_for(folder: Path, shown_as: str = "", photo: str = "photo.jpg") -> str:
    """The snippet for an exported folder; `shown_as` is how the folder is named in it, `photo` the image it classifies.

    It ends with `logits`, float32 [1, classes], and prints the class. Raises InputError where the folder is no export.
    """
    return snippet_text(read_config(folder), shown_as or str(folder), photo)


def snippet_text(config: dict[str, Any], shown_as: str, photo: str = "photo.jpg") -> str:
    """As `snippet_for`, from the configuration itself."""
    architecture, preprocessing = config["architecture"], config["preprocessing"]
    library = architecture["library"]
    if library not in _BUILDERS:
        return "# Only its author's code builds this network: searchft.export.load.load_exported, with SEARCHFT_ALLOW_CODE set."
    # Adapters are ours: nobody else can put them in.
    ours = ", searchft.models" if "adapters" in architecture else ""
    lines = [
        f"import json, {library}, PIL.Image, PIL.ImageOps, safetensors.torch, torch{ours}",
        f"config = json.load(open({f'{shown_as}/config.json'!r})); a, p = config['architecture'], config['preprocessing']",
        f"model = {_BUILDERS[library]}",
    ]
    if "kept" in architecture:
        lines.append("for m, n in a['kept'].items(): model.set_submodule(m, model.get_submodule(m)[:n])")
    if "new_layers" in architecture:
        lines.append(
            "for m, k, w in a['new_layers']: setattr(model.get_submodule(m.rpartition('.')[0]), m.rpartition('.')[2], "
            "getattr(torch.nn, k)(**w))"
        )
    if ours:
        lines[2] += "; searchft.models.attach_adapters(model, a['adapters'])"
    if architecture["edits"]:
        lines.append("for e in a['edits']: m, _, n = e.rpartition('.'); setattr(model.get_submodule(m), n, a['edits'][e])")
    if len(architecture["head"]["layers"]) > 1:
        layers = "torch.nn.Sequential(*[getattr(torch.nn, kind)(**k) for kind, k in a['head']['layers']])"
    else:
        layers = f"torch.nn.{architecture['head']['layers'][0][0]}(**a['head']['layers'][0][1])"
    size = preprocessing["image_size"]
    lines += [
        f"model.set_submodule(a['head']['module'], {layers})",
        f"model.eval().load_state_dict(safetensors.torch.load_file({f'{shown_as}/model.safetensors'!r}))",
        *_image_lines(preprocessing, photo),
        f"x = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, {size}, {size}, 3).permute(0, 3, 1, 2) / 255",
        "logits = model((x - torch.tensor(p['mean']).view(3, 1, 1)) / torch.tensor(p['std']).view(3, 1, 1))",
        "print(config['classes'][logits.argmax()])",
    ]
    while len(lines) > MAX_LINES:
        lines[-2:] = ["; ".join(lines[-2:])]
    return "\n".join(lines)


def _image_lines(preprocessing: dict[str, Any], photo: str) -> list[str]:
    """One or two lines from the file to `image`, RGB, with the pixels that data/decode.py gives."""
    side, resize = preprocessing["stored_size"], preprocessing["resize"]
    method = f"PIL.Image.Resampling.{preprocessing['interpolation'].upper()}"
    opened = f"image = PIL.ImageOps.exif_transpose(PIL.Image.open({photo!r})).convert('RGB')"
    crop = "" if preprocessing["image_size"] == side else f".crop({tuple(preprocessing['crop'])})"
    if resize == "squash":
        return [f"{opened}.resize(({side}, {side}), {method}){crop}"]
    # Pillow's crop beyond the border pads with black: one line serves for cutting off and for filling up.
    if resize == "crop":
        scaled = f"w, h = (n * {side} // min(image.size) for n in image.size)"
        box = f"l, t = round((w - {side}) / 2), round((h - {side}) / 2)"
    else:
        scaled = f"w, h = (max(1, round(n * {side} / max(image.size))) for n in image.size)"
        box = f"l, t = -(({side} - w) // 2), -(({side} - h) // 2)"
    cut = f"image = image.resize((w, h), {method}).crop((l, t, l + {side}, t + {side})){crop}"
    return [f"{opened}; {scaled}", f"{box}; {cut}"]
