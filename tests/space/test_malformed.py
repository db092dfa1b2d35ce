"""Malformed spaces: every message that each must give, by line, key and rule; nothing more and nothing less."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchft.errors import InputError
from searchft.space import load_space, parse_space

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


# A line of a section, and the rule that it breaks; `…` stands for words in between.
RECIPE = {
    "dropout: 1.5": "must lie in [0, 1) but got 1.5",
    "droput: 0.5": "unknown key 'droput', did you mean 'dropout'?",
    "folds: 5": "unknown key 'folds': recipe's keys are …",
    "lora_rank: 4": "unknown key 'lora_rank': recipe's keys are …",
    "normalisation: none": "unknown key 'normalisation', did you mean 'normalization'?",
    "learning_rate: 0.1": "unknown key 'learning_rate', did you mean 'lr'?",
    "freeze_until: layer3": "unknown key 'freeze_until', did you mean 'unfrozen'?",
    "Learning_Rate: 0.1": "unknown key 'Learning_Rate', did you mean 'lr'?",
    "img_size: 64": "unknown key 'img_size' here, did you mean 'image_size' under data?",
    "n_trials: 9": "unknown key 'n_trials' here, did you mean 'trials' under search?",
    "split_seed: 1": "unknown key 'split_seed' here: it belongs in data.split as seed",
    "precision: fp16": "must be one of auto, fp32, bf16 but got 'fp16'",
    "zzz: 1": "unknown key 'zzz': recipe's keys … crop_scale, precision, augment_views, seed",
    "lr_multipliers.top: 0.5": "unknown key 'lr_multipliers.top': write lr_multipliers: {top: …}",
    "image_size: 64": "unknown key 'image_size' here: it belongs under data",
    "<<: {dropout: 0.5}": "must be written out but got the merge key <<: merges are not read",
    "weights: !!str none": "must be a plain value but has the tag '!!str': tags are not read, remove it",
    "lr: .nan": "must be a finite number but got .nan",
    "lr: [1e-3, -.inf]": "must be a finite number but got -.inf",
    "batch_size: 010": "must not begin with 0 but got 010 (octal to some, decimal to others): remove the zero",
    "epochs: 1:30": "must be a whole number from 1 to 10000 but got '1:30'",
    "batch_size: true": "must be a whole number from 1 to 65536 but got true",
    "dropout: false": "must lie in [0, 1) but got false",
    "head_widths: [[true]]": "must be a list of at most 8 widths … but got [true]",
    "lr: '1e-3'": "must lie in (0, 100] but got '1e-3': write the number without quotes",
    "epochs: 5.0": "must be a whole number from 1 to 10000 but got 5.0: write 5",
    "weights: no": "must be pretrained, package, none, … but got 'no': write the word none",
    "weights_fallback: null": "must be pretrained, package, none, … but got no value: write the word none",
    "weights: None": "must be pretrained, package, none, … but got 'None', did you mean 'none'?",
    "auxiliary: yes": "must be true or false but got 'yes': write true, without quotes",
    "epochs:": "must be a whole number from 1 to 10000 but got no value: write a value, or remove the key",
    "optimizer: adamW": "must be one of sgd, adam, … but got 'adamW', did you mean 'adamw'?",
    "unfrozen: Head": "must be head, all, a count of … but got 'Head', did you mean 'head'?",
    "unfrozen: [head, 1.5]": "must be head, all, a count of … but got 1.5",
    "lr: [1, 1.0]": "must list each choice once but got 1 and 1.0, which are the same",
    "unfrozen: [0, head]": "must list each choice once but got 0 and 'head', which are the same",
    "stages: [[layer3, layer4], [layer4, layer3]]": "must list each choice … and ['layer4', 'layer3'], which are the same",
    "stages: layer4": "must be a list of stage names, e.g. … but got 'layer4': write [layer4]",
    "head_widths: [[], [8], []]": "must list each choice once but got [] twice",
    "head_widths: [[256, 128], 64]": "must be one list or a list of lists but mixes the two with 64: write [64]",
    "dropout: []": "must list at least one choice but the list is empty",
    "dropout: {choices: [0.5], step: 1}": "must hold nothing beside choices but got the key 'step'",
    "lr: {low: 1e-4, high: 1e-2}": "must be a value, a list of choices, … but got the mapping {low: 0.0001, high: 0.01}",
    "edits: {stride: 1}": "must name module.attribute, e.g. conv1.stride, as 'stride' does not, but got {stride: 1}",
    "edits: {conv1.__class__: 1}": "must not edit private attributes such as 'conv1.__class__' but got {conv1.__class__: 1}",
    "edits: {conv1.stride: {a: 1}}": "must give conv1.stride a number, a … but got {conv1.stride: {a: 1}}",
    "edits: {x.keep: 0}": "must give x.keep a whole number of modules to keep, at least 1, but got {x.keep: 0}",
    "edits: {x.append: []}": "must give x.append 1 to 100 layers but got {x.append: []}",
    "edits: {x.append: [Conv3d]}": "must build x.append of Conv2d, … not 'Conv3d', did you mean 'Conv2d'?, … ['Conv3d']}",
    "edits: {x.replace: {Linear: 3}}": "must give x.replace layers such as ReLU or … but got {x.replace: {Linear: 3}}",
    "edits: {x.replace: {Linear: {bias: {a: 1}}}}": "must give Linear.bias a number, a text, true, … {a: 1}}}}",
    "edits: {x.replace: {Linear: {device: cuda}}}": "must give Linear plain arguments of its own, not 'device', but got …",
    "edits: {resnet/18/x: {y.keep: 1}}": "must name a backbone before edits of its own, as 'resnet/18/x' does not, but got …",
    "edits: {torchvision/a: 3}": "must give torchvision/a a mapping of edits, e.g. {features.keep: 6}, but got …",
    "edits: [conv1.stride]": "must map module.attribute to a … but got 'conv1.stride'",
    "lr_multipliers: 0.5": "must map groups to multipliers but got 0.5: choices stand inside, as in {top: [1.0, 0.6]}",
    "lr_groups: {head: [layer1]}": "must not name a group head, which has a meaning of its own, but got {head: ['layer1']}",
    "lr_groups: {a: [layer1], b: [layer1]}": "must put each stage into one group, … but got {a: ['layer1'], b: ['layer1']}",
    "strategy: halfway": "must be one of head, full, partial, scratch, bias, norm, tinytl but got 'halfway'",
}
DATA = {
    "image_size: [64, 96]": "must be a whole number … but got [64, 96]: data takes one value, choices stand under recipe",
    "image_size: 4": "must be a whole number from 8 to 4096 but got 4",
    "split: {train: 2, val: 0.5}": "must hold counts per class or fractions, not both, but got {train: 2, val: 0.5}",
    "split: {train: 0.9, val: 0.2}": "must hold fractions of at most 1 together but they make 1.1",
    "split: 0.8": "must be a mapping such as {train: 0.7, val: 0.15, test: 0.15, seed: 0} but got 0.8",
}
SEARCH = {
    "pruner: off": "must be one of none, median, percentile, asha, hyperband, patient but got 'off': write the word none",
    "pruner: false": "must be one of none, median, percentile, asha, hyperband, patient but got false: write the word none",
    "trials: 0": "must be a whole number from 1 to 1000000 but got 0",
    "timeout: -1": "must be 0 (no limit) or more seconds, at most 31536000 but got -1",
    "timeout_s: 5": "unknown key 'timeout_s', did you mean 'timeout'?",
    "prunner: median": "unknown key 'prunner', did you mean 'pruner'?",
    "enqueue: {name: a}": "must be a list of rows such as {name: Baseline, unfrozen: head} but got {name: 'a'}",
}

NOTHING_ELSE = ("- data: must be given: which images to learn from", "- recipe: must be given: what to fine-tune, and how")
# A file, and each of its problems: line (or - for the file), key and rule.
# fmt: off
FILES = (
    (recipe("dropout: [0.0,", "  1.0]"), "6 recipe.dropout: must lie in [0, 1) but got 1.0"),
    (HEAD + "epochs: 5\n", "5 epochs: unknown key 'epochs' here: it belongs under recipe"),
    (HEAD + "serach: {trials: 3}\n", "5 serach: unknown key 'serach', did you mean 'search'?"),
    (recipe("dropout: 0.5", "epochs: 3", "dropout: 0.1"), "7 recipe.dropout: must stand once but … 5: remove one of the two"),
    (recipe("edits: {conv1.stride: 1, conv1.stride: 2}"), "5 recipe.edits.conv1.stride: must stand … remove one of the two"),
    (HEAD + "recipe: {}\n", "5 recipe: must stand once but stands already on line 3: remove one of the two"),
    (recipe("dropout: &d 0.5", "input_dropout: *d"),
     "5 recipe.dropout: must be plain but has the anchor &d: anchors and aliases are not read",
     "6 recipe.input_dropout: must be written out but got the alias *d: aliases are not read"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "- study: must be given: the study's name", *NOTHING_ELSE,
     "1 a: must be plain but has the anchor &a: anchors and aliases are not read",
     "1 a: unknown key 'a': the keys are study, data, recipe, search",
     "2 b: must be plain but has the anchor &b: anchors and aliases are not read",
     "2 b: must be written out but got the alias *a: aliases are not read",
     "2 b: unknown key 'b': the keys are study, data, recipe, search",
     "3 c: must be written out but got the alias *b: aliases are not read",
     "3 c: unknown key 'c': the keys are study, data, recipe, search"),
    (recipe("backbone2: !!python/object/apply:os.system [ls]"),
     "5 recipe.backbone2: must be a plain value but has the … tags are not read, remove it",
     "5 recipe.backbone2: unknown key 'backbone2', did you mean 'backbone'?"),
    (recipe("edits: " + "[" * 30), "5 : must be nested at most 20 deep but goes deeper here"),
    (recipe("seed: " + "9" * 30), "5 recipe.seed: must have at most 18 digits but got a number of 30"),
    (recipe("dropout: {choices: 0.5}"), "5 recipe.dropout.choices: must be a list but got 0.5: write choices: [0.5]"),
    (recipe("lr_multipliers: {deep: [1.0, 0]}"), "5 recipe.lr_multipliers.deep: must lie in (0, 1000] but got 0"),
    (recipe("lr_multipliers: {depe: 0.1}"), "5 recipe.lr_multipliers.depe: must name one of … 'depe', did you mean 'deep'?"),
    (recipe("lr_multipliers: {q: 0.1}"), "5 recipe.lr_multipliers.q: must name one of the … own are named under lr_groups"),
    (recipe("lr_multipliers: {backbone: 0.1, top: 0.5}"), "5 recipe.lr_multipliers.backbone: must not … name those two only"),
    (recipe("lr_groups: {early: [layer1]}", "lr_multipliers: {top: 0.5}"),
     "6 recipe.lr_multipliers.top: must name one of the groups head, backbone, early but got 'top'"),
    (recipe("unfrozen: layer4", "stages: [layer3]"), "6 recipe.stages: must not stand beside … same: remove one of the two"),
    (recipe("strategy: [full, bias]", "unfrozen: layer4"), "6 recipe.unfrozen: must not stand … remove one of the two"),
    (recipe("strategy: scratch", "weights: IMAGENET1K_V1"), "6 recipe.weights: must not stand … remove one of the two"),
    (recipe("parameters: norm", "norm: frozen"), "6 recipe.norm: must not be frozen beside … but the head trains"),
    ("study: s\ndata: {source: orl_faces}\nrecipe: {backbone: resnet18}\n",
     "3 recipe.backbone: must be torchvision/NAME, … but got 'resnet18': … models resnet18` says which exist)"),
    ("study: s\ndata: {source: orl_faces}\nrecipe:\n  epochs: 3\n",
     "3 recipe.backbone: must be given: torchvision/NAME or timm/NAME (`searchft models` lists them)"),
    ("{}\n", "- study: must be given: the study's name", *NOTHING_ELSE),
    ("# nothing here\n", "- : must hold a space (study, data, recipe, search) but is empty"),
    ("- a\n", "1 : must be a mapping with the keys study, data, recipe and search but got ['a']"),
    ("study: s\ndata: {source: orl_faces}\nrecipe: [a]\n", "3 recipe: must be a mapping of keys to values but got ['a']"),
    ("study: s\ndata:\nrecipe: {backbone: torchvision/resnet18}\n", "2 data: must be a mapping of keys … but got no value"),
    (HEAD + "---\nstudy: t\n", "5 : must hold one document but a second one begins here (`---`)"),
    ("study: s\ndata:\n\tsource: orl_faces\n", "3 : must be readable YAML … (column 1): indent with spaces, not tabs"),
    ("study: s\ndata: {source: orl_faces}\nrecipe:\n  weights: file: x\n",
     "4 : must be readable YAML but mapping … and put a text that holds ': ' in quotes"),
    ("study: s\nrecipe: {backbone: [a\n", "3 : must be readable YAML … bracket is not closed, or a comma is missing"),
    ("study: 's\n", "2 : must be readable YAML but found … in what begins on line 1: a quote is not closed"),
    ("study: s\x07\n", "1 : must be plain text but holds the control character U+0007"),
    ('study: "a\\0b"\n', *NOTHING_ELSE, "1 study: must be printable text but got 'a\\x00b'"),
    ('study: "\\ud800"\n', *NOTHING_ELSE, "1 study: must be printable text but got '\\ud800'"),
    ('study: "\\UFFFFFFFF"\n', "1 : must be readable YAML but an escape or a number here means nothing"),
    (data("root: *.jpg"), "5 : must be readable YAML … put a text that begins with * or & in quotes"),
    (recipe("? [a, b]", ": 1"), "5 recipe: must have texts as keys but a key is a list or a mapping"),
    (recipe(": 1"), "5 : must be readable YAML … one mapping or list begin in the same column"),
    (HEAD.replace("study: s", "study: ../s"), "1 study: must be a name of at most 100 … but got '../s'"),
    (HEAD.replace("study: s", "study: 2026"), "1 study: must be a name of at most 100 … but got 2026: write '2026', in quotes"),
    (HEAD.replace("study: s", "study: " + "x" * 101), "1 study: must be a name of at most 100 … xxxxxxxxxxxxxxxxxxxxxxxxxx…"),
    (HEAD.replace("orl_faces", "'folder:'"), "2 data.source: must be folder:PATH, csv:PATH, … did you mean 'folder:PATH'?"),
    (data("image_size: 96", "store_size: 64"), "6 data.store_size: must be 0 or at least image_size (96) but got 64"),
    (data("split: {train: 2}"), "5 data.split.val: must be given where a … {train: 0.7, val: 0.15, test: 0.15, seed: 0}"),
    (data("split: {train: 2.0, val: 3}"), "5 data.split.train: must be a count per class (a whole … but got 2.0: write 2"),
    (data("split: {train: 2, validation: 3}"), "5 data.split.validation: unknown key 'validation', did you mean 'val'?",
     "5 data.split.val: must be given where a split is: a … as {train: 0.7, val: 0.15, test: 0.15, seed: 0}"),
    (data("folders: {train: a, val: a}"), "5 data.folders.val: must be a folder of its own but got 'a' twice"),
    (search("enqueue: [Baseline]"), "5 search.enqueue[0]: must be a row such as {name: … but got 'Baseline'"),
    (search("enqueue:", "  - {dropout: 0.5}"), "6 search.enqueue[0].name: must be given: what the trial will be called"),
    (search("enqueue:", "  - {name: 7}"), "6 search.enqueue[0].name: must be a text of at … but got 7: write '7', in quotes"),
    (search("enqueue:", "  - {name: a}", "  - {name: a, dropout: 0.5}"),
     "7 search.enqueue[1].name: must be distinct but 'a' is the name of another row"),
    (search("enqueue:", "  - {name: a, droput: 0.5}"), "6 search.enqueue[a].droput: unknown key … did you mean 'dropout'?"),
    (search("enqueue:", "  - {name: a}", "  - {name: b, dropout: 0.3}"),
     "7 search.enqueue[b].dropout: must be one of the choices 0.0, 0.5 but got 0.3"),
    (search("enqueue:", "  - {name: a, dropout: [0.5]}"), "6 search.enqueue[a].dropout: must be one … a row takes one value"),
    (search("enqueue:", "  - {name: a, backbone: torchvision/vgg11}"),
     "6 search.enqueue[a].backbone: must be torchvision/resnet18, the … but got 'torchvision/vgg11'"),
    (search("enqueue:", "  - {name: a, lr: 0.1}"), "6 search.enqueue[a].lr: must be among the … 0.1 under recipe.lr too"),
    (search("enqueue:", "  - {name: a, dropout: 0.5, dropout: 0.0}"),
     "6 search.enqueue.dropout: must stand once but stands already on this line: remove one of the two"),
    ("study: a/b\ndata: {source: orl_faces, imagesize: 64}\nrecipe:\n  backbone: resnet18\n"
     "  droput: 0.5\n  lr: [0, 1e-3]\n  lr: 3\nsearch:\n  sampler: bayes\n  trials: -3\n",
     "1 study: must be a name of at most 100 … but got 'a/b'",
     "2 data.imagesize: unknown key 'imagesize', did you mean 'image_size'?",
     "4 recipe.backbone: must be torchvision/NAME, … but got 'resnet18': … models resnet18` says which exist)",
     "5 recipe.droput: unknown key 'droput', did you mean 'dropout'?", "6 recipe.lr: must lie in (0, 100] but got 0",
     "7 recipe.lr: must stand once but stands already on line 6: remove one of the two",
     "9 search.sampler: must be one of tpe, random, grid but got 'bayes'",
     "10 search.trials: must be a whole number from 1 to 1000000 but got -3"),
    (recipe("strategy: head", "stages: [layer4]"), "6 recipe.stages: must not stand beside … head: remove one of the two"),
    (search("enqueue: [{name: a, unfrozen: head}]").replace("dropout:", "strategy: [full, bias], dropout:"),
     "5 search.enqueue[a].unfrozen: must not be given: the strategy sets it"),
    (search("enqueue: [{name: a, lr_multipliers: 2}]"), "5 search.enqueue[a].lr_multipliers: must map groups to … but got 2"),
    (search("enqueue: [{name: a, lr_multipliers: {top: 2}}]").replace(
         "dropout:", "lr_multipliers: {top: [1, 0.5]}, dropout:"
     ), "5 search.enqueue[a].lr_multipliers.top: must be one of the choices 1.0, 0.5 but got 2"),
    (search("enqueue: [{name: a, seed: 0}]"), "5 search.enqueue[a].seed: must be among the … list 0 under recipe.seed too"),
    (recipe("seed: [" + ", ".join(map(str, range(1001))) + "]"), "5 recipe.seed: must list at most 1000 choices but got 1001"),
    ("study: [" + "1," * 20001 + "]\n", "1 : must hold at most 20,000 values but goes on here"),
    ("study: s # " + "x" * 1000000, "- : must be at most 1,000,000 bytes but is larger: a space is a page of text"),
    (HEAD.replace("orl_faces", "photos/mine"), "2 data.source: must be folder:PATH, csv:PATH, … for a folder of images"),
)
# fmt: on

LINES = [
    (write(line), f"5 {name}.{line.partition(':')[0]}: {rule}")
    for name, write, lines in (("recipe", recipe, RECIPE), ("data", data, DATA), ("search", search, SEARCH))
    for line, rule in lines.items()
]


@pytest.mark.parametrize("case", [*LINES, *FILES], ids=lambda case: case[1][:60])
def test_a_malformed_space_gives_exactly_these_messages(case: tuple[str, ...]) -> None:
    text, *expected = case
    with pytest.raises(InputError) as caught:
        parse_space(text, "x.yaml")
    found = [f"{p.where.removeprefix('x.yaml')[1:] or '-'} {p.key}: {p.rule}" for p in caught.value.problems]
    assert len(found) == len(expected), found
    for problem, words in zip(found, expected, strict=True):
        pieces = words.split(" … ")
        assert problem.startswith(pieces[0].removesuffix(" …")) and all(piece.removesuffix(" …") in problem for piece in pieces)
        assert problem.endswith(pieces[-1]) or words.endswith(" …"), (problem, words)
        assert problem.isprintable() and len(problem) < 1000
    assert caught.value.exit_code == 2


def test_text_that_is_not_utf8_is_placed_at_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"study: s\ndata: {source: 'folder:caf\xe9'}\n")
    with pytest.raises(InputError) as caught:
        load_space(path)
    assert str(caught.value) == f"{path}:2: must be UTF-8 text but holds the byte 0xe9 (column 27)"


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "faces.yaml").write_text(HEAD)
    with pytest.raises(InputError) as caught:
        load_space(tmp_path / "face.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/face.yaml: must be a file with a space in it but there is none, did you mean '{tmp_path}/faces.yaml'?"
    )
    for path, words in (("/dev/zero", "but is a folder or a device"), (tmp_path / "no" / "x.yaml", "there is no folder")):
        with pytest.raises(InputError, match=words):
            load_space(path)
