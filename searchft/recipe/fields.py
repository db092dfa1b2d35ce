"""THE table of fields: every key of `recipe`, `data` and `search`, declared once.

From its lines follow validation and its messages, did-you-mean, the asking order, `Recipe.canonical` and `key`, differences between
spaces, words, `init`'s comments, docs/grammar.md and the JSON schema. To add a field, add its line here and the code that acts on it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from types import MappingProxyType
from typing import Any, Self

import searchft.recipe.kinds as kinds
from searchft.recipe.kinds import FACTOR, PROBABILITY, SEED, SHARE, SWITCH, Kind, real, whole, word
from searchft.wording import to_plain, to_tuples

HEAD = "head"  # Name of the new classifier head: a value of `unfrozen`, and a learning-rate group

# What a field decides.
NETWORK = "network"  # before freezing and head: `architecture()`
OPENING = "opening"  # which parameters train
RATES = "rates"  # the learning rates of the open parameters, relative to `lr`
NEW_HEAD = "new head"
TRAINING = "training"
AUGMENTATION = "augmentation"  # a random change of training images
GROUND = "ground"  # the images: another value is another study
NOTHING = "nothing"  # nothing that a configuration scores: how a space is searched


# --- what a line of the table says ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class When:
    """The condition under which a field has an effect; elsewhere `canonical` puts its default back."""

    says: str  # After "has an effect", e.g. `with optimizer: sgd`
    holds: Callable[[Any, Any, Any], bool]  # Of a recipe, its `Opening` and its `BackboneFacts`


@dataclass(frozen=True)
class Field:
    """A line of the table, as the rest of the program reads it."""

    kind: Kind
    meaning: str  # One sentence; `init` and docs/grammar.md print it
    decides: str
    when: When | None = None
    says: str | None = ""
    """The value in words, `{0}` or `{rate}`; after ` | ` the default in words. Empty: name and value; None: never said."""
    aliases: str = ""  # What other programs call it
    was: str = ""  # What it was called in studies of earlier versions
    key: str | None = None  # The YAML's word; None: the field's name; empty: the field has no key of its own
    name: str = ""  # The attribute of its dataclass
    default: Any = None

    def in_words(self, value: Any, rate: str = "") -> str:
        """`dropout 0.5`, `no clipping`; `rate`: a number as one writes a rate."""
        template, _, of_default = (self.says or "").partition(" | ")
        template = template or f"{self.name.replace('_', ' ')} {{0}}"
        if value == self.default and of_default:
            return of_default
        shown = self.kind.label(value)
        return template.format(f"{shown:g}" if isinstance(shown, float) else shown, rate=rate)


def row(default: Any, kind: Kind, meaning: str, decides: str, **more: Any) -> Any:
    """One line of the table: a dataclass field with its `Field`. A field whose default is MISSING must be given."""
    return dataclasses.field(default=default, metadata={"field": Field(kind, meaning, decides, **more)})


class Settings:
    """A section of the table as plain JSON data, and back."""

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON data. `from_json` gives an equal value back."""
        return to_plain(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` wrote, here or in a study of an earlier version. Raises TypeError on an unknown field."""
        return cls(**{RENAMED.get(name, name): to_tuples(value) for name, value in data.items()})


# --- tables of variants --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer."""

    build: str  # Its class, `module:name`; called with groups, lr and the values of the fields in `takes`
    takes: tuple[str, ...]
    states: int  # Numbers that it keeps per trained parameter


OPTIMIZERS: Mapping[str, OptimizerRow] = MappingProxyType(
    {
        "sgd": OptimizerRow("torch.optim:SGD", ("momentum", "weight_decay"), states=1),
        "adam": OptimizerRow("torch.optim:Adam", ("weight_decay",), states=2),
        "adamw": OptimizerRow("torch.optim:AdamW", ("weight_decay",), states=2),
    }
)

STRATEGIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "head": {"unfrozen": "head", "adapters": "none"},
        "full": {"unfrozen": "all", "parameters": "all", "adapters": "none"},
        "partial": {"parameters": "all", "adapters": "none"},
        "scratch": {"unfrozen": "all", "parameters": "all", "adapters": "none", "weights": "none", "weights_fallback": ""},
        "bias": {"unfrozen": "all", "parameters": "bias", "adapters": "none"},
        "norm": {"unfrozen": "all", "parameters": "norm", "adapters": "none"},
        "tinytl": {"unfrozen": "all", "parameters": "bias", "adapters": "lite_residual"},
    }
)
"""The literature's names for sets of recipe values: a macro that fills them in. What a row does not name stays with the space
(`partial`: how far to open). Bias training: BitFit (Ben Zaken et al. 2022, arXiv:2106.10199); norms alone: Frankle et al. 2021
(arXiv:2003.00152); TinyTL's lite residual adapters beside biases: Cai et al. 2020 (arXiv:2007.11622)."""


def _optimizers_with(field: str) -> When:
    names = [name for name, one in OPTIMIZERS.items() if field in one.takes]
    return When(f"with optimizer: {' or '.join(names)}", lambda recipe, opening, backbone: recipe.optimizer in names)


def _schedules(*names: str) -> When:
    return When(f"with schedule: {' or '.join(names)}", lambda recipe, opening, backbone: recipe.schedule in names)


HIDDEN_LAYER = When("with a hidden layer", lambda recipe, opening, backbone: bool(recipe.head_widths))
SOMETHING_OPEN = When("where something of the backbone is open", lambda recipe, opening, backbone: bool(opening.parameters))
GROUPS_OPEN = When(SOMETHING_OPEN.says, lambda recipe, opening, backbone: not {HEAD} >= set(opening.groups))
AUXILIARY_HEADS = When("in networks that have such heads", lambda recipe, opening, backbone: backbone.has_auxiliary_heads)
AUGMENTED = When("beside an augmentation", lambda recipe, opening, backbone: recipe.augments)
BEFORE_THE_END = When("where it is smaller than epochs", lambda recipe, opening, backbone: recipe.patience < recipe.epochs)


# fmt: off
@dataclass(frozen=True)
class RecipeFields(Settings):
    """The YAML's `recipe:`. One fine-tuning, every value resolved; lists are tuples, mappings tuples of pairs sorted by key.

    The order is the asking order: what decides whether others matter stands before them.
    """

    backbone: str = row(MISSING, kinds.BACKBONE, "`torchvision/NAME`, `timm/NAME`, `searchft/NAME` (small ones of ours) or "
        "`python:FILE.py:NAME` (with --allow-code).", NETWORK, aliases="model model_name arch architecture network encoder")
    weights: str = row("pretrained", kinds.WEIGHTS, "A torchvision enum name, `pretrained` (the library's default), "
        "`package`, `file:PATH`, or `none` (random).", NETWORK, aliases="checkpoint pretrained_weights")
    weights_fallback: str = row("", kinds.FALLBACK, "What to use where `weights` cannot be had: same values as `weights`; "
        "empty means: refuse.", NETWORK, says=None)
    edits: tuple[tuple[str, Any], ...] = row((), kinds.EDITS, "Attributes to set, e.g. `{conv1.stride: 1}`, and modules to "
        "keep, append or replace (see below). `{torchvision/alexnet: {…}}` holds edits of that backbone alone: they have no "
        "effect on others.", NETWORK, says="edits {0} | no edits")
    head_replaces: str = row("last", word("last", "classifier"), "`last`: the final linear layer is replaced; `classifier`: "
        "the whole classifier block around it.", NETWORK, says="whole classifier replaced | last layer replaced")
    adapters: str = row("none", word("none", "lite_residual"), "Side branches that train whatever is open: `none` or "
        "`lite_residual` (TinyTL).", NETWORK, says="{0} adapters | no adapters", aliases="peft adapter")
    normalization: str = row("weights", word("weights", "none"), "`weights` (the mean and deviation the weights were trained "
        "with) or `none` (pixels from 0 to 1 as they are).", NETWORK, says="pixels as they are | pixels normalized",
        aliases="normalize normalise", was="normalisation")
    auxiliary: bool = row(False, SWITCH, "Train the auxiliary heads of GoogLeNet and Inception too, with their customary "
        "weight.", NEW_HEAD, says="auxiliary heads trained | no auxiliary heads", when=AUXILIARY_HEADS, aliases="aux_logits")
    unfrozen: str | int = row(HEAD, kinds.UNFROZEN, "How much trains: `head`, `all`, a count of stages from the end, or a "
        "stage or module name: that one and everything after it.", OPENING, aliases="freeze frozen unfreeze trainable "
        "freeze_until freeze_backbone frozen_stages freeze_layers trainable_layers unfreeze_layers unfreeze_from")
    stages: tuple[str, ...] | None = row(None, kinds.STAGES, "Named stages to open instead of `unfrozen` (any set, not only "
        "the last ones).", OPENING)
    unfrozen_tensors: int | None = row(None, whole(0, 1_000_000), "Open the last n parameter tensors of the backbone instead "
        "of `unfrozen`.", OPENING)
    parameters: str = row("all", word("all", "bias", "norm"), "Which parameters of the open stages train: `all`, `bias` "
        "(biases only) or `norm` (normalization layers only).", OPENING, when=SOMETHING_OPEN)
    norm: str = row("stats", word("frozen", "affine", "stats", "running"), "BatchNorm of the open stages: `frozen`, `affine` "
        "(scale and shift train), `stats` (batch statistics too), or `running` (batch statistics alone: what PyTorch's train "
        "mode does to a BatchNorm whose scale and shift are frozen).", OPENING, when=SOMETHING_OPEN,
        aliases="batch_norm batchnorm bn norm_eval freeze_bn")
    head_widths: tuple[int, ...] = row((), kinds.WIDTHS, "Widths of the head's hidden layers, input side first; empty: one "
        "linear layer.", NEW_HEAD, aliases="hidden hidden_units hidden_layers hidden_size hidden_dim head fc classifier")
    head_activation: str = row("relu", word("relu", "gelu", "none"), "`relu`, `gelu` or `none`, after each hidden layer.",
        NEW_HEAD, when=HIDDEN_LAYER, aliases="activation")
    dropout: float = row(0.0, SHARE, "Dropout probability after each hidden layer.", NEW_HEAD, when=HIDDEN_LAYER,
        aliases="drop drop_rate dropout_rate hidden_dropout")
    input_dropout: float = row(0.0, SHARE, "Dropout probability before the head's first layer.", NEW_HEAD,
        aliases="head_dropout")
    optimizer: str = row("adam", word(*OPTIMIZERS), "The optimizer.", TRAINING, says="{0}",
        aliases="opt optim optimiser solver")
    schedule: str = row("constant", word("constant", "cosine", "exponential", "step"), "`constant`, `cosine`, `exponential` "
        "or `step`, per optimizer step for cosine, per epoch for the others.", TRAINING, says="{0} schedule",
        aliases="scheduler sched lr_scheduler lr_schedule lr_policy")
    epochs: int = row(10, whole(1, 10_000), "Passes over the training set, `head_first_epochs` included.", TRAINING,
        says="{0} epochs", aliases="num_epochs n_epochs max_epochs num_train_epochs train_epochs")
    batch_size: int = row(32, whole(1, kinds.NUMBER_LIMIT), "Images per optimizer step.", TRAINING, says="batch {0}",
        aliases="bs batch train_batch_size per_device_train_batch_size")
    lr: float = row(1e-3, real(0, 100, open_low=True), "Base learning rate.", TRAINING, says="lr {rate}",
        aliases="learning_rate rate base_lr lr0 max_lr init_lr")
    lr_groups: tuple[tuple[str, tuple[str, ...]], ...] = row((), kinds.LR_GROUPS, "Own parameter groups: name to stages. Open "
        "stages not named belong to `backbone`.", RATES,
        when=GROUPS_OPEN, aliases="param_groups parameter_groups")
    lr_multipliers: tuple[tuple[str, float], ...] = row((), kinds.LR_MULTIPLIERS, "Learning-rate multiplier per parameter "
        "group, each a value or choices; groups not named have 1.0.", RATES,
        aliases="lr_mult lr_factors backbone_lr head_lr lr_scale")
    layer_decay: float = row(1.0, FACTOR, "Rate factor per stage of distance from the head (head: 0, last stage: 1).", RATES,
        when=SOMETHING_OPEN, aliases="llrd layerwise_lr_decay lr_layer_decay")
    momentum: float = row(0.9, SHARE, "SGD's momentum.", TRAINING, when=_optimizers_with("momentum"))
    weight_decay: float = row(0.0, real(0, 10), "Weight decay, as the optimizer means it: decoupled (adamw) or L2 (sgd, adam).", TRAINING,
        says="weight decay {rate}", aliases="wd l2 decay")
    lr_gamma: float = row(0.9, FACTOR, "Factor of the exponential (per epoch) or step (per `lr_step_epochs`) schedule.",
        TRAINING, says="gamma {0}", when=_schedules("exponential", "step"), aliases="gamma decay_rate lr_decay")
    lr_step_epochs: int = row(10, whole(1, 10_000), "Epochs between two drops of the step schedule.", TRAINING,
        says="a drop every {0} epochs", when=_schedules("step"), aliases="step_size decay_epochs milestones")
    warmup_epochs: float = row(0.0, real(0, 10_000), "Epochs of linear warm-up from zero.", TRAINING,
        says="warm-up {0} epochs | no warm-up", aliases="warmup warmup_steps warmup_ratio")
    head_first_epochs: int = row(0, whole(0, 10_000), "Epochs in which only the head trains, before the rest opens (LP-FT, "
        "Kumar et al. 2022, arXiv:2202.10054).", TRAINING, says="head first for {0} epochs | no head start",
        when=SOMETHING_OPEN, aliases="freeze_epochs lp_epochs lp_ft")
    label_smoothing: float = row(0.0, SHARE, "Label smoothing of the cross entropy.", TRAINING, says=" | no label smoothing",
        aliases="smoothing")
    class_weights: str = row("none", word("none", "balanced"), "`none` or `balanced` (inverse class frequency, mean 1).",
        TRAINING, says="balanced classes | plain class weights", aliases="class_weight balanced weighted_loss loss_weights")
    clip_norm: float = row(0.0, real(0, 1_000_000, unit="(0: no clipping)"), "Largest gradient norm; 0: no clipping.", TRAINING,
        says="gradients clipped at {0} | no clipping", aliases="clip_grad grad_clip max_grad_norm gradient_clip_val clip")
    patience: int = row(0, whole(0, 10_000), "Stop after this many epochs without a better validation accuracy; 0: never.",
        TRAINING, says=" | no early stop", when=BEFORE_THE_END, aliases="early_stopping early_stop early_stopping_patience")
    validate_every: int = row(0, whole(0, 1_000_000), "Also validate every so many steps (for its curve only); 0: once per "
        "epoch.", TRAINING, says=None, aliases="eval_steps val_check_interval eval_every")
    final_softmax: bool = row(False, SWITCH, "A softmax between head and cross entropy: a known mistake, offered to show what "
        "it costs (searchft warns).", TRAINING, says="a softmax too many | no final softmax", aliases="softmax")
    horizontal_flip: float = row(0.0, PROBABILITY, "Probability of a horizontal flip.", AUGMENTATION,
        says="flips {0} | no flips", aliases="augment augmentation augmentations flip hflip random_flip fliplr")
    rotation: float = row(0.0, real(0, 180, unit="degrees"), "Largest rotation in degrees, either way.", AUGMENTATION,
        says="rotation {0}° | no rotation", aliases="rotate degrees random_rotation")
    brightness: float = row(0.0, PROBABILITY, "Color jitter: brightness factor drawn from [1-x, 1+x].", AUGMENTATION,
        says="brightness ±{0} | brightness as is", aliases="color_jitter colour_jitter jitter")
    contrast: float = row(0.0, PROBABILITY, "Color jitter: contrast factor drawn from [1-x, 1+x].", AUGMENTATION,
        says="contrast ±{0} | contrast as is")
    saturation: float = row(0.0, PROBABILITY, "Color jitter: saturation factor drawn from [1-x, 1+x].", AUGMENTATION,
        says="saturation ±{0} | saturation as is")
    hue: float = row(0.0, real(0, 0.5), "Color jitter: hue shift drawn from [-x, x], x at most 0.5.", AUGMENTATION,
        says="hue ±{0} | hue as is")
    grayscale: float = row(0.0, PROBABILITY, "Probability of turning an image gray.", AUGMENTATION, says="gray {0} | in color",
        aliases="greyscale gray grey random_grayscale")
    crop_scale: float = row(1.0, FACTOR, "Random resized crop: smallest share of the area kept; 1.0: no crop.", AUGMENTATION,
        says="crops from {0} | no crops", aliases="crop random_crop random_resized_crop scale")
    precision: str = row("auto", word("auto", "fp32", "bf16"), "`auto`, `fp32` or `bf16`.", TRAINING, says="{0} precision",
        aliases="amp fp16 bf16 fp32 dtype mixed_precision half")
    augment_views: int = row(0, whole(0, 1000), "Fixed random views per image to cycle through, so that frozen features can "
        "be stored; 0: fresh ones for ever.", TRAINING, says="{0} fixed views | fresh views", when=AUGMENTED, aliases="views")
    seed: int = row(0, SEED, "Seed of head initialization, order, dropout, augmentation and of random weights; the study's "
        "unless given.", TRAINING, aliases="random_state random_seed")

    @property
    def augments(self) -> bool:
        """Whether any random augmentation is on."""
        return any(getattr(self, name) != RECIPE[name].default for name in AUGMENTATIONS)

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
        for name in names_that_decide(NETWORK)[len(parts) :]:
            if (value := getattr(self, name)) != RECIPE[name].default:
                parts.append(f"{name} {value}")
        return json.dumps(parts)


def architecture_now(text: str) -> str:
    """What `architecture` calls the network that a study of an earlier version called `text`."""
    first, more = json.loads(text)[:5], json.loads(text)[5:]
    for old, name in RENAMED.items():
        more = [part.replace(f"{old} ", f"{name} ", 1) for part in more]
    return json.dumps([*first, *(part if " " in part else f"adapters {part}" for part in more)])


@dataclass(frozen=True)
class DataSettings(Settings):
    """The YAML's `data:`: which images, how split, how decoded. Fixed within a study."""

    source: str = row(MISSING, kinds.SOURCE, "`folder:PATH`, `csv:PATH`, `torchvision:NAME`, `orl_faces` or `fashion_mnist`.",
        GROUND, aliases="dataset path folder data_dir dir")
    split: tuple[tuple[str, float], ...] = row((("train", 0.7), ("val", 0.15), ("test", 0.15)), kinds.SPLIT,
        "Counts per class (whole numbers of at least 1) or fractions, for train, val and test, where the source has no split; "
        "`seed` beside them.", GROUND, aliases="splits val_split validation_split test_size")
    split_seed: int = row(0, SEED, "Seed of the stratified split.", GROUND, key="")
    folders: tuple[tuple[str, str], ...] = row((), kinds.FOLDERS, "Names of the sub-folders that hold train, val and test, "
        "where they are not the usual ones.", GROUND, aliases="subfolders train_dir val_dir")
    image_size: int = row(224, whole(8, 4096), "Side of the square that the network sees, in pixels; larger sees more and "
        "takes longer.", GROUND, aliases="img_size imgsz input_size resolution size")
    resize: str = row("squash", word("squash", "crop", "pad"), "`squash` (change the aspect), `crop` (shorter side, then "
        "center) or `pad` (longer side, then black).", GROUND, aliases="crop_mode")
    store_size: int = row(0, whole(8, 4096, or_zero="the image size"), "Side of the stored square; larger than image_size "
        "keeps pixels for augmentation and crops; 0: image_size.", GROUND)
    interpolation: str = row("bilinear", word("bilinear", "bicubic", "lanczos", "nearest"),
        "`bilinear`, `bicubic`, `lanczos` or `nearest`: Pillow's filters.", GROUND)
    max_unreadable: float = row(0.01, PROBABILITY, "Largest share of images that may be unreadable.", GROUND)
    labels: str = row("", kinds.LABELS, "A JSON file that maps folder names to class names.", GROUND,
        aliases="class_names label_file")
    root: str = row("", kinds.PATH, "Folder that relative paths stand in (the space file's unless given), and where "
        "torchvision downloads to if given.", NOTHING)


@dataclass(frozen=True)
class SearchSettings(Settings):
    """The YAML's `search:`: who suggests, who prunes, how much. None of it changes what a configuration scores, except `seed`."""

    sampler: str = row("tpe", word("tpe", "random", "grid"), "Who suggests: `tpe`, `random` or `grid`.", NOTHING,
        aliases="algorithm search_alg")
    pruner: str = row("median", word("none", "median", "percentile", "asha", "hyperband", "patient"),
        "What stops a trial early; `median`: being worse than half of the others were at that epoch.", NOTHING,
        aliases="pruning")
    trials: int = row(40, whole(1, 1_000_000), "Total of the study: complete, pruned and failed ones; those answered from the "
        "record do not count.", NOTHING, aliases="n_trials num_trials max_trials num_samples max_evals")
    seed: int = row(0, SEED, "Seed of the sampler, and of every recipe that has none of its own.", TRAINING)
    timeout_s: float = row(0.0, real(0, 31_536_000, rule="must be 0 (no limit) or more seconds, at most 31536000"),
        "Seconds after which this invocation starts nothing new; 0: no limit.", NOTHING, key="timeout",
        aliases="time_budget time_budget_s max_time")
    max_retries: int = row(2, whole(0, 100), "How often a trial whose worker died is taken up again.", NOTHING,
        aliases="retries max_failures")
    keep_checkpoints: int = row(5, whole(1, 10_000), "How many of the best trials keep their weights on disk.", NOTHING,
        aliases="save_top_k save_total_limit")
    startup_trials: int = row(10, whole(0, 100_000), "Random trials before TPE begins to learn.", NOTHING,
        aliases="n_startup_trials warmup_trials")
    prune_startup_trials: int = row(5, whole(0, 100_000), "Finished curves that median and percentile need before they stop "
        "anything.", NOTHING)
    prune_warmup_epochs: int = row(1, whole(0, 10_000), "Epochs that every trial runs unjudged.", NOTHING,
        aliases="n_warmup_steps grace_period")
    prune_percentile: float = row(25.0, real(0, 100, open_low=True, open_high=True), "Pruner `percentile`: the share of best "
        "trials (in percent) that goes on.", NOTHING, aliases="percentile")
    prune_patience: int = row(5, whole(1, 10_000), "Pruner `patient`: epochs without a better value before a trial stops.",
        NOTHING)
    reduction_factor: int = row(3, whole(2, 100), "Pruners `asha` and `hyperband`: one of so many goes on at each rung.",
        NOTHING, aliases="eta reduction")
    min_epochs: int = row(1, whole(1, 10_000), "Pruners `asha` and `hyperband`: epochs up to the first rung.", NOTHING,
        aliases="min_resource min_budget")


# fmt: on
# --- what the rest of the program reads ----------------------------------------------------------------------------


def fields_of(table: type) -> Mapping[str, Field]:
    """The lines of a section by the YAML's key, or by name where they have no key."""
    found: dict[str, Field] = {}
    for one in dataclasses.fields(table):
        field: Field = one.metadata["field"]
        key = one.name if field.key is None else field.key
        default = None if one.default is MISSING else one.default
        found[key or one.name] = dataclasses.replace(field, key=key, name=one.name, default=default)
    return MappingProxyType(found)


def _line(name: str, kind: Kind, meaning: str, **more: Any) -> Field:
    return Field(kind, meaning, NOTHING, key=name, name=name, **more)


RECIPE = fields_of(RecipeFields)  # The fields of Recipe, in asking order
_MACROS = (f"`{name}` = {', '.join(f'{k}: {v}' for k, v in values.items())}" for name, values in STRATEGIES.items())
STRATEGY = _line(
    "strategy",
    word(*STRATEGIES),
    f"A macro over several of these values: {'; '.join(_MACROS)}.",
    aliases="method tuning finetuning_type",
)
ENQUEUE = _line(
    "enqueue",
    Kind("must be a list of rows such as {name: Baseline, unfrozen: head}", {}, shape="list"),
    "Named configurations to try first, see below.",
    aliases="experiments baselines configs points_to_evaluate",
)
SECTIONS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {
        "": {"study": _line("study", kinds.STUDY, "The study's name, and its folder's.", aliases="name study_name experiment")},
        "data": fields_of(DataSettings),
        "recipe": {"strategy": STRATEGY, **RECIPE},
        "search": {**fields_of(SearchSettings), "enqueue": ENQUEUE},
    }
)
"""Every key that a space may hold, by section."""


def names_that_decide(*what: str) -> tuple[str, ...]:
    """Names of the recipe fields that decide one of these, in asking order."""
    return tuple(name for name, field in RECIPE.items() if field.decides in what)


AUGMENTATIONS = names_that_decide(AUGMENTATION)
RENAMED = MappingProxyType({old: name for name, field in RECIPE.items() for old in field.was.split()})
"""What recipe fields were called in studies of earlier versions, and are called now."""
