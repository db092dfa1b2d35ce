"""Which parameters of a backbone train, and in which learning-rate group: a pure consequence of recipe and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from searchft.recipe.facts import BackboneFacts, ParameterFacts
from searchft.recipe.fields import HEAD, OPENING, RecipeFields, names_that_decide
from searchft.wording import digest


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

    def rates(self, recipe: RecipeFields) -> dict[str, float]:
        """Effective learning-rate factor of each open parameter, and of the head, relative to `lr`."""
        multipliers = dict(recipe.lr_multipliers)
        rates = {HEAD: multipliers.get(HEAD, 1.0)}
        for group, names in self.groups.items():
            for name in names:
                rates[name] = multipliers.get(group, 1.0) * recipe.layer_decay ** self.distances[name]
        return rates


_asked = attrgetter(*names_that_decide(OPENING))


def open_parameters(recipe: RecipeFields, backbone: BackboneFacts) -> Opening:
    """Which parameters of `backbone` the recipe trains.

    Raises ValueError with the rule and the known names if the recipe names a stage or module that does not exist.
    """
    asked = (*_asked(recipe), recipe.lr_groups, _divides(recipe))
    if asked not in backbone.openings:
        backbone.openings[asked] = _open_parameters(recipe, backbone)
    opening: Opening = backbone.openings[asked]
    return opening


def _divides(recipe: RecipeFields) -> bool:
    """Whether the backbone's rates are those of `top` and `deep`."""
    return any(group in ("top", "deep") for group, _ in recipe.lr_multipliers)


def norm_matters(backbone: BackboneFacts, opening: Opening) -> bool:
    """Whether `norm` has any say in the given opening."""
    return bool(opening.norm_candidates) or any(backbone.kinds[n].startswith("norm") for n in opening.parameters)


def _open_parameters(recipe: RecipeFields, backbone: BackboneFacts) -> Opening:
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
    recipe: RecipeFields, backbone: BackboneFacts, chosen: tuple[ParameterFacts, ...], stages: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Learning-rate groups: own ones, or `top` and `deep` where a multiplier names them, or `backbone`."""
    own = {stage: group for group, members in recipe.lr_groups for stage in members}
    split = _divides(recipe)
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
