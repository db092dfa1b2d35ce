"""The model card: what the exported network is, how good it is and how sure that is, and how to load it."""

from __future__ import annotations

from typing import Any

from searchft.export.snippet import snippet_text

_SPLITS = (("test", "Test"), ("val", "Validation"))


def card_text(config: dict[str, Any], shown_as: str) -> str:
    """The model card as Markdown. `shown_as` is how the snippet names the folder."""
    classes, about = config["classes"], config["about"]
    shown = ", ".join(classes[:12]) + (f" and {len(classes) - 12} more (labels.txt)" if len(classes) > 12 else "")
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
        "The snippet reads ordinary photos. For images with transparency or 16 bits, `searchft predict` decodes as training did.",
        "",
        "## How it was made",
        "",
    ]
    if about.get("study"):
        lines.append(f"- Study: {about['study']}, trial {about.get('trial')}")
    if about.get("words"):
        lines.append(f"- Recipe: {about['words']}")
    lines.append(f"- Starting weights: {_weights_words(config['weights'])}")
    sizes = ", ".join(f"{count} {split}" for split, count in config["data"]["images"].items())
    lines.append(f"- Data: {config['data']['source']} ({sizes})")
    lines.append("- Versions: " + ", ".join(f"{name} {version}" for name, version in config["versions"].items()))
    lines += ["", "The licence of the starting weights and of the images applies to this file too.", ""]
    return "\n".join(lines)


def _score_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    for split, title in _SPLITS:
        score = metrics.get(split)
        if score:
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
