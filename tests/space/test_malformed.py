"""Malformed spaces, each with every message it must give: the exact words, the line, nothing more and nothing less."""

from __future__ import annotations

import pytest

from searchft.errors import InputError
from searchft.space import parse_space

HEAD = """\
study: s
data: {source: orl_faces}
recipe:
  backbone: torchvision/resnet18
"""


def recipe(*lines: str) -> str:
    """A space whose `recipe` goes on with these lines, from line 5."""
    return HEAD + "".join(f"  {line}\n" for line in lines)


def data(*lines: str) -> str:
    """A space whose `data` goes on with these lines, from line 5."""
    head = "study: s\nrecipe: {backbone: torchvision/resnet18}\ndata:\n  source: orl_faces\n"
    return head + "".join(f"  {line}\n" for line in lines)


def search(*lines: str) -> str:
    """A space whose `search` has these lines, from line 5; dropout is a choice of 0.0 and 0.5."""
    head = "study: s\ndata: {source: orl_faces}\nrecipe: {backbone: torchvision/resnet18, dropout: [0.0, 0.5]}\nsearch:\n"
    return head + "".join(f"  {line}\n" for line in lines)


CASES = {
    "value_out_of_range": (recipe("dropout: 1.5"), ["x.yaml:5: recipe.dropout: must lie in [0, 1) but got 1.5"]),
    "choice_out_of_range": (recipe("dropout: [0.0,", "  1.0]"), ["x.yaml:6: recipe.dropout: must lie in [0, 1) but got 1.0"]),
    "unknown_key": (recipe("droput: 0.5"), ["x.yaml:5: recipe.droput: unknown key 'droput', did you mean 'dropout'?"]),
    "unknown_key_far_from_all": (
        recipe("zzz: 1"),
        [
            (
                "x.yaml:5: recipe.zzz: unknown key 'zzz': recipe's keys are strategy, backbone, weights, "
                "weights_fallback, edits, head_replaces, normalisation, unfrozen, stages, unfrozen_tensors, parameters, norm, "
                "adapters, head_widths, head_activation, dropout, input_dropout, optimizer, lr, lr_groups, "
                "layer_decay, momentum, weight_decay, schedule, lr_gamma, lr_step_epochs, warmup_epochs, batch_size, "
                "epochs, head_first_epochs, label_smoothing, class_weights, clip_norm, patience, validate_every, "
                "auxiliary, final_softmax, horizontal_flip, rotation, brightness, contrast, saturation, hue, "
                "grayscale, crop_scale, augment_views, precision, seed, lr_multipliers"
            )
        ],
    ),
    "dotted_key": (
        recipe("lr_multipliers.top: 0.5"),
        [("x.yaml:5: recipe.lr_multipliers.top: unknown key 'lr_multipliers.top': write lr_multipliers: {top: …}")],
    ),
    "key_of_another_section": (
        recipe("image_size: 64"),
        ["x.yaml:5: recipe.image_size: unknown key 'image_size' here: it belongs under data"],
    ),
    "key_at_top_level": (HEAD + "epochs: 5\n", ["x.yaml:5: epochs: unknown key 'epochs' here: it belongs under recipe"]),
    "section_misspelt": (HEAD + "serach: {trials: 3}\n", ["x.yaml:5: serach: unknown key 'serach', did you mean 'search'?"]),
    "duplicate_key": (
        recipe("dropout: 0.5", "epochs: 3", "dropout: 0.1"),
        ["x.yaml:7: recipe.dropout: must stand once but stands already on line 5: remove one of the two"],
    ),
    "duplicate_key_in_flow": (
        recipe("edits: {conv1.stride: 1, conv1.stride: 2}"),
        [("x.yaml:5: recipe.edits.conv1.stride: must stand once but stands already on this line: remove one of the two")],
    ),
    "duplicate_section": (
        HEAD + "recipe: {}\n",
        ["x.yaml:5: recipe: must stand once but stands already on line 3: remove one of the two"],
    ),
    "alias": (
        recipe("dropout: &d 0.5", "input_dropout: *d"),
        [
            "x.yaml:5: recipe.dropout: must be plain but has the anchor &d: anchors and aliases are not read",
            "x.yaml:6: recipe.input_dropout: must be written out but got the alias *d: aliases are not read",
        ],
    ),
    "merge_key": (
        recipe("<<: {dropout: 0.5}"),
        ["x.yaml:5: recipe.<<: must be written out but got the merge key <<: merges are not read"],
    ),
    "billion_laughs": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        [
            "x.yaml: study: must be given: the study's name",
            "x.yaml: data: must be given: which images to learn from",
            "x.yaml: recipe: must be given: what to fine-tune, and how",
            "x.yaml:1: a: must be plain but has the anchor &a: anchors and aliases are not read",
            "x.yaml:1: a: unknown key 'a': the keys are study, data, recipe, search",
            "x.yaml:2: b: must be plain but has the anchor &b: anchors and aliases are not read",
            "x.yaml:2: b: must be written out but got the alias *a: aliases are not read",
            "x.yaml:2: b: unknown key 'b': the keys are study, data, recipe, search",
            "x.yaml:3: c: must be written out but got the alias *b: aliases are not read",
            "x.yaml:3: c: unknown key 'c': the keys are study, data, recipe, search",
        ],
    ),
    "python_tag": (
        recipe("backbone2: !!python/object/apply:os.system [ls]"),
        [
            (
                "x.yaml:5: recipe.backbone2: must be a plain value but has the tag '!!python/object/apply:os.system':"
                " tags are not read, remove it"
            ),
            "x.yaml:5: recipe.backbone2: unknown key 'backbone2', did you mean 'backbone'?",
        ],
    ),
    "str_tag": (
        recipe("weights: !!str none"),
        [("x.yaml:5: recipe.weights: must be a plain value but has the tag '!!str': tags are not read, remove it")],
    ),
    "too_deep": (recipe("edits: " + "[" * 30), ["x.yaml:5: must be nested at most 20 deep but goes deeper here"]),
    "nan": (recipe("lr: .nan"), ["x.yaml:5: recipe.lr: must be a finite number but got .nan"]),
    "infinity": (recipe("lr: [1e-3, -.inf]"), ["x.yaml:5: recipe.lr: must be a finite number but got -.inf"]),
    "overflowing_float": (recipe("lr: 1e999"), ["x.yaml:5: recipe.lr: must be a finite number but got 1e999"]),
    "long_integer": (
        recipe("seed: " + "9" * 30),
        ["x.yaml:5: recipe.seed: must have at most 18 digits but got a number of 30"],
    ),
    "leading_zero": (
        recipe("batch_size: 010"),
        [
            (
                "x.yaml:5: recipe.batch_size: must not begin with 0 but got 010 (octal to some, decimal to others): "
                "remove the zero"
            )
        ],
    ),
    "sexagesimal": (recipe("epochs: 1:30"), ["x.yaml:5: recipe.epochs: must be a whole number from 1 to 10000 but got '1:30'"]),
    "hexadecimal": (
        recipe("batch_size: 0x10"),
        ["x.yaml:5: recipe.batch_size: must be a whole number from 1 to 65536 but got '0x10'"],
    ),
    "boolean_for_number": (
        recipe("batch_size: true"),
        ["x.yaml:5: recipe.batch_size: must be a whole number from 1 to 65536 but got true"],
    ),
    "boolean_for_real": (recipe("dropout: false"), ["x.yaml:5: recipe.dropout: must lie in [0, 1) but got false"]),
    "boolean_among_numbers": (
        recipe("head_widths: [[true]]"),
        [
            (
                "x.yaml:5: recipe.head_widths: must be a list of at most 8 widths (whole numbers from 1 to 65536), "
                "e.g. [256, 128], or a list of such lists but got [true]"
            )
        ],
    ),
    "quoted_number": (
        recipe("lr: '1e-3'"),
        ["x.yaml:5: recipe.lr: must lie in (0, 100] but got '1e-3': write the number without quotes"],
    ),
    "real_for_whole_number": (
        recipe("epochs: 5.0"),
        ["x.yaml:5: recipe.epochs: must be a whole number from 1 to 10000 but got 5.0: write 5"],
    ),
    "off_for_none": (
        search("pruner: off"),
        [
            (
                "x.yaml:5: search.pruner: must be one of none, median, percentile, asha, hyperband, patient but got "
                "'off': write the word none"
            )
        ],
    ),
    "no_for_none": (
        recipe("weights: no"),
        [
            (
                "x.yaml:5: recipe.weights: must be pretrained, package, none, file:PATH or the name of a torchvision "
                "weights entry such as IMAGENET1K_V1 but got 'no': write the word none"
            )
        ],
    ),
    "false_for_none": (
        search("pruner: false"),
        [
            (
                "x.yaml:5: search.pruner: must be one of none, median, percentile, asha, hyperband, patient but got "
                "false: write the word none"
            )
        ],
    ),
    "null_for_none": (
        recipe("weights_fallback: null"),
        [
            (
                "x.yaml:5: recipe.weights_fallback: must be pretrained, package, none, file:PATH or the name of a "
                "torchvision weights entry such as IMAGENET1K_V1 but got no value: write the word none"
            )
        ],
    ),
    "None_for_none": (
        recipe("weights: None"),
        [
            (
                "x.yaml:5: recipe.weights: must be pretrained, package, none, file:PATH or the name of a torchvision "
                "weights entry such as IMAGENET1K_V1 but got 'None', did you mean 'none'?"
            )
        ],
    ),
    "yes_for_true": (
        recipe("auxiliary: yes"),
        ["x.yaml:5: recipe.auxiliary: must be true or false but got 'yes': write true, without quotes"],
    ),
    "empty_value": (
        recipe("epochs:"),
        [
            (
                "x.yaml:5: recipe.epochs: must be a whole number from 1 to 10000 but got no value: write a value, or "
                "remove the key"
            )
        ],
    ),
    "enum_misspelt": (
        recipe("optimizer: adamW"),
        ["x.yaml:5: recipe.optimizer: must be one of sgd, adam, adamw but got 'adamW', did you mean 'adamw'?"],
    ),
    "enum_unknown": (
        recipe("schedule: linear"),
        ["x.yaml:5: recipe.schedule: must be one of constant, cosine, exponential, step but got 'linear'"],
    ),
    "unfrozen_case": (
        recipe("unfrozen: Head"),
        [
            (
                "x.yaml:5: recipe.unfrozen: must be head, all, a count of stages from the end (0 to 1000), or the "
                "name of a stage or module but got 'Head', did you mean 'head'?"
            )
        ],
    ),
    "unfrozen_negative": (
        recipe("unfrozen: -1"),
        [
            (
                "x.yaml:5: recipe.unfrozen: must be head, all, a count of stages from the end (0 to 1000), or the "
                "name of a stage or module but got -1"
            )
        ],
    ),
    "unfrozen_real": (
        recipe("unfrozen: [head, 1.5]"),
        [
            (
                "x.yaml:5: recipe.unfrozen: must be head, all, a count of stages from the end (0 to 1000), or the "
                "name of a stage or module but got 1.5"
            )
        ],
    ),
    "choice_twice": (
        recipe("lr: [1, 1.0]"),
        ["x.yaml:5: recipe.lr: must list each choice once but got 1 and 1.0, which are the same"],
    ),
    "zero_and_head": (
        recipe("unfrozen: [0, head]"),
        ["x.yaml:5: recipe.unfrozen: must list each choice once but got 0 and 'head', which are the same"],
    ),
    "stages_in_two_orders": (
        recipe("stages: [[layer3, layer4], [layer4, layer3]]"),
        [
            (
                "x.yaml:5: recipe.stages: must list each choice once but got ['layer3', 'layer4'] and ['layer4', "
                "'layer3'], which are the same"
            )
        ],
    ),
    "stages_word": (
        recipe("stages: layer4"),
        [
            (
                "x.yaml:5: recipe.stages: must be a list of stage names, e.g. [layer3, layer4], or a list of such "
                "lists but got 'layer4': write [layer4]"
            )
        ],
    ),
    "widths_twice": (
        recipe("head_widths: [[], [8], []]"),
        ["x.yaml:5: recipe.head_widths: must list each choice once but got [] twice"],
    ),
    "widths_mixed": (
        recipe("head_widths: [[256, 128], 64]"),
        [("x.yaml:5: recipe.head_widths: must be one list or a list of lists but mixes the two with 64: write [64]")],
    ),
    "widths_scalar": (
        recipe("head_widths: 256"),
        [
            (
                "x.yaml:5: recipe.head_widths: must be a list of at most 8 widths (whole numbers from 1 to 65536), "
                "e.g. [256, 128], or a list of such lists but got 256: write [256]"
            )
        ],
    ),
    "width_zero": (
        recipe("head_widths: [256, 0]"),
        [
            (
                "x.yaml:5: recipe.head_widths: must be a list of at most 8 widths (whole numbers from 1 to 65536), "
                "e.g. [256, 128], or a list of such lists but got [256, 0]"
            )
        ],
    ),
    "no_choices": (recipe("dropout: []"), ["x.yaml:5: recipe.dropout: must list at least one choice but the list is empty"]),
    "choices_not_a_list": (
        recipe("dropout: {choices: 0.5}"),
        ["x.yaml:5: recipe.dropout.choices: must be a list but got 0.5: write choices: [0.5]"],
    ),
    "choices_with_a_neighbour": (
        recipe("dropout: {choices: [0.5], step: 1}"),
        ["x.yaml:5: recipe.dropout: must hold nothing beside choices but got the key 'step'"],
    ),
    "range_mapping": (
        recipe("lr: {low: 1e-4, high: 1e-2}"),
        [
            (
                "x.yaml:5: recipe.lr: must be a value, a list of choices, or {choices: […]} but got the mapping {low:"
                " 0.0001, high: 0.01}"
            )
        ],
    ),
    "edits_without_module": (
        recipe("edits: {stride: 1}"),
        [("x.yaml:5: recipe.edits: must name module.attribute, e.g. conv1.stride, as 'stride' does not, but got {stride: 1}")],
    ),
    "edits_private": (
        recipe("edits: {conv1.__class__: 1}"),
        [("x.yaml:5: recipe.edits: must not edit private attributes such as 'conv1.__class__' but got {conv1.__class__: 1}")],
    ),
    "edits_nested": (
        recipe("edits: {conv1.stride: {a: 1}}"),
        [
            (
                "x.yaml:5: recipe.edits: must give conv1.stride a number, a text, true, false, or a list of those but"
                " got {conv1.stride: {a: 1}}"
            )
        ],
    ),
    "edits_list": (
        recipe("edits: [conv1.stride]"),
        [
            (
                "x.yaml:5: recipe.edits: must map module.attribute to a value, e.g. {conv1.stride: 1}, or be a list "
                "of such mappings but got 'conv1.stride'"
            )
        ],
    ),
    "multipliers_scalar": (
        recipe("lr_multipliers: 0.5"),
        [
            (
                "x.yaml:5: recipe.lr_multipliers: must map groups to multipliers but got 0.5: choices stand inside, "
                "as in {top: [1.0, 0.6]}"
            )
        ],
    ),
    "multipliers_list": (
        recipe("lr_multipliers: [{top: 1.0}, {top: 0.5}]"),
        [
            (
                "x.yaml:5: recipe.lr_multipliers: must map groups to multipliers but got [{top: 1.0}, {top: 0.5}]: "
                "choices stand inside, as in {top: [1.0, 0.6]}"
            )
        ],
    ),
    "multiplier_zero": (
        recipe("lr_multipliers: {deep: [1.0, 0]}"),
        ["x.yaml:5: recipe.lr_multipliers.deep: must lie in (0, 1000] but got 0"],
    ),
    "group_misspelt": (
        recipe("lr_multipliers: {depe: 0.1}"),
        [
            (
                "x.yaml:5: recipe.lr_multipliers.depe: must name one of the groups head, backbone, top, deep but got "
                "'depe', did you mean 'deep'?"
            )
        ],
    ),
    "group_unknown": (
        recipe("lr_multipliers: {q: 0.1}"),
        [
            (
                "x.yaml:5: recipe.lr_multipliers.q: must name one of the groups head, backbone, top, deep but got "
                "'q': groups of your own are named under lr_groups"
            )
        ],
    ),
    "backbone_beside_top": (
        recipe("lr_multipliers: {backbone: 0.1, top: 0.5}"),
        [
            (
                "x.yaml:5: recipe.lr_multipliers.backbone: must not stand beside top or deep, which divide the "
                "backbone: name those two only"
            )
        ],
    ),
    "top_beside_own_groups": (
        recipe("lr_groups: {early: [layer1]}", "lr_multipliers: {top: 0.5}"),
        ["x.yaml:6: recipe.lr_multipliers.top: must name one of the groups head, backbone, early but got 'top'"],
    ),
    "reserved_group": (
        recipe("lr_groups: {head: [layer1]}"),
        [
            (
                "x.yaml:5: recipe.lr_groups: must not name a group head, which has a meaning of its own, but got "
                "{head: ['layer1']}"
            )
        ],
    ),
    "stage_in_two_groups": (
        recipe("lr_groups: {a: [layer1], b: [layer1]}"),
        [
            (
                "x.yaml:5: recipe.lr_groups: must put each stage into one group, and layer1 once, but got {a: "
                "['layer1'], b: ['layer1']}"
            )
        ],
    ),
    "two_openers": (
        recipe("unfrozen: layer4", "stages: [layer3]"),
        [("x.yaml:6: recipe.stages: must not stand beside unfrozen, which decides the same: remove one of the two")],
    ),
    "strategy_unknown": (
        recipe("strategy: halfway"),
        ["x.yaml:5: recipe.strategy: must be one of head, full, partial, scratch, bias, norm, tinytl but got 'halfway'"],
    ),
    "strategy_conflict": (
        recipe("strategy: [full, bias]", "unfrozen: layer4"),
        [("x.yaml:6: recipe.unfrozen: must not stand beside strategy full, which sets unfrozen to all: remove one of the two")],
    ),
    "strategy_conflict_elsewhere": (
        recipe("strategy: tinytl", "parameters: all"),
        [
            (
                "x.yaml:6: recipe.parameters: must not stand beside strategy tinytl, which sets parameters to bias: "
                "remove one of the two"
            )
        ],
    ),
    "scratch_with_weights": (
        recipe("strategy: scratch", "weights: IMAGENET1K_V1"),
        [
            (
                "x.yaml:6: recipe.weights: must not stand beside strategy scratch, which sets weights to none: remove"
                " one of the two"
            )
        ],
    ),
    "nothing_but_head_trains": (
        recipe("parameters: norm", "norm: frozen"),
        ["x.yaml:6: recipe.norm: must not be frozen beside parameters: norm, or nothing but the head trains"],
    ),
    "backbone_without_library": (
        "study: s\ndata: {source: orl_faces}\nrecipe: {backbone: resnet18}\n",
        [
            (
                "x.yaml:3: recipe.backbone: must be torchvision/NAME, timm/NAME, searchft/NAME or python:FILE.py:NAME but got "
                "'resnet18': write torchvision/resnet18 or timm/resnet18 (`searchft models resnet18` says which exist)"
            )
        ],
    ),
    "backbone_missing": (
        "study: s\ndata: {source: orl_faces}\nrecipe:\n  epochs: 3\n",
        [("x.yaml:3: recipe.backbone: must be given: torchvision/NAME or timm/NAME (`searchft models` lists them)")],
    ),
    "everything_missing": (
        "{}\n",
        [
            "x.yaml: study: must be given: the study's name",
            "x.yaml: data: must be given: which images to learn from",
            "x.yaml: recipe: must be given: what to fine-tune, and how",
        ],
    ),
    "empty_file": ("# nothing here\n", ["x.yaml: must hold a space (study, data, recipe, search) but is empty"]),
    "list_file": ("- a\n", ["x.yaml:1: must be a mapping with the keys study, data, recipe and search but got ['a']"]),
    "scalar_file": ("hello\n", ["x.yaml:1: must be a mapping with the keys study, data, recipe and search but got 'hello'"]),
    "section_is_a_list": (
        "study: s\ndata: {source: orl_faces}\nrecipe: [a]\n",
        ["x.yaml:3: recipe: must be a mapping of keys to values but got ['a']"],
    ),
    "section_is_empty": (
        "study: s\ndata:\nrecipe: {backbone: torchvision/resnet18}\n",
        ["x.yaml:2: data: must be a mapping of keys to values but got no value"],
    ),
    "two_documents": (HEAD + "---\nstudy: t\n", ["x.yaml:5: must hold one document but a second one begins here (`---`)"]),
    "tab": (
        "study: s\ndata:\n\tsource: orl_faces\n",
        [
            (
                "x.yaml:3: must be readable YAML but found character '\\t' that cannot start any token (column 1): "
                "indent with spaces, not tabs"
            )
        ],
    ),
    "colon_in_value": (
        "study: s\ndata: {source: orl_faces}\nrecipe:\n  weights: file: x\n",
        [
            (
                "x.yaml:4: must be readable YAML but mapping values are not allowed here (column 16): check the "
                "indentation, and put a text that holds ': ' in quotes"
            )
        ],
    ),
    "unclosed_bracket": (
        "study: s\nrecipe: {backbone: [a\n",
        [
            (
                "x.yaml:3: must be readable YAML but expected ',' or ']', but got '<stream end>' (column 1), in what "
                "begins on line 2: a bracket is not closed, or a comma is missing"
            )
        ],
    ),
    "unclosed_quote": (
        "study: 's\n",
        [
            (
                "x.yaml:2: must be readable YAML but found unexpected end of stream (column 1), in what begins on "
                "line 1: a quote is not closed"
            )
        ],
    ),
    "bad_indentation": (
        "study: s\n  data: 1\nrecipe: 2\n",
        [
            (
                "x.yaml:2: must be readable YAML but mapping values are not allowed here (column 7): check the "
                "indentation, and put a text that holds ': ' in quotes"
            )
        ],
    ),
    "control_character": ("study: s\x07\n", ["x.yaml:1: must be plain text but holds the control character U+0007"]),
    "escaped_control_character": (
        'study: "a\\0b"\n',
        [
            "x.yaml: data: must be given: which images to learn from",
            "x.yaml: recipe: must be given: what to fine-tune, and how",
            "x.yaml:1: study: must be printable text but got 'a\\x00b'",
        ],
    ),
    "lone_surrogate": (
        'study: "\\ud800"\n',
        [
            "x.yaml: data: must be given: which images to learn from",
            "x.yaml: recipe: must be given: what to fine-tune, and how",
            "x.yaml:1: study: must be printable text but got '\\ud800'",
        ],
    ),
    "escape_out_of_range": (
        'study: "\\UFFFFFFFF"\n',
        ["x.yaml:1: must be readable YAML but an escape or a number here means nothing"],
    ),
    "glob_value": (
        data("root: *.jpg"),
        [
            (
                "x.yaml:5: must be readable YAML but expected alphabetic or numeric character, but found '.' (column "
                "10): put a text that begins with * or & in quotes"
            )
        ],
    ),
    "list_as_key": (recipe("? [a, b]", ": 1"), ["x.yaml:5: recipe: must have texts as keys but a key is a list or a mapping"]),
    "empty_key": (
        recipe(": 1"),
        [
            (
                "x.yaml:5: must be readable YAML but expected <block end>, but found ':' (column 3), in what begins "
                "on line 4: lines of one mapping or list begin in the same column"
            )
        ],
    ),
    "study_with_slash": (
        HEAD.replace("study: s", "study: ../s"),
        [
            (
                "x.yaml:1: study: must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins "
                "with a letter, a digit or '_' but got '../s'"
            )
        ],
    ),
    "study_hidden": (
        HEAD.replace("study: s", "study: .s"),
        [
            (
                "x.yaml:1: study: must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins "
                "with a letter, a digit or '_' but got '.s'"
            )
        ],
    ),
    "study_number": (
        HEAD.replace("study: s", "study: 2026"),
        [
            (
                "x.yaml:1: study: must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins "
                "with a letter, a digit or '_' but got 2026: write '2026', in quotes"
            )
        ],
    ),
    "study_long": (
        HEAD.replace("study: s", "study: " + "x" * 101),
        [
            (
                "x.yaml:1: study: must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins "
                "with a letter, a digit or '_' but got "
                "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"
            )
        ],
    ),
    "source_misspelt": (
        HEAD.replace("orl_faces", "orl_face"),
        [
            (
                "x.yaml:2: data.source: must be folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist "
                "but got 'orl_face', did you mean 'orl_faces'?"
            )
        ],
    ),
    "source_folder_without_path": (
        HEAD.replace("orl_faces", "'folder:'"),
        [
            (
                "x.yaml:2: data.source: must be folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist "
                "but got 'folder:', did you mean 'folder:PATH'?"
            )
        ],
    ),
    "choices_under_data": (
        data("image_size: [64, 96]"),
        [
            (
                "x.yaml:5: data.image_size: must be a whole number from 8 to 4096 but got [64, 96]: data takes one "
                "value, choices stand under recipe"
            )
        ],
    ),
    "image_size_small": (data("image_size: 4"), ["x.yaml:5: data.image_size: must be a whole number from 8 to 4096 but got 4"]),
    "store_size_below_image_size": (
        data("image_size: 96", "store_size: 64"),
        ["x.yaml:6: data.store_size: must be 0 or at least image_size (96) but got 64"],
    ),
    "split_mixed": (
        data("split: {train: 2, val: 0.5}"),
        [("x.yaml:5: data.split: must hold counts per class or fractions, not both, but got {train: 2, val: 0.5}")],
    ),
    "split_too_much": (
        data("split: {train: 0.9, val: 0.2}"),
        ["x.yaml:5: data.split: must hold fractions of at most 1 together but they make 1.1"],
    ),
    "split_without_val": (
        data("split: {train: 2}"),
        [
            (
                "x.yaml:5: data.split.val: must be given where a split is: a mapping such as {train: 0.7, val: 0.15, "
                "test: 0.15, seed: 0}"
            )
        ],
    ),
    "split_real_count": (
        data("split: {train: 2.0, val: 3}"),
        [
            (
                "x.yaml:5: data.split.train: must be a count per class (a whole number of at least 1) or a fraction "
                "in (0, 1) but got 2.0: write 2"
            )
        ],
    ),
    "split_unknown": (
        data("split: {train: 2, validation: 3}"),
        [
            "x.yaml:5: data.split.validation: unknown key 'validation', did you mean 'val'?",
            (
                "x.yaml:5: data.split.val: must be given where a split is: a mapping such as {train: 0.7, val: 0.15, "
                "test: 0.15, seed: 0}"
            ),
        ],
    ),
    "split_scalar": (
        data("split: 0.8"),
        [("x.yaml:5: data.split: must be a mapping such as {train: 0.7, val: 0.15, test: 0.15, seed: 0} but got 0.8")],
    ),
    "folders_same": (
        data("folders: {train: a, val: a}"),
        ["x.yaml:5: data.folders.val: must be a folder of its own but got 'a' twice"],
    ),
    "trials_zero": (search("trials: 0"), ["x.yaml:5: search.trials: must be a whole number from 1 to 1000000 but got 0"]),
    "timeout_negative": (
        search("timeout: -1"),
        ["x.yaml:5: search.timeout: must be 0 (no limit) or more seconds, at most 31536000 but got -1"],
    ),
    "timeout_named_by_its_unit": (
        search("timeout_s: 5"),
        ["x.yaml:5: search.timeout_s: unknown key 'timeout_s', did you mean 'timeout'?"],
    ),
    "search_key_misspelt": (
        search("prunner: median"),
        ["x.yaml:5: search.prunner: unknown key 'prunner', did you mean 'pruner'?"],
    ),
    "enqueue_mapping": (
        search("enqueue: {name: a}"),
        [("x.yaml:5: search.enqueue: must be a list of rows such as {name: Baseline, unfrozen: head} but got {name: 'a'}")],
    ),
    "row_is_a_word": (
        search("enqueue: [Baseline]"),
        [("x.yaml:5: search.enqueue[0]: must be a row such as {name: Baseline, unfrozen: head} but got 'Baseline'")],
    ),
    "row_without_name": (
        search("enqueue:", "  - {dropout: 0.5}"),
        ["x.yaml:6: search.enqueue[0].name: must be given: what the trial will be called"],
    ),
    "row_name_number": (
        search("enqueue:", "  - {name: 7}"),
        [("x.yaml:6: search.enqueue[0].name: must be a text of at most 100 characters but got 7: write '7', in quotes")],
    ),
    "row_names_equal": (
        search("enqueue:", "  - {name: a}", "  - {name: a, dropout: 0.5}"),
        ["x.yaml:7: search.enqueue[1].name: must be distinct but 'a' is the name of another row"],
    ),
    "row_key_unknown": (
        search("enqueue:", "  - {name: a, droput: 0.5}"),
        ["x.yaml:6: search.enqueue[a].droput: unknown key 'droput', did you mean 'dropout'?"],
    ),
    "row_value_no_choice": (
        search("enqueue:", "  - {name: a}", "  - {name: b, dropout: 0.3}"),
        ["x.yaml:7: search.enqueue[b].dropout: must be one of the choices 0.0, 0.5 but got 0.3"],
    ),
    "row_value_list": (
        search("enqueue:", "  - {name: a, dropout: [0.5]}"),
        [("x.yaml:6: search.enqueue[a].dropout: must be one of the choices 0.0, 0.5 but got [0.5]: a row takes one value")],
    ),
    "row_value_not_the_fixed_one": (
        search("enqueue:", "  - {name: a, backbone: torchvision/vgg11}"),
        [
            (
                "x.yaml:6: search.enqueue[a].backbone: must be torchvision/resnet18, the value under recipe.backbone,"
                " but got 'torchvision/vgg11'"
            )
        ],
    ),
    "row_value_not_in_space": (
        search("enqueue:", "  - {name: a, lr: 0.1}"),
        [
            (
                "x.yaml:6: search.enqueue[a].lr: must be among the choices but the space does not give lr: list 0.1 "
                "under recipe.lr too"
            )
        ],
    ),
    "row_duplicate_key": (
        search("enqueue:", "  - {name: a, dropout: 0.5, dropout: 0.0}"),
        [("x.yaml:6: search.enqueue.dropout: must stand once but stands already on this line: remove one of the two")],
    ),
    "many_at_once": (
        "study: a/b\ndata: {source: orl_faces, imagesize: 64}\nrecipe:\n"
        "  backbone: resnet18\n  droput: 0.5\n  lr: [0, 1e-3]\n  lr: 3\nsearch:\n  sampler: bayes\n  trials: -3\n",
        [
            (
                "x.yaml:1: study: must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins "
                "with a letter, a digit or '_' but got 'a/b'"
            ),
            "x.yaml:2: data.imagesize: unknown key 'imagesize', did you mean 'image_size'?",
            (
                "x.yaml:4: recipe.backbone: must be torchvision/NAME, timm/NAME, searchft/NAME or python:FILE.py:NAME but got "
                "'resnet18': write torchvision/resnet18 or timm/resnet18 (`searchft models resnet18` says which exist)"
            ),
            "x.yaml:5: recipe.droput: unknown key 'droput', did you mean 'dropout'?",
            "x.yaml:6: recipe.lr: must lie in (0, 100] but got 0",
            "x.yaml:7: recipe.lr: must stand once but stands already on line 6: remove one of the two",
            "x.yaml:9: search.sampler: must be one of tpe, random, grid but got 'bayes'",
            "x.yaml:10: search.trials: must be a whole number from 1 to 1000000 but got -3",
        ],
    ),
    "empty_key_in_flow": (
        recipe("edits: {: 1}"),
        [
            (
                "x.yaml:5: must be readable YAML but expected the node content, but found ':' (column 11): a value is"
                " missing or a bracket is not closed"
            )
        ],
    ),
    "strategy_beside_stages": (
        recipe("strategy: head", "stages: [layer4]"),
        [("x.yaml:6: recipe.stages: must not stand beside strategy head, which sets unfrozen to head: remove one of the two")],
    ),
    "row_value_set_by_the_strategy": (
        search("enqueue: [{name: a, unfrozen: head}]").replace("dropout:", "strategy: [full, bias], dropout:"),
        ["x.yaml:5: search.enqueue[a].unfrozen: must not be given: the strategy sets it"],
    ),
    "row_multipliers_scalar": (
        search("enqueue: [{name: a, lr_multipliers: 2}]"),
        ["x.yaml:5: search.enqueue[a].lr_multipliers: must map groups to multipliers but got 2"],
    ),
    "row_group_no_choice": (
        search("enqueue: [{name: a, lr_multipliers: {top: 2}}]").replace(
            "dropout:", "lr_multipliers: {top: [1, 0.5]}, dropout:"
        ),
        ["x.yaml:5: search.enqueue[a].lr_multipliers.top: must be one of the choices 1.0, 0.5 but got 2"],
    ),
    "row_with_a_seed_of_its_own": (
        search("enqueue: [{name: a, seed: 0}]"),
        [
            (
                "x.yaml:5: search.enqueue[a].seed: must be among the choices but the space does not give seed: list 0"
                " under recipe.seed too"
            )
        ],
    ),
    "dimension_sized_without_end": (
        recipe("seed: [" + ", ".join(map(str, range(1001))) + "]"),
        ["x.yaml:5: recipe.seed: must list at most 1000 choices but got 1001"],
    ),
    "too_many_values": ("study: [" + "1," * 20_001 + "]\n", ["x.yaml:1: must hold at most 20,000 values but goes on here"]),
    "too_large": (
        "study: s # " + "x" * 1_000_000,
        ["x.yaml: must be at most 1,000,000 bytes but is larger: a space is a page of text"],
    ),
    "folder_without_prefix": (
        HEAD.replace("orl_faces", "photos/mine"),
        [
            (
                "x.yaml:2: data.source: must be folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist "
                "but got 'photos/mine': write folder:photos/mine for a folder of images"
            )
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_space_gives_exactly_these_messages(name: str) -> None:
    text, expected = CASES[name]
    with pytest.raises(InputError) as caught:
        parse_space(text, "x.yaml")
    assert [str(problem) for problem in caught.value.problems] == expected
    assert caught.value.exit_code == 2
    assert str(caught.value) == "\n".join(expected)


@pytest.mark.parametrize("name", CASES)
def test_messages_are_single_printable_lines(name: str) -> None:
    for line in CASES[name][1]:
        assert line.isprintable() and len(line) < 1000


def test_text_that_is_not_utf8_is_placed_at_its_byte(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from searchft.space import load_space

    path = tmp_path / "latin.yaml"
    path.write_bytes(b"study: s\ndata: {source: 'folder:caf\xe9'}\n")
    with pytest.raises(InputError) as caught:
        load_space(path)
    assert str(caught.value) == f"{path}:2: must be UTF-8 text but holds the byte 0xe9 (column 27)"


def test_a_missing_file_names_its_neighbour(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from searchft.space import load_space

    (tmp_path / "faces.yaml").write_text(HEAD)
    with pytest.raises(InputError) as caught:
        load_space(tmp_path / "face.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/face.yaml: must be a file with a space in it but there is none, did you mean '{tmp_path}/faces.yaml'?"
    )
    with pytest.raises(InputError, match="but is a folder or a device"):
        load_space(tmp_path)
    with pytest.raises(InputError, match="but is a folder or a device"):
        load_space("/dev/zero")
    with pytest.raises(InputError, match="there is no folder"):
        load_space(tmp_path / "nowhere" / "x.yaml")
