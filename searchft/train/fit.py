"""`fit`: train one recipe, epoch by epoch. Read it from top to bottom: sections stand in the order they run.

Determinism: a trial's seed is its recipe's key, which holds the study's seed. Every epoch seeds its own generators from
(trial seed, epoch): order and dropout of epoch 7 are the same whether epochs 1 to 6 ran in this process or in one that
was killed. With the same number of threads an interrupted trial therefore equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchft.faults import fault
from searchft.models import head_parameters
from searchft.recipe import HEAD, Recipe, open_parameters
from searchft.train.checkpoints import Progress, TrialFolder
from searchft.train.inputs import SplitInputs, TrainingData, mixed_seed
from searchft.train.network import Network
from searchft.train.optimizers import build_optimizer, set_lr
from searchft.train.results import DivergedError, EpochResult
from searchft.train.schedules import lr_factor
from searchft.tuning import bare_step

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head's loss (Szegedy et al. 2015, arXiv:1409.4842)."""

_EVALUATION_BATCH = 256


def fit(
    recipe: Recipe,
    data: TrainingData,
    folder: TrialFolder | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[EpochResult]:
    """Trains one recipe and yields an EpochResult after each epoch, checkpointing before it yields.

    Args:
        folder: where to keep the checkpoint and the best weights; epochs it already holds are yielded first, with
            `replayed=True`. None: nothing is kept.
        on_step: called once before every optimiser step, outside the timed arithmetic; may raise to stop.

    Stop by closing the generator. Raises DivergedError where the loss became NaN or infinite, StorageError where the disk
    refuses a checkpoint, InputError where the pretrained weights cannot be loaded (any more).
    """
    # What is to be trained
    facts = data.facts
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, facts.data.train_size))
    backbone = facts.backbones[recipe.architecture()]
    seed = int(recipe.key(facts), 16) % 2**62
    head_seed = mixed_seed(seed, 0)
    full_opening = open_parameters(recipe, backbone)

    # Where an earlier run left off
    progress = Progress()
    if folder is not None:
        progress = folder.load() or progress
        yield from progress.results
        if _finished(recipe, progress.results):
            return

    # Epochs
    phase: _Phase | None = None
    class_weights = _class_weights(recipe, data)
    for epoch in range(len(progress.results), recipe.epochs):
        started = time.perf_counter()
        head_only = epoch < recipe.head_first_epochs and bool(full_opening.parameters)
        opening = open_parameters(head_alone(recipe), backbone) if head_only else full_opening
        if phase is None or phase.network.opening is not opening:
            network = data.networks.get(recipe, facts, opening, data.image_size, data.device, head_seed)
            if phase is not None:  # from the head alone to the rest: the head goes on as it is
                network.load(phase.network.head_state())
            elif progress.results:
                network.load(progress.state)
            phase = _Phase(recipe, data, network)
            if progress.optimizer and epoch == len(progress.results) and epoch != recipe.head_first_epochs:
                phase.optimizer.load_state_dict(progress.optimizer)
        if folder is not None:
            fault("epoch.begun", f"{folder.path.name} {epoch + 1}")
        result = _epoch(recipe, phase, epoch, seed, class_weights, started, on_step)
        best = max((r.val_accuracy for r in progress.results), default=-1.0)
        progress.results.append(result)
        if folder is not None:
            if result.val_accuracy > best:
                folder.save_best(phase.network.changing(), epoch + 1)
                progress.best_epoch = epoch + 1
            progress.state = phase.network.changing()
            progress.optimizer = phase.optimizer.state_dict()
            folder.save(progress)
        yield result
        if _finished(recipe, progress.results):
            return


def head_alone(recipe: Recipe) -> Recipe:
    """The recipe with nothing but the head open: the first phase of LP-FT."""
    return dataclasses.replace(recipe, unfrozen=HEAD, stages=None, unfrozen_tensors=None)


