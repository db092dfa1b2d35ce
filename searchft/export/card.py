"""The model card of an exported folder, and in it the few lines that load the folder without searchft.

The snippet imports json, torch, torchvision or timm, safetensors and Pillow, has at most ten lines, and says what this folder needs
and nothing else. It decodes ordinary images; images with transparency or 16 bits are treated as in training by `searchft predict` only.
"""

from __future__ import annotations

from typing import Any

_BUILDERS = {
    "torchvision": "torchvision.models.get_model(a['name'], **a['kwargs'])",
    "timm": "timm.create_model(a['name'], **a['kwargs'])",
    "torch.nn": "torch.nn.Sequential()",
}
MAX_LINES = 10


def card_text(config: dict[str, Any], shown_as: str) -> str:
    """The model card as Markdown, from an exported folder's configuration. `shown_as` is how the snippet names the folder."""
    classes, about = config["classes"], config["about"]
    shown = ", ".join(classes[:12]) + (f" and {len(classes) - 12} more (labels.txt)" if len(classes) > 12 else "")
    sizes = ", ".join(f"{count} {split}" for split, count in config["data"]["images"].items())
    made = {
        "Study": about.get("study") and f"{about['study']}, trial {about.get('trial')}",
        "Recipe": about.get("words"),
        "Starting weights": _weights_words(config["weights"]),
        "Data": f"{config['data']['source']} ({sizes})",
        "Versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }
    lines = [
        f"# {config['recipe']['backbone']}, fine-tuned to {len(classes)} classes",
        "",
        *_score_lines(config["metrics"]),
        "",
        f"Classes: {shown}.",
        "",
        "## Use",
        "",
        "```python",
        snippet_text(config, shown_as),
        "```",
        "",
        "The snippet reads ordinary images. For images with transparency or 16 bits, `searchft predict` decodes as training did.",
        "",
        "## How it was made",
        "",
        *(f"- {title}: {text}" for title, text in made.items() if text),
        "",
        "The licence of the starting weights and of the images applies to this file too.",
        "",
    ]
    return "\n".join(lines)


def _score_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    for split, title in (("test", "Test"), ("val", "Validation")):
        if score := metrics.get(split):
            low, high = score["interval_95"]
            lines.append(
                f"- {title} accuracy: **{score['accuracy']:.4f}** on {score['n']} images "
                f"(95 % interval {low:.4f} to {high:.4f}), balanced accuracy {score['balanced_accuracy']:.4f}"
            )
    if "test" in metrics and not metrics["test"]:
        lines.append("- There is no test split: the validation accuracy chose this trial, so it flatters.")
    return lines or ["Not scored yet."]


def _weights_words(weights: dict[str, Any]) -> str:
    loaded = "random" if weights["loaded"] == "none" else f"{weights['loaded']} ({weights['source']})"
    loaded = weights["source"] if weights["loaded"] == "package" else loaded
    return f"{loaded}, INSTEAD OF {weights['asked']}: {weights['fell_back']}" if weights["fell_back"] else loaded


def snippet_text(config: dict[str, Any], shown_as: str, image: str = "photo.jpg") -> str:
    """The snippet; `shown_as` is how the folder is named in it, `image` the file it classifies.

    It ends with `logits`, float32 [1, classes], bit-equal to those of `load_exported`, and prints the class.
    """
    architecture, preprocessing = config["architecture"], config["preprocessing"]
    library = architecture["library"]
    if library not in _BUILDERS:
        return "# Only its author's code builds this network: searchft.export.load.load_exported, with SEARCHFT_ALLOW_CODE set."
    adapted = "adapters" in architecture  # adapters are ours: nobody else can put them in
    lines = [
        f"import json, {library}, PIL.Image, PIL.ImageOps, safetensors.torch, torch{', searchft.models' if adapted else ''}",
        f"config = json.load(open({f'{shown_as}/config.json'!r})); a, p = config['architecture'], config['preprocessing']",
        f"model = {_BUILDERS[library]}" + ("; searchft.models.attach_adapters(model, a['adapters'])" if adapted else ""),
    ]
    if "kept" in architecture:
        lines.append("for m, n in a['kept'].items(): model.set_submodule(m, model.get_submodule(m)[:n])")
    if "new_layers" in architecture:
        lines.append(
            "for m, k, w in a['new_layers']: setattr(model.get_submodule(m.rpartition('.')[0]), m.rpartition('.')[2], "
            "getattr(torch.nn, k)(**w))"
        )
    if architecture["edits"]:
        lines.append("for e in a['edits']: m, _, n = e.rpartition('.'); setattr(model.get_submodule(m), n, a['edits'][e])")
    head = architecture["head"]["layers"]
    if len(head) > 1:
        layers = "torch.nn.Sequential(*[getattr(torch.nn, kind)(**k) for kind, k in a['head']['layers']])"
    else:
        layers = f"torch.nn.{head[0][0]}(**a['head']['layers'][0][1])"
    size = preprocessing["image_size"]
    lines += [
        f"model.set_submodule(a['head']['module'], {layers})",
        f"model.eval().load_state_dict(safetensors.torch.load_file({f'{shown_as}/model.safetensors'!r}))",
        *_image_lines(preprocessing, image),
        f"x = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, {size}, {size}, 3).permute(0, 3, 1, 2) / 255",
        "logits = model((x - torch.tensor(p['mean']).view(3, 1, 1)) / torch.tensor(p['std']).view(3, 1, 1))",
        "print(config['classes'][logits.argmax()])",
    ]
    while len(lines) > MAX_LINES:
        lines[-2:] = ["; ".join(lines[-2:])]
    return "\n".join(lines)


def _image_lines(preprocessing: dict[str, Any], image: str) -> list[str]:
    """One or two lines from the file `image` to an RGB image, with the pixels that data/decode.py gives."""
    side, resize = preprocessing["stored_size"], preprocessing["resize"]
    method = f"PIL.Image.Resampling.{preprocessing['interpolation'].upper()}"
    opened = f"image = PIL.ImageOps.exif_transpose(PIL.Image.open({image!r})).convert('RGB')"
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
