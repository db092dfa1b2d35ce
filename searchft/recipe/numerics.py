"""How numbers are computed: a table, looked up by precision, kind of processor and what trains. No stopwatch decides a number.

Measured on a 2-core x86-64 with AVX512-BF16: folding, channels_last and bfloat16 together run a frozen part 2.9 times faster.
Plain data: imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from searchft.machine import Processor
from searchft.recipe.facts import SpaceFacts
from searchft.recipe.fields import RecipeFields
from searchft.recipe.opening import open_parameters

HEAD_ALONE, DEPTHWISE, OTHERS = "head", "depthwise", "others"
"""What trains: nothing but the head; backbone parameters of which more than DEPTHWISE_SHARE are depthwise convolutions'; others."""

DEPTHWISE_SHARE = 0.02
"""EfficientNet-lite0's last stage (1.0 %) takes 31 ms a step in bfloat16 and 45 in float32, its last two (4.2 %) 257 and 169 (min of 7)."""


@dataclass(frozen=True)
class Numerics:
    """Part of every key."""

    frozen_dtype: str = "float32"
    """Of the frozen part."""
    trainable_dtype: str = "float32"
    """Of the trainable part; its parameters and their updates are float32 always."""
    channels_last: bool = False
    fold: bool = False
    """Whether BatchNorms of the frozen part are folded into its convolutions."""
    pad_first: bool = False
    """Whether training puts the zeros around maps smaller than their depthwise kernel beforehand (see `train.network.pad_first`)."""

    def __str__(self) -> str:
        """`frozen layers in bfloat16 with BatchNorm folded in, trainable layers in float32, channels last`."""
        folded = " with BatchNorm folded in" if self.fold else ""
        layout = ", channels last" if self.channels_last else ""
        return f"frozen layers in {self.frozen_dtype}{folded}, trainable layers in {self.trainable_dtype}{layout}"


@dataclass(frozen=True)
class Rule:
    """A row: numerics for what it names. None stands for anything."""

    precision: str
    kind: str | None
    native_bf16: bool | None
    trains: str | None
    numerics: Numerics
    why: str


_HEAD = "a head gains nothing from bfloat16"
_DEPTHWISE = "depthwise convolutions train more slowly in bfloat16"
_NO_BF16 = "the processor has no native bfloat16"

RULES = (
    Rule("fp32", None, None, None, Numerics(), "exact: the same bits with and without stored values"),
    Rule("bf16", None, None, None, Numerics("bfloat16", "bfloat16", channels_last=True), "as asked for"),
    Rule("auto", "cpu", True, HEAD_ALONE, Numerics("bfloat16", "float32", True, True), _HEAD),
    Rule("auto", "cpu", True, DEPTHWISE, Numerics("bfloat16", "float32", True, True, pad_first=True), _DEPTHWISE),
    Rule(
        "auto", "cpu", True, OTHERS, Numerics("bfloat16", "bfloat16", True, True), "the processor multiplies bfloat16 natively"
    ),
    Rule("auto", "cpu", False, DEPTHWISE, Numerics("float32", "float32", True, True, pad_first=True), _NO_BF16),
    Rule("auto", "cpu", False, None, Numerics("float32", "float32", True, True), _NO_BF16),
    Rule("auto", "cuda", True, HEAD_ALONE, Numerics("bfloat16", "float32", True, True), _HEAD),
    Rule("auto", "cuda", True, None, Numerics("bfloat16", "bfloat16", True, True), "cards since Ampere multiply bfloat16"),
    Rule("auto", "cuda", False, None, Numerics("float32", "float32", True, True), "cards before Ampere have no bfloat16"),
    Rule("auto", None, None, None, Numerics(), "nothing was measured on this kind of processor"),
)
"""The first row that fits holds."""


def find_rule(precision: str, processor: Processor, trains: str) -> Rule:
    """The row for a recipe's `precision`, the study's processor and what trains (`HEAD_ALONE`, `DEPTHWISE` or `OTHERS`)."""
    return next(
        rule
        for rule in RULES
        if rule.precision == precision
        and rule.kind in (None, processor.kind)
        and rule.native_bf16 in (None, processor.native_bf16)
        and rule.trains in (None, trains)
    )


def rule_for(recipe: RecipeFields, facts: SpaceFacts) -> Rule:
    """The row that gives a recipe its numerics."""
    opening = open_parameters(recipe, facts.backbones[recipe.architecture()])
    many = opening.depthwise_share > DEPTHWISE_SHARE
    trains = HEAD_ALONE if not opening.parameters else DEPTHWISE if many else OTHERS
    return find_rule(recipe.precision, facts.processor, trains)
