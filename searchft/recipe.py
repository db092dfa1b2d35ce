"""A recipe: one fully resolved fine-tuning. And the facts that give it its meaning.

`Recipe` is what will run; a sampler's `params` are only what was chosen. `SpaceFacts` is what the backbones, weights
and data of a space really are (plain data, kept with the study). From recipe and facts alone follow:

- `open_parameters(recipe, backbone)`: which parameters train, in which learning-rate group, which BatchNorms
  update their statistics (`Opening`);
- `Recipe.canonical(facts)`: the recipe with everything dropped that has no effect;
- `Recipe.key(facts)`: a digest that is equal exactly for equal work, however the work was written down.

Nothing here imports torch or Optuna: validation, planning and the driver's memo work from this module alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from searchft.machine import Processor
from searchft.numerics import DEPTHWISE, HEAD_ALONE, OTHERS, Numerics, Rule, find_rule

KEY_VERSION = 1
"""Raised whenever a change of ours makes the same recipe compute something else: old answers stop being answers."""

HEAD = "head"
"""Name of the new classifier head: a value of `unfrozen`, and a learning-rate group."""


@dataclass(frozen=True)
class Recipe:
    """One fine-tuning, every value resolved. The field names are the keys of the YAML `recipe:` section.

    Lists of the YAML are tuples here, mappings are tuples of pairs sorted by key, so that recipes hash and compare.
    """

    backbone: str
    """`torchvision/NAME`, `timm/NAME`, `searchft/NAME` (small ones of ours) or `python:FILE.py:NAME` (with --allow-code)."""
    weights: str = "pretrained"
    """A torchvision enum name, `pretrained` (the library's default), `package`, `file:PATH`, or `none` (random)."""
    weights_fallback: str = ""
    """What to use where `weights` cannot be had: same values as `weights`; empty means: refuse."""
    edits: tuple[tuple[str, Any], ...] = ()
    """Attributes to set, e.g. (("conv1.stride", 1),), and modules to keep, append or replace, e.g. (("features.keep", 6),).
    ("torchvision/alexnet", ((path, value), …)) holds edits of that backbone alone: they have no effect on others."""
    head_replaces: str = "last"
    """`last`: the final linear layer is replaced; `classifier`: the whole classifier block around it."""

    normalisation: str = "weights"
    """`weights` (the mean and deviation the weights were trained with) or `none` (pixels from 0 to 1 as they are)."""

    unfrozen: str | int = HEAD
    """`head`, `all`, a count of stages from the end, or a stage or module name: that one and everything after it."""
    stages: tuple[str, ...] | None = None
    """Named stages to open instead of `unfrozen` (any set, not only the last ones)."""
    unfrozen_tensors: int | None = None
    """Open the last n parameter tensors of the backbone instead of `unfrozen`."""
    parameters: str = "all"
    """Which parameters of the open stages train: `all`, `bias` (biases only) or `norm` (normalisation layers only)."""
    norm: str = "stats"
    """BatchNorm of the open stages: `frozen`, `affine` (scale and shift train), `stats` (batch statistics too), or `running` (batch
    statistics alone: what PyTorch's train mode does to a BatchNorm whose scale and shift are frozen)."""
    adapters: str = "none"
    """`none` or `lite_residual` (TinyTL)."""

    head_widths: tuple[int, ...] = ()
    """Widths of the head's hidden layers, input side first; empty: one linear layer."""
    head_activation: str = "relu"
    """`relu`, `gelu` or `none`, after each hidden layer."""
    dropout: float = 0.0
    """Dropout probability after each hidden layer."""
    input_dropout: float = 0.0
    """Dropout probability before the head's first layer."""

    optimizer: str = "adam"
    """`sgd`, `adam` or `adamw`."""
    lr: float = 1e-3
    """Base learning rate."""
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    """Learning-rate multiplier per parameter group; groups not named have 1.0."""
    lr_groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Own parameter groups: (name, stages). Open stages not named belong to `backbone`."""
    layer_decay: float = 1.0
    """Rate factor per stage of distance from the head (head: 0, last stage: 1)."""
    momentum: float = 0.9
    """SGD's momentum; no meaning for the others."""
    weight_decay: float = 0.0
    """L2 (sgd, adam) or decoupled (adamw) weight decay."""
    schedule: str = "constant"
    """`constant`, `cosine`, `exponential` or `step`, per optimiser step for cosine, per epoch for the others."""
    lr_gamma: float = 0.9
    """Factor of the exponential (per epoch) or step (per `lr_step_epochs`) schedule."""
    lr_step_epochs: int = 10
    """Epochs between two drops of the step schedule."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up from zero."""
    batch_size: int = 32
    """Images per optimiser step."""
    epochs: int = 10
    """Passes over the training set, `head_first_epochs` included."""
    head_first_epochs: int = 0
    """Epochs in which only the head trains, before the rest opens (LP-FT, Kumar et al. 2022, arXiv:2202.10054)."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross entropy."""
    class_weights: str = "none"
    """`none` or `balanced` (inverse class frequency, mean 1)."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0: no clipping."""
    patience: int = 0
    """Stop after this many epochs without a better validation accuracy; 0: never."""
    validate_every: int = 0
    """Also validate every so many steps (for its curve only); 0: once per epoch."""
    auxiliary: bool = False
    """Train the auxiliary heads of GoogLeNet and Inception too, with their customary weight."""
    final_softmax: bool = False
    """A softmax between head and cross entropy: a known mistake, offered to show what it costs (searchft warns)."""

    horizontal_flip: float = 0.0
    """Probability of a horizontal flip."""
    rotation: float = 0.0
    """Largest rotation in degrees, either way."""
    brightness: float = 0.0
    """Colour jitter: brightness factor drawn from [1-x, 1+x]."""
    contrast: float = 0.0
    """Colour jitter: contrast factor drawn from [1-x, 1+x]."""
    saturation: float = 0.0
    """Colour jitter: saturation factor drawn from [1-x, 1+x]."""
    hue: float = 0.0
    """Colour jitter: hue shift drawn from [-x, x], x at most 0.5."""
    grayscale: float = 0.0
    """Probability of turning an image grey."""
    crop_scale: float = 1.0
    """Random resized crop: smallest share of the area kept; 1.0: no crop."""
    augment_views: int = 0
    """Fixed random views per image to cycle through, so that frozen features can be stored; 0: fresh ones for ever."""

    precision: str = "auto"
    """`auto`, `fp32` or `bf16`."""
    seed: int = 0
    """Seed of head initialisation, order, dropout, augmentation and of random weights; the study's unless given."""

    @property
    def augments(self) -> bool:
        """Whether any random augmentation is on."""
        return any(getattr(self, name) != Recipe.__dataclass_fields__[name].default for name in AUGMENTATIONS)

    def own_edits(self) -> tuple[tuple[str, Any], ...]:
        """The edits that concern this recipe's backbone, those written for it alone among them."""
        flat = {path: value for path, value in self.edits if "/" not in path}
        for backbone, edits in self.edits:
            if backbone == self.backbone:
                flat |= dict(edits)
        return tuple(sorted(flat.items()))

    def architecture(self) -> str:
        """Name of the network before freezing and head: same text, same `BackboneFacts`."""
        parts: list[Any] = [self.backbone, self.weights, self.weights_fallback, self.own_edits(), self.head_replaces]
        if self.adapters != "none":
            parts.append(self.adapters)
        if self.normalisation != "weights":
            parts.append(f"normalisation {self.normalisation}")
        return json.dumps(parts)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data: every field, tuples as lists. `from_json` gives an equal recipe back."""
        return {f.name: _to_plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote. Raises TypeError on an unknown field."""
        return cls(**{name: _to_tuples(value) for name, value in data.items()})

    def canonical(self, facts: SpaceFacts) -> Recipe:
        """The same work in one spelling: what has no effect is back at its default, what cannot be is clipped.

        `weights` becomes what was really loaded, `unfrozen` the name of the first open stage where one exists.
        Raises KeyError if the facts do not know this recipe's architecture, ValueError for an unknown stage name.
        """
        backbone = facts.backbones[self.architecture()]
        opening = open_parameters(self, backbone)
        default = Recipe.__dataclass_fields__
        changes: dict[str, Any] = {"weights": backbone.weights, "weights_fallback": "", "edits": self.own_edits()}

        def drop(*names: str) -> None:
            changes.update({name: default[name].default for name in names})

        changes["batch_size"] = min(self.batch_size, max(1, facts.data.train_size))
        if not self.head_widths:
            drop("dropout", "head_activation")
        if self.optimizer != "sgd":
            drop("momentum")
        if self.schedule not in ("exponential", "step"):
            drop("lr_gamma")
        if self.schedule != "step":
            drop("lr_step_epochs")
        if self.patience >= self.epochs:
            drop("patience")
        if not self.augments:
            drop("augment_views")
        changes["head_first_epochs"] = min(self.head_first_epochs, self.epochs)
        if not opening.parameters:
            drop("head_first_epochs", "layer_decay", "norm", "parameters")
            changes.update(unfrozen=HEAD, stages=None, unfrozen_tensors=None)
        else:
            if opening.spelling is not None:
                changes.update(unfrozen=opening.spelling, stages=None, unfrozen_tensors=None)
            elif self.stages is not None or self.unfrozen_tensors is not None:
                changes["unfrozen"] = HEAD
            plain = open_parameters(dataclasses.replace(self, norm=str(default["norm"].default)), backbone)
            if plain.digest == opening.digest:
                drop("norm")
        rates = dict(self.lr_multipliers)
        changes["lr_multipliers"] = tuple(
            sorted((group, rates[group]) for group in opening.groups if rates.get(group, 1.0) != 1.0)
        )
        if {HEAD} >= set(opening.groups):
            drop("lr_groups")
        if not backbone.has_auxiliary_heads:
            drop("auxiliary")
        return dataclasses.replace(self, **changes)

    def key(self, facts: SpaceFacts) -> str:
        """20 hex digits: equal for equal work. Hashes the canonical recipe, the opening, weights, data and numerics."""
        canonical = self.canonical(facts)
        backbone = facts.backbones[self.architecture()]
        # As written, not as canonical: an opening says by itself what has no effect on it.
        opening = open_parameters(self, backbone)
        payload = canonical.to_json()
        for name in (
            "unfrozen",
            "stages",
            "unfrozen_tensors",
            "parameters",
            "lr_multipliers",
            "lr_groups",
            "layer_decay",
            "norm",
        ):
            del payload[name]
        for name in YOUNGER:
            if payload[name] == Recipe.__dataclass_fields__[name].default:
                del payload[name]
        payload |= {
            "version": KEY_VERSION,
            "opening": opening.digest,
            "rates": opening.rates(self),
            "weights_sha256": backbone.weights_sha256,
            "data": facts.data.fingerprint,
            "numerics": dataclasses.asdict(facts.numerics_for(self)),
        }
        return digest(payload)[:20]


YOUNGER = ("normalisation",)
"""Fields that came after KEY_VERSION was set: at their default they are left out of keys, which so stay what they were."""

AUGMENTATIONS = ("horizontal_flip", "rotation", "brightness", "contrast", "saturation", "hue", "grayscale", "crop_scale")


@dataclass(frozen=True)
class DataSettings:
    """The YAML `data:` section: which images, how split, how decoded. Fixed within a study."""

    source: str
    """`folder:PATH`, `csv:PATH`, `torchvision:NAME`, `orl_faces` or `fashion_mnist`."""
    split: tuple[tuple[str, float], ...] = (("train", 0.7), ("val", 0.15), ("test", 0.15))
    """Counts per class (whole numbers of at least 1) or fractions, for train, val and test, where the source has no split."""
    split_seed: int = 0
    """Seed of the stratified split."""
    folders: tuple[tuple[str, str], ...] = ()
    """Names of the sub-folders that hold train, val and test, where they are not the usual ones."""
    image_size: int = 224
    """Side of the square that the network sees, in pixels."""
    resize: str = "squash"
    """`squash` (change the aspect), `crop` (shorter side, then centre) or `pad` (longer side, then black)."""
    store_size: int = 0
    """Side of the stored square; larger than image_size keeps pixels for augmentation and crops; 0: image_size."""
    interpolation: str = "bilinear"
    """`bilinear`, `bicubic`, `lanczos` or `nearest`: Pillow's filters."""
    max_unreadable: float = 0.01
    """Largest share of images that may be unreadable."""
    labels: str = ""
    """A JSON file that maps folder names to class names."""
    root: str = ""
    """Folder that relative paths stand in (the space file's folder), and where torchvision downloads to if set by the user."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives equal settings back."""
        return {f.name: _to_plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataSettings:
        """The settings that `to_json` wrote."""
        return cls(**{name: _to_tuples(value) for name, value in data.items()})


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter tensor of a backbone (the replaced head's are not listed)."""

    name: str
    size: int
    """Number of elements."""
    stage: str
    kind: str
    """`weight`, `bias`, `norm_weight`, `norm_bias`, `other` (tokens, position embeddings, layer scales), or `adapter`: a side
    branch that is there to be trained, whatever is open."""


@dataclass(frozen=True)
class StageFacts:
    """One stage: its name and the modules (dotted prefixes) that belong to it, in order of execution."""

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class BackboneFacts:
    """What a backbone with given weights, edits and `head_replaces` really is."""

    backbone: str
    weights: str
    """What was really loaded (after a fallback): never what was only wished for."""
    weights_sha256: str
    """Of the weights file; `random:SEED` for random weights."""
    weights_source: str
    """Where they came from, for people: a path, a package, or `random`."""
    fell_back: str
    """Why the fallback was taken; empty: it was not."""
    stages: tuple[StageFacts, ...]
    """Stem first; the head is not among them."""
    parameters: tuple[ParameterFacts, ...]
    """Ordered by stage, then as in the model."""
    batch_norms: tuple[tuple[str, str], ...]
    """(module, stage) of every BatchNorm with running statistics, in the same order."""
    head: str
    """Dotted name of the module that our head replaces."""
    num_features: int
    """Inputs of the head."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int
    """The side in pixels that the weights were trained at."""
    has_auxiliary_heads: bool = False
    notes: tuple[str, ...] = ()
    """Facts a person should read: a head dropped from a weights file, and the like."""
    depthwise_weights: tuple[str, ...] = ()
    """Names of the weights of depthwise convolutions (as many groups as input channels)."""

    @cached_property
    def depthwise(self) -> frozenset[str]:
        return frozenset(self.depthwise_weights)

    @cached_property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Parameter name to kind."""
        return {p.name: p.kind for p in self.parameters}

    @cached_property
    def openings(self) -> dict[Any, Opening]:
        """Memo of `open_parameters`: the driver asks for the same few openings thousands of times."""
        return {}

    def has_norms_among(self, opening: Opening) -> bool:
        """Whether `norm` has any say in the given opening."""
        return bool(opening.norm_candidates) or any(self.kinds[n].startswith("norm") for n in opening.parameters)


@dataclass(frozen=True)
class DataFacts:
    """What the data really are."""

    source: str
    fingerprint: str
    """Digest of the decoded images, labels, split and preprocessing."""
    classes: tuple[str, ...]
    counts: tuple[tuple[str, tuple[int, ...]], ...]
    """(split, images per class in the order of `classes`)."""
    unreadable: tuple[str, ...] = ()
    leaks: tuple[tuple[str, ...], ...] = ()
    """Groups of byte-identical images that stand in more than one split."""
    notes: tuple[str, ...] = ()

    def size(self, split: str) -> int:
        """Number of images of a split; 0 where there is none."""
        return sum(dict(self.counts).get(split, ()))

    @property
    def train_size(self) -> int:
        return self.size("train")


@dataclass(frozen=True)
class SpaceFacts:
    """What a space's backbones, weights and data really are. Made once by `searchft.facts.describe`."""

    data: DataFacts
    backbones: Mapping[str, BackboneFacts]
    """By `Recipe.architecture()`."""
    processor: Processor = field(default_factory=Processor)
    """What the study's numbers are computed on, found when it was created: going on elsewhere changes no numerics."""

    def numerics_for(self, recipe: Recipe) -> Numerics:
        """The numerics that a recipe runs with, by the table of `searchft.numerics`."""
        return self.rule_for(recipe).numerics

    def rule_for(self, recipe: Recipe) -> Rule:
        """The row of the table that gives a recipe its numerics, with the reason."""
        backbone = self.backbones[recipe.architecture()]
        opened = open_parameters(recipe, backbone).parameters
        trains = HEAD_ALONE if not opened else OTHERS if backbone.depthwise.isdisjoint(opened) else DEPTHWISE
        return find_rule(recipe.precision, self.processor, trains)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives equal facts back."""
        plain = _to_plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceFacts:
        """The facts that `to_json` wrote."""

        def backbone(raw: Mapping[str, Any]) -> BackboneFacts:
            values = {name: _to_tuples(value) for name, value in raw.items()}
            values["stages"] = tuple(StageFacts(s["name"], tuple(s["modules"])) for s in raw["stages"])
            values["parameters"] = tuple(ParameterFacts(**p) for p in raw["parameters"])
            return BackboneFacts(**values)

        return cls(
            data=DataFacts(**{name: _to_tuples(value) for name, value in data["data"].items()}),
            backbones={name: backbone(raw) for name, raw in data["backbones"].items()},
            processor=Processor(**data.get("processor", {})),
        )


@dataclass(frozen=True)
class Opening:
    """Which part of a backbone trains: a pure consequence of recipe and facts. The head always trains beside it."""

    parameters: tuple[str, ...]
    """Backbone parameters that train, in model order."""
    modules: tuple[str, ...]
    """Prefixes of the open region: modules below them follow train and eval mode, all others stay in eval mode."""
    train_norms: tuple[str, ...]
    """BatchNorms that update their statistics (a subset of those in the open region)."""
    norm_candidates: tuple[str, ...]
    """BatchNorms that lie in the open region, whatever `norm` says."""
    groups: Mapping[str, tuple[str, ...]]
    """Learning-rate group to parameters; `head` maps to () because the head's parameters are not the backbone's."""
    distances: Mapping[str, int]
    """Stages between a parameter and the head: 1 for the last stage."""
    spelling: str | None
    """The plainest value of `unfrozen` that says the same (`head`, `layer4`, `all`), if there is one."""

    @cached_property
    def digest(self) -> str:
        """Equal for equal openings, however they were written."""
        return digest([self.parameters, self.modules, self.train_norms])

    def rates(self, recipe: Recipe) -> dict[str, float]:
        """Effective learning-rate factor of each open parameter, and of the head, relative to `lr`."""
        multipliers = dict(recipe.lr_multipliers)
        rates = {HEAD: multipliers.get(HEAD, 1.0)}
        for group, names in self.groups.items():
            for name in names:
                rates[name] = multipliers.get(group, 1.0) * recipe.layer_decay ** self.distances[name]
        return rates


def open_parameters(recipe: Recipe, backbone: BackboneFacts) -> Opening:
    """Which parameters of `backbone` the recipe trains.

    Raises ValueError with the rule and the known names if the recipe names a stage or module that does not exist.
    """
    split = any(group in ("top", "deep") for group, _ in recipe.lr_multipliers)
    asked = (recipe.unfrozen, recipe.stages, recipe.unfrozen_tensors, recipe.parameters, recipe.norm, recipe.lr_groups, split)
    if asked not in backbone.openings:
        backbone.openings[asked] = _open_parameters(recipe, backbone)
    return backbone.openings[asked]


def _open_parameters(recipe: Recipe, backbone: BackboneFacts) -> Opening:
    names = backbone.stage_names
    adapters = tuple(p for p in backbone.parameters if p.kind == "adapter")
    native = tuple(p for p in backbone.parameters if p.kind != "adapter")
    order = {p.name: i for i, p in enumerate(native)}
    within: str | None = None
    if recipe.unfrozen_tensors is not None:
        count = recipe.unfrozen_tensors
        chosen = native[len(native) - min(count, len(native)) :] if count else ()
        modules = tuple(dict.fromkeys(p.name.rpartition(".")[0] for p in chosen))
        stages = tuple(dict.fromkeys(p.stage for p in chosen))
    else:
        if recipe.stages is not None:
            unknown = [s for s in recipe.stages if s not in names]
            if unknown:
                raise ValueError(f"must name stages of {backbone.backbone} ({', '.join(names)}) but got {unknown[0]!r}")
            stages = tuple(s for s in names if s in recipe.stages)
        else:
            stages, within = _stages_from(recipe.unfrozen, backbone)
        opened = set(stages)
        chosen = tuple(p for p in native if p.stage in opened)
        modules = tuple(m for s in backbone.stages if s.name in opened for m in s.modules)
        if within is not None:
            first = min(i for p, i in order.items() if p == within or p.startswith(within + "."))
            chosen = tuple(p for p in chosen if order[p.name] >= first)
            cut_stage = native[first].stage
            inner = tuple(dict.fromkeys(p.name.rpartition(".")[0] for p in chosen if p.stage == cut_stage))
            rest = tuple(m for s in backbone.stages if s.name in opened and s.name != cut_stage for m in s.modules)
            modules = (within, *(m for m in inner if m != within and not m.startswith(within + ".")), *rest)
    opened_stages = stages
    norms = tuple(m for m, _ in backbone.batch_norms if any(m == p or m.startswith(p + ".") or p == "" for p in modules))
    whole = chosen
    if recipe.parameters == "bias":
        chosen = tuple(p for p in chosen if p.kind in ("bias", "norm_bias"))
    elif recipe.parameters == "norm":
        chosen = tuple(p for p in chosen if p.kind.startswith("norm"))
    if recipe.norm in ("frozen", "running"):
        chosen = tuple(p for p in chosen if not p.kind.startswith("norm"))
    train_norms = norms if recipe.norm in ("stats", "running") and recipe.parameters in ("all", "norm") else ()
    # Adapters train whatever is open; their stages count among the open ones for the groups of rates.
    chosen = (*chosen, *adapters)
    stages = tuple(s for s in names if s in stages or any(p.stage == s for p in adapters))
    spelling = None
    if not whole:
        spelling = HEAD
    elif recipe.unfrozen_tensors is None and within is None and opened_stages == names[len(names) - len(opened_stages) :]:
        spelling = "all" if opened_stages == names else opened_stages[0]
    return Opening(
        parameters=tuple(p.name for p in chosen),
        modules=modules,
        train_norms=train_norms,
        norm_candidates=norms,
        groups=_groups(recipe, backbone, chosen, stages),
        distances={p.name: len(names) - names.index(p.stage) for p in chosen},
        spelling=spelling,
    )


def _stages_from(unfrozen: str | int, backbone: BackboneFacts) -> tuple[tuple[str, ...], str | None]:
    """The open stages of a value of `unfrozen`, and the module within the first of them that it starts at."""
    names = backbone.stage_names
    if unfrozen == HEAD or unfrozen == 0:
        return (), None
    if unfrozen == "all":
        return names, None
    if isinstance(unfrozen, int):
        if unfrozen > len(names):
            raise ValueError(f"must be at most {len(names)}, the stages of {backbone.backbone}, but got {unfrozen}")
        return names[len(names) - unfrozen :], None
    if unfrozen in names:
        return names[names.index(unfrozen) :], None
    for parameter in backbone.parameters:
        if parameter.name.startswith(unfrozen + "."):
            stage = next(s for s in backbone.stages if s.name == parameter.stage)
            if unfrozen == stage.modules[0]:
                return names[names.index(parameter.stage) :], None
            return names[names.index(parameter.stage) :], unfrozen
    raise ValueError(
        f"must be 'head', 'all', a count, or a stage ({', '.join(names)}) or module of {backbone.backbone} but got {unfrozen!r}"
    )


def _groups(
    recipe: Recipe, backbone: BackboneFacts, chosen: tuple[ParameterFacts, ...], stages: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Learning-rate groups: own ones, or `top` and `deep` where a multiplier names them, or `backbone`."""
    own = {stage: group for group, members in recipe.lr_groups for stage in members}
    split = any(group in ("top", "deep") for group, _ in recipe.lr_multipliers)
    groups: dict[str, list[str]] = {HEAD: []}
    for parameter in chosen:
        if own:
            group = own.get(parameter.stage, "backbone")
        elif split:
            group = "top" if parameter.stage == stages[-1] else "deep"
        else:
            group = "backbone"
        groups.setdefault(group, []).append(parameter.name)
    return {group: tuple(members) for group, members in groups.items()}


def trained_parameters(recipe: Recipe, facts: SpaceFacts) -> int:
    """How many numbers the recipe trains: the open backbone parameters, adapters and the whole head."""
    backbone = facts.backbones[recipe.architecture()]
    opened = set(open_parameters(recipe, backbone).parameters)
    widths = [backbone.num_features, *recipe.head_widths, len(facts.data.classes)]
    head = sum(inputs * outputs + outputs for inputs, outputs in itertools.pairwise(widths))
    return head + sum(p.size for p in backbone.parameters if p.name in opened)


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON-able value; keys sorted, so equal values have equal digests."""
    text = json.dumps(_to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    return value


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list | tuple) else value
