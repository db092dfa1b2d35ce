"""`fit`: train one trial, epoch by epoch. Read it from top to bottom: sections stand in the order they run.

A trial's seed is its recipe's key, and every epoch seeds its own generators from (trial seed, epoch). With the same number of
threads an interrupted trial therefore equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchft.faults import fault
from searchft.models import head_parameters
from searchft.recipe import Recipe, ResolvedTrial
from searchft.train.checkpoints import Progress, TrialFolder
from searchft.train.inputs import SplitInputs, TrainingData, mixed_seed
from searchft.train.network import Network
from searchft.train.optimizers import bare_step, build_optimizer, lr_factor, set_lr
from searchft.train.results import DivergedError, EpochResult

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2015, arXiv:1409.4842)."""

_EVALUATION_BATCH = 256


def fit(trial: ResolvedTrial, data: TrainingData, folder: TrialFolder | None = None) -> Iterator[EpochResult]:
    """Trains one trial and yields an EpochResult after each epoch, checkpointing before it yields.

    Args:
        trial: what `resolve` made of a recipe.
        folder: where to keep checkpoint and best weights; epochs it holds are yielded first, with `replayed=True`.

    Stop by closing the generator. Raises DivergedError where the loss became NaN or infinite, StorageError where the disk
    refuses a checkpoint, InputError where the pretrained weights cannot be loaded (any more).
    """
    # Where an earlier run left off
    recipe = trial.recipe
    progress = Progress()
    if folder is not None:
        progress = folder.load() or progress
        yield from progress.results
        if _finished(recipe, progress.results):
            return

    # Epochs
    phase: _Phase | None = None
    class_weights = _class_weights(trial, data)
    for epoch in range(len(progress.results), recipe.epochs):
        started = time.perf_counter()
        head_only = epoch < recipe.head_first_epochs and bool(trial.opening.parameters)
        opening = trial.head_opening if head_only else trial.opening
        if phase is None or phase.network.opening is not opening:
            # The order is important.
            # 1. The network first, with pretrained values and a new head: one that is kept from trial to trial is renewed.
            # 2. Then the values to go on from, in place: the checkpoint's, or the head's of the phase that ends.
            # 3. Then the optimizer, which takes hold of the parameters as they are now.
            # 4. Its state last, and only within a phase: the next one begins with an optimizer of its own.
            network = data.networks.get(trial, opening, data.image_size, data.device, mixed_seed(trial.seed, 0))
            if phase is not None:
                network.load(head_parameters(phase.network.model, phase.network.backbone))
            elif progress.results:
                network.load(progress.state)
            phase = _Phase(trial, data, network)
            if progress.optimizer and epoch == len(progress.results) and epoch != recipe.head_first_epochs:
                phase.optimizer.load_state_dict(progress.optimizer)
        if folder is not None:
            fault("epoch.begun", f"{folder.path.name} {epoch + 1}")
        result = _epoch(trial, phase, epoch, class_weights, started)
        best = max((r.val_accuracy for r in progress.results), default=-1.0)
        progress.results.append(result)
        if folder is not None:
            # The best weights before the checkpoint that counts them: a kill between the two repeats the epoch.
            if result.val_accuracy > best:
                folder.save_best(phase.network.changing(), epoch + 1)
                progress.best_epoch = epoch + 1
            progress.state = phase.network.changing()
            progress.optimizer = phase.optimizer.state_dict()
            folder.save(progress)
        yield result
        if _finished(recipe, progress.results):
            return


class _Phase:
    """A network with its inputs and its optimizer. LP-FT has two phases, everything else one."""

    def __init__(self, trial: ResolvedTrial, data: TrainingData, network: Network) -> None:
        self.network = network
        self.train, self.val = (SplitInputs(data, part, trial, network) for part in ("train", "val"))
        self._unpaid_s = self.train.spent_s + self.val.spent_s
        parameters, head = dict(network.model.named_parameters()), head_parameters(network.model, network.backbone)
        self.trainable = [parameter for parameter in parameters.values() if parameter.requires_grad]
        self.optimizer = build_optimizer(trial.recipe, network.opening, parameters, head)
        self.step = bare_step(self.optimizer)

    def saved_s(self) -> float:
        """What an epoch did not spend on frozen values, in seconds; called once for each, because the first pays for them."""
        saved = max(0.0, self.train.stored_s + self.val.stored_s - self._unpaid_s)
        self._unpaid_s = 0.0
        return saved