class _Phase:
    """A network with its inputs and its optimiser. LP-FT has two phases, everything else one."""

    def __init__(self, recipe: Recipe, data: TrainingData, network: Network) -> None:
        self.network = network
        self.train, self.val = (SplitInputs(data, part, recipe, network) for part in ("train", "val"))
        self._unpaid_s = self.train.spent_s + self.val.spent_s
        self.optimizer = build_optimizer(
            recipe,
            network.opening,
            dict(network.model.named_parameters()),
            head_parameters(network.model, network.backbone),
        )
        self.step = bare_step(self.optimizer)

    def saved_s(self) -> float:
        """What an epoch did not spend on frozen values, in seconds; called once for each, because the first pays for them."""
        saved = max(0.0, self.train.stored_s + self.val.stored_s - self._unpaid_s)
        self._unpaid_s = 0.0
        return saved


def _epoch(
    recipe: Recipe,
    phase: _Phase,
    epoch: int,
    seed: int,
    class_weights: Tensor | None,
    started: float,
    on_step: Callable[[], None] | None,
) -> EpochResult:
    """One pass over the training split and one over the validation split.

    `epoch` is 0-based; `started` is when the clock began: for a trial's first epoch before its network was prepared and
    its frozen values were computed, so that nothing it costs goes unseen.
    """
    network, inputs, device = phase.network, phase.train, phase.network.device
    trained = network.trained
    batches = batch_indices(epoch_order(inputs.size, seed, epoch), recipe.batch_size)
    steps_per_epoch = len(batches)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    step_curve: list[tuple[int, float, float]] = []

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(mixed_seed(seed, 2, epoch))
        network.split.suffix.select(True)
        for position, indices in enumerate(batches):
            if on_step is not None:
                on_step()
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
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            phase.step()
            loss_sum += loss.detach() * len(indices)
            correct += (logits.detach().argmax(1) == labels).sum()
            if recipe.validate_every and (step + 1) % recipe.validate_every == 0 and position + 1 < steps_per_epoch:
                val = evaluate(phase)
                step_curve.append((step + 1, val.loss, val.accuracy))
                network.split.suffix.select(True)

    train_loss = float(loss_sum) / inputs.size
    if not math.isfinite(train_loss):
        raise DivergedError(f"the training loss became {train_loss} in epoch {epoch + 1}")
    val = evaluate(phase)
    return EpochResult(
        epoch=epoch + 1,
        train_loss=train_loss,
        train_accuracy=int(correct) / inputs.size,
        val_loss=val.loss,
        val_accuracy=val.accuracy,
        val_balanced_accuracy=val.balanced_accuracy,
        seconds=time.perf_counter() - started,
        stored_s=phase.saved_s(),
        step_curve=tuple(step_curve),
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of one split."""

    loss: float
    accuracy: float
    balanced_accuracy: float


def evaluate(phase: _Phase) -> Evaluation:
    """Scores the validation split in evaluation mode."""
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
    return Evaluation(
        loss=float(F.cross_entropy(logits, labels)),
        accuracy=int(right.sum()) / inputs.size,
        balanced_accuracy=float((hits[present].double() / totals[present]).mean()),
    )


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, int64 [size], whatever ran before it."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed_seed(seed, 1, epoch)))


def batch_indices(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cuts an order (int64 [N]) into batches; a leftover of one image joins its neighbour, since BatchNorm needs two."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches


def _loss(recipe: Recipe, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    if recipe.final_softmax:
        logits = logits.softmax(1)
    return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=recipe.label_smoothing)


def _class_weights(recipe: Recipe, data: TrainingData) -> Tensor | None:
    """Inverse class frequency with mean 1 over the classes, or None."""
    if recipe.class_weights != "balanced":
        return None
    counts = torch.tensor(dict(data.facts.data.counts)["train"], dtype=torch.float32, device=data.device)
    weights = 1.0 / counts
    return weights * (len(weights) / weights.sum())


def _finished(recipe: Recipe, results: list[EpochResult]) -> bool:
    if len(results) >= recipe.epochs:
        return True
    if not recipe.patience or not results:
        return False
    best = max(range(len(results)), key=lambda i: (results[i].val_accuracy, -i))
    return len(results) - 1 - best >= recipe.patience
