"""The tutorial way, to be measured against: ImageFolder, a DataLoader with two workers, a plain loop, Optuna.

    python plain_script.py rows  FOLDER ROWS.json           trains every row, prints one JSON line per row
    python plain_script.py search FOLDER ROWS.json TRIALS SEED   Optuna: TPE, median pruner, one JSON line per trial

ROWS.json: {"backbone", "weights" (a file or ""), "edits", "size", "mean", "std", "epochs", "rows": [...], "choices": {...}}; a row gives
name, stages (parameter prefixes to open; ["*"]: all), widths, activation, dropout, batch_size, lr, deep (rate multiplier of all
open stages but the last). This is what a person writes who follows the tutorials; it knows nothing of searchft.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import optuna
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms


def build(job: dict[str, Any], row: dict[str, Any], classes: int) -> tuple[nn.Module, list[dict[str, Any]]]:
    library, name = job["backbone"].split("/")
    model = timm.create_model(name) if library == "timm" else models.get_model(name, weights=None)
    if job["weights"]:
        loaded = torch.load(job["weights"], weights_only=True)
        own = model.state_dict()
        model.load_state_dict(dict(zip(own, loaded.values(), strict=True)))
    for path, value in job["edits"].items():
        module, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(module), attribute, (value, value))
    for parameter in model.parameters():
        parameter.requires_grad = False
    head_name = "classifier" if hasattr(model, "classifier") else "fc"
    width = getattr(model, head_name).in_features
    layers: list[nn.Module] = []
    for hidden in row["widths"]:
        layers.append(nn.Linear(width, hidden))
        if row["activation"] == "relu":
            layers.append(nn.ReLU())
        if row["dropout"]:
            layers.append(nn.Dropout(row["dropout"]))
        width = hidden
    layers.append(nn.Linear(width, classes))
    head = nn.Sequential(*layers)
    setattr(model, head_name, head)
    groups = [{"params": list(head.parameters()), "lr": row["lr"]}]
    last = row["stages"][-1] if row["stages"] else []
    for stage in row["stages"]:
        rate = row["lr"] * (1.0 if stage == last else row.get("deep", 1.0))
        body = [(n, p) for n, p in model.named_parameters() if not n.startswith(head_name)]
        opened = [p for n, p in body if stage == ["*"] or n.startswith(tuple(stage))]
        for parameter in opened:
            parameter.requires_grad = True
        groups.append({"params": opened, "lr": rate})
    return model, groups


def train(job: dict[str, Any], row: dict[str, Any], folder: str, report: Any = None) -> tuple[float, list[float]]:
    transform = transforms.Compose(
        [transforms.Resize((job["size"], job["size"])), transforms.ToTensor(), transforms.Normalize(job["mean"], job["std"])]
    )
    train_set = datasets.ImageFolder(f"{folder}/train", transform)
    val_set = datasets.ImageFolder(f"{folder}/val", transform)
    train_loader = DataLoader(train_set, batch_size=row["batch_size"], shuffle=True, num_workers=2)
    val_loader = DataLoader(val_set, batch_size=64, num_workers=2)
    model, groups = build(job, row, len(train_set.classes))
    optimizer = torch.optim.Adam(groups, lr=row["lr"])
    criterion = nn.CrossEntropyLoss()
    curve: list[float] = []
    for epoch in range(job["epochs"]):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in val_loader:
                correct += int((model(images).argmax(1) == labels).sum())
        curve.append(correct / len(val_set))
        if report is not None:
            report(epoch, curve[-1])
    return max(curve), curve


def rows(folder: str, job: dict[str, Any]) -> None:
    for row in job["rows"]:
        torch.manual_seed(0)
        started = time.perf_counter()
        value, _ = train(job, row, folder)
        print(json.dumps({"name": row["name"], "value": value, "seconds": time.perf_counter() - started}), flush=True)


def search(folder: str, job: dict[str, Any], trials: int, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.perf_counter()
    best = 0.0

    def objective(trial: optuna.Trial) -> float:
        nonlocal best
        chosen = {name: trial.suggest_categorical(name, list(range(len(values)))) for name, values in job["choices"].items()}
        row = {"activation": "relu", **{name: job["choices"][name][index] for name, index in chosen.items()}}
        top = 0.0

        def report(epoch: int, value: float) -> None:
            nonlocal top, best
            top, best = max(top, value), max(best, value)
            event = {"t": time.perf_counter() - started, "value": value, "best": best, "trial": trial.number}
            print(json.dumps(event), flush=True)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        train(job, row, folder, report)
        return top

    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1),
    )
    study.optimize(objective, n_trials=trials)


if __name__ == "__main__":
    with open(sys.argv[3]) as file:
        described = json.load(file)
    if sys.argv[1] == "rows":
        rows(sys.argv[2], described)
    else:
        search(sys.argv[2], described, int(sys.argv[4]), int(sys.argv[5]))
