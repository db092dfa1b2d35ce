"""Is the cut that is chosen the best, or near? Every candidate of a few openings, with the measured time of an epoch.

    .venv/bin/python tests/benchmarks/cuts.py [fp32|bf16]

Packaged faces (200 photos to train on, 80 to validate, 96 px), random weights, batches of 64 and of 16. An epoch counts
with the shortest of three; the first, in which values are computed and stored, is left out. `expected` is what the choice
reckons with: reading from memory and going on from there, without the trained part. `chosen` holds for these budgets,
`if tight` where the disk has room for all but the edge.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import torch

from searchft.data.images import Images
from searchft.data.transforms import Preprocess
from searchft.facts import describe
from searchft.features import (
    MICRO_BATCH,
    Candidate,
    FeatureStore,
    choose_cut,
    find_candidates,
    gathered_bytes_per_s,
    padding_of,
    seconds_per_image,
)
from searchft.files import cache_folder
from searchft.recipe import Keeping, Recipe, SpaceFacts, keeping_name, open_parameters
from searchft.space import parse_space
from searchft.train.fit import fit
from searchft.train.inputs import TrainingData
from searchft.train.network import Network

SIZE, EPOCHS, PASSES = 96, 4, 20.0
MOST = 4
"""Candidates that are tried per opening: the edge, the narrowest, and some between."""

SPACE = """
study: cuts
data: {{source: orl_faces, split: {{train: 5, val: 2, test: 3}}, image_size: {size}}}
recipe: {{backbone: {backbone}, weights: none, unfrozen: {unfrozen}, head_replaces: {head}, precision: {precision},
         batch_size: {batch_size}, lr: 1e-3, epochs: {epochs}}}
"""

OPENINGS = [
    ("torchvision/vgg11_bn", "head", "classifier"),  # pooled up from 3x3 to 7x7
    ("torchvision/mobilenet_v2", "features.14", "last"),
    ("torchvision/densenet121", "features.transition3", "last"),  # reads everything a dense block has gathered
    ("torchvision/googlenet", "inception5a", "last"),  # a pooled branch beside its input
    ("torchvision/resnet50", "layer3", "last"),
]


def main() -> None:
    precision = sys.argv[1] if len(sys.argv) > 1 else "fp32"
    print("| network, open | batch | kept at | kB an image | expected ms | epoch s | |")
    print("|---|---|---|---|---|---|---|")
    for batch_size in (64, 16):
        for backbone, unfrozen, head in OPENINGS:
            text = SPACE.format(
                size=SIZE,
                backbone=backbone,
                unfrozen=unfrozen,
                head=head,
                precision=precision,
                batch_size=batch_size,
                epochs=EPOCHS,
            )
            space = parse_space(text)
            facts, images = describe(space, cache_folder())
            one_opening(f"{backbone.partition('/')[2]}, {unfrozen}", space.resolve({}), facts, images)


def one_opening(name: str, recipe: Recipe, facts: SpaceFacts, images: Images) -> None:
    opening = open_parameters(recipe, facts.backbones[recipe.architecture()])
    network = Network(
        recipe,
        facts.backbones[recipe.architecture()],
        opening,
        facts.numerics_for(recipe),
        len(facts.data.classes),
        SIZE,
        torch.device("cpu"),
    )
    assert network.prefix is not None, network.split.reason
    backbone, part = network.backbone, images.split("train")
    preprocess = Preprocess(backbone.mean, backbone.std, SIZE, torch.device("cpu"), torch.float32, channels_last=False)
    batch = preprocess(torch.from_numpy(part.images[:16]))
    seconds, edge_bytes = (
        seconds_per_image(network.prefix, batch),
        network.split.bytes_per_image(network.prefix.dtype),
    )
    candidates = find_candidates(network.prefix, batch, edge_bytes, seconds)
    count = facts.data.size("train") + facts.data.size("val")
    padding = padding_of(facts.data.size("train"), recipe.batch_size, MICRO_BATCH)
    room, rate = 10**12, gathered_bytes_per_s(edge_bytes)
    chosen, tight = (
        choose_cut(candidates, count, PASSES, room, disk_bytes, padding=padding, memory_bytes_per_s=rate)
        for disk_bytes in (room, edge_bytes * count - 1)
    )
    tried = [candidates[i * (len(candidates) - 1) // (MOST - 1)] for i in range(MOST)] if len(candidates) > MOST else candidates
    tried += [c for c in candidates if c.at and c.at in (chosen.at, tight.at) and c not in tried]
    images_too = Candidate("recomputed", 0, 0.0, seconds)
    for candidate in (*tried, images_too):
        keep = "recompute" if candidate is images_too else "memory"
        keeping = Keeping(keep, "", 1, seconds, candidate.at if keep == "memory" else "")
        known = dataclasses.replace(facts, keeping={keeping_name(recipe, opening): keeping})
        epoch_s = shortest_epoch(recipe, known, images)
        expected = candidate.bytes_per_image / rate + candidate.after_s * padding
        marks = [
            word
            for word, cut in (("chosen", chosen), ("if tight", tight))
            if (cut.keep, cut.at) == (keep, candidate.at if keep == "memory" else "")
        ]
        place = candidate.at or f"the edge ({', '.join(network.split.crossing)})"
        print(
            f"| {name} | {recipe.batch_size} | {place} | {candidate.bytes_per_image / 1000:.1f} "
            f"| {expected * 1000 * count:.0f} | {epoch_s:.2f} | {', '.join(marks)} |",
            flush=True,
        )


def shortest_epoch(recipe: Recipe, facts: SpaceFacts, images: Images) -> float:
    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData(images, facts, SIZE, FeatureStore(Path(folder), 10**11))
        return min([result.seconds for result in fit(recipe, data)][1:])


if __name__ == "__main__":
    main()
