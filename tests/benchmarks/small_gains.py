"""Gains that stand in docstrings, each against the plain alternative: memory kept, small maps padded first, garbage collected rarely.

.venv/bin/python tests/benchmarks/small_gains.py        about a minute on two quiet cores
"""

from __future__ import annotations

import subprocess
import sys
import time

STEP = """
import sys, time
from searchft.tuning import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import timm, torch
model = timm.create_model("tf_efficientnet_lite0", num_classes=40).to(memory_format=torch.channels_last).train()
images = torch.randn(64, 3, 112, 112).contiguous(memory_format=torch.channels_last)
labels = torch.randint(0, 40, (64,))
optimizer = torch.optim.Adam(model.parameters(), fused=True)
seconds = []
for _ in range(5):
    started = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    seconds.append(time.perf_counter() - started)
print(f"{min(seconds[1:]):.2f} s")
"""

PADDED = """
import sys, time, torch
from searchft.features import pad_first
channels, side, kernel = map(int, sys.argv[2:])
conv = torch.nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
if sys.argv[1] == "padded":
    pad_first(conv)
images = torch.randn(64, channels, side, side).contiguous(memory_format=torch.channels_last)
seconds = []
for _ in range(8):
    started = time.perf_counter()
    conv(images).sum().backward()
    seconds.append(time.perf_counter() - started)
print(f"{1000 * min(seconds[1:]):.1f} ms")
"""

IMPORT = """
import sys
from searchft.tuning import collect_rarely, leave_quickly
if sys.argv[1] == "rarely":
    collect_rarely()
import optuna, timm, torch, torchvision
if sys.argv[1] == "rarely":
    leave_quickly()
"""


def output(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def whole_process(code: str, *arguments: str) -> str:
    started = time.perf_counter()
    output(code, *arguments)
    return f"{time.perf_counter() - started:.1f} s"


def main() -> None:
    for _ in range(2):
        print("a step, everything open:", output(STEP, "freed"), "| memory kept", output(STEP, "kept"), flush=True)
    for shape in (("1152", "4", "5"), ("960", "2", "3")):
        plain, padded = output(PADDED, "plain", *shape), output(PADDED, "padded", *shape)
        print(f"depthwise {' '.join(shape)}, forward and backward: {plain} | padded first {padded}", flush=True)
    for _ in range(2):
        print("import and leave:", whole_process(IMPORT, "often"), "| rarely", whole_process(IMPORT, "rarely"), flush=True)


if __name__ == "__main__":
    main()
