"""Does keeping the frozen part's values pay? An epoch of an opening on kept values, and one that computes them for every batch.

    .venv/bin/python tests/benchmarks/keeping.py [fp32|bf16|auto]

Packaged faces (200 images to train on, 80 to validate, 96 px), random weights, batches of 64. An epoch counts with the shortest of
three; the first, in which values are computed and stored, is left out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from searchft.facts import describe
from searchft.features import FeatureStore
from searchft.files import cache_folder
from searchft.recipe import resolve
from searchft.space import parse_space
from searchft.train.fit import fit
from searchft.train.inputs import TrainingData

SIZE, EPOCHS = 96, 4
SPACE = """
study: keeping
data: {{source: orl_faces, split: {{train: 5, val: 2, test: 3}}, image_size: {size}}}
recipe: {{backbone: {backbone}, weights: none, unfrozen: {unfrozen}, head_replaces: {head}, precision: {precision},
         batch_size: 64, lr: 1e-3, epochs: {epochs}}}
"""
OPENINGS = [
    ("torchvision/vgg11_bn", "head", "classifier"),
    ("torchvision/mobilenet_v2", "features.14", "last"),
    ("torchvision/densenet121", "features.transition3", "last"),
    ("torchvision/googlenet", "inception5a", "last"),
    ("torchvision/resnet50", "layer3", "last"),
    ("torchvision/convnext_tiny", "features.7", "last"),
    ("torchvision/alexnet", "classifier", "last"),
]


def main() -> None:
    precision = sys.argv[1] if len(sys.argv) > 1 else "auto"
    print("| network, open | kept MB | epoch s, kept | computed |")
    print("|---|---|---|---|")
    for backbone, unfrozen, head in OPENINGS:
        text = SPACE.format(size=SIZE, backbone=backbone, unfrozen=unfrozen, head=head, precision=precision, epochs=EPOCHS)
        space = parse_space(text)
        facts, images = describe(space, cache_folder())
        trial, seconds = resolve(space.resolve({}), facts), []
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(Path(folder), 10**11)
            for kept in (store, None):
                results = list(fit(trial, TrainingData(images, SIZE, kept)))
                seconds.append(min(result.seconds for result in results[1:]))
            size = sum(entry.size_bytes for entry in store.entries())
        print(f"| {backbone}, {unfrozen} | {size / 1e6:.1f} | {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