def _epoch(trial: ResolvedTrial, phase: _Phase, epoch: int, class_weights: Tensor | None, started: float) -> EpochResult:
    """One pass over the training split and one over the validation split, of an epoch counted from 0.

    The clock began at `started`: for a trial's first epoch before its network was prepared and its frozen values computed.
    """
    recipe, seed = trial.recipe, trial.seed
    network, inputs, device = phase.network, phase.train, phase.network.device
    batches = batch_indices(epoch_order(inputs.size, seed, epoch), recipe.batch_size)
    steps_per_epoch = len(batches)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    step_curve: list[tuple[int, float, float]] = []

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mixed_seed(seed, 2, epoch))
        network.split.suffix.select(True)
        for position, indices in enumerate(batches):
            step = epoch * steps_per_epoch + position
            set_lr(phase.optimizer, lr_factor(recipe, step, steps_per_epoch))
            labels = inputs.labels[indices.to(device)]
            logits, *auxiliary = network.logits(inputs.batch(indices, epoch, seed))
            loss = _loss(recipe, logits, labels, class_weights)
            for side in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * _loss(recipe, side, labels, class_weights)
            phase.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(phase.trainable, recipe.clip_norm)
            phase.step()
            loss_sum += loss.detach() * len(indices)
            correct += (logits.detach().argmax(1) == labels).sum()
            if recipe.validate_every and (step + 1) % recipe.validate_every == 0 and position + 1 < steps_per_epoch:
                val_loss, val_accuracy, _ = _evaluate(phase)
                step_curve.append((step + 1, val_loss, val_accuracy))
                network.split.suffix.select(True)

    train_loss = float(loss_sum) / inputs.size
    if not math.isfinite(train_loss):
        raise DivergedError(f"the training loss became {train_loss} in epoch {epoch + 1}")
    val_loss, val_accuracy, val_balanced_accuracy = _evaluate(phase)
    return EpochResult(
        epoch=epoch + 1,
        train_loss=train_loss,
        train_accuracy=int(correct) / inputs.size,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        val_balanced_accuracy=val_balanced_accuracy,
        seconds=time.perf_counter() - started,
        stored_s=phase.saved_s(),
        step_curve=tuple(step_curve),
    )


def _evaluate(phase: _Phase) -> tuple[float, float, float]:
    """Loss, accuracy and balanced accuracy on the validation split, in evaluation mode."""
    network, inputs = phase.network, phase.val
    network.split.suffix.select(False)
    outputs = []
    with torch.no_grad():
        for start in range(0, inputs.size, _EVALUATION_BATCH):
            indices = torch.arange(start, min(start + _EVALUATION_BATCH, inputs.size))
            outputs.append(network.logits(inputs.batch(indices, 0, 0))[0])
    logits, labels = torch.cat(outputs), inputs.labels
    right = logits.argmax(1) == labels
    totals = torch.bincount(labels, minlength=logits.shape[1])
    hits = torch.bincount(labels[right], minlength=logits.shape[1])
    present = totals > 0
    balanced_accuracy = float((hits[present].double() / totals[present]).mean())
    return float(F.cross_entropy(logits, labels)), int(right.sum()) / inputs.size, balanced_accuracy


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, int64 [size], whatever ran before it."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed_seed(seed, 1, epoch)))


def batch_indices(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cuts an order (int64 [N]) into batches; a leftover of one image joins its neighbour, since BatchNorm needs two."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _loss(recipe: Recipe, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if recipe.final_softmax:
        logits = logits.softmax(1)
    return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=recipe.label_smoothing)


def _class_weights(trial: ResolvedTrial, data: TrainingData) -> Tensor | None:
    """Inverse class frequency with mean 1 over the classes, or None."""
    if trial.recipe.class_weights != "balanced":
        return None
    counts = torch.tensor(dict(trial.data.counts)["train"], dtype=torch.float32, device=data.device)
    weights = 1.0 / counts
    return weights * (len(weights) / weights.sum())


def _finished(recipe: Recipe, results: list[EpochResult]) -> bool:
    scores = [result.val_accuracy for result in results]
    waited = len(scores) - 1 - scores.index(max(scores)) if scores else 0
    return len(scores) >= recipe.epochs or 0 < recipe.patience <= waited
