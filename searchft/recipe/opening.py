"""Which parameters of a backbone train, and in which learning-rate group: a pure consequence of recipe and facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from searchft.recipe.facts import BackboneFacts, ParameterFacts
from searchft.recipe.fields import HEAD, OPENING, RecipeFields, names_that_decide
from searchft.wording import digest


@dataclass(frozen=True)
class Opening:
    """Which part of a backbone trains. The head always trains beside it."""

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
    depthwise_share: float
    """How much of the open parameters belongs to depthwise convolutions, in [0, 1]."""

    @cached_property
    def digest(self) -> str:
        """Equal for equal openings, however they were written."""
        return digest([self.parameters, self.modules, self.train_norms])

    def rates(self, recipe: RecipeFields) -> dict[str, float]:
        """Effective learning-rate factor of each open parameter, and of the head, relative to `lr`."""
        multipliers = dict(recipe.lr_multipliers)
        rates = {HEAD: multipliers.get(HEAD, 1.0)}
        for group, names in self.groups.items():
            factor = multipliers.get(group, 1.0)
            rates |= {name: factor * recipe.layer_decay ** self.distances[name] for name in names}
        return rates


_asked = attrgetter(*names_that_decide(OPENING), "lr_groups")


def open_parameters(recipe: RecipeFields, backbone: BackboneFacts) -> Opening:
    """Which parameters of `backbone` the recipe trains.

    Raises ValueError with the rule and the known names if the recipe names a stage or module that does not exist.
    """
    divides = any(group in ("top", "deep") for group, _ in recipe.lr_multipliers)
    asked = (*_asked(recipe), divides)
    if asked not in backbone.openings:
        backbone.openings[asked] = _open_parameters(recipe, backbone, divides)
    opening: Opening = backbone.openings[asked]
    return opening


def norm_matters(backbone: BackboneFacts, opening: Opening) -> bool:
    """Whether `norm` has any say in the given opening."""
    return bool(opening.norm_candidates) or any(backbone.kinds[n].startswith("norm") for n in opening.parameters)


def _open_parameters(recipe: RecipeFields, backbone: BackboneFacts, divides: bool) -> Opening:
    names = backbone.stage_names
    native = [p for p in backbone.parameters if p.kind != "adapter"]
    adapters = [p for p in backbone.parameters if p.kind == "adapter"]
    stages, opened, modules, spelling = _open_region(recipe, backbone, native)
    norms = tuple(m for m, _ in backbone.batch_norms if any(p == "" or m == p or m.startswith(p + ".") for p in modules))
    chosen = opened
    if recipe.parameters == "bias":
        chosen = [p for p in chosen if p.kind in ("bias", "norm_bias")]
    elif recipe.parameters == "norm":
        chosen = [p for p in chosen if p.kind.startswith("norm")]
    if recipe.norm in ("frozen", "running"):
        chosen = [p for p in chosen if not p.kind.startswith("norm")]
    # Adapters train whatever is open; their stages count among the open ones for the groups of rates.
    chosen = [*chosen, *adapters]
    top = next((s for s in reversed(names) if s in stages or any(p.stage == s for p in adapters)), "")
    own = {stage: group for group, members in recipe.lr_groups for stage in members}
    groups: dict[str, tuple[str, ...]] = {HEAD: ()}
    for parameter in chosen:
        by_depth = ("top" if parameter.stage == top else "deep") if divides else "backbone"
        group = own.get(parameter.stage, "backbone") if own else by_depth
        groups[group] = (*groups.get(group, ()), parameter.name)
    return Opening(
        parameters=tuple(p.name for p in chosen),
        modules=tuple(modules),
        train_norms=norms if recipe.norm in ("stats", "running") and recipe.parameters in ("all", "norm") else (),
        norm_candidates=norms,
        groups=groups,
        distances={p.name: len(names) - names.index(p.stage) for p in chosen},
        spelling=spelling if opened else HEAD,
        depthwise_share=sum(p.size for p in chosen if p.name in backbone.depthwise) / max(1, sum(p.size for p in chosen)),
    )


def _open_region(
    recipe: RecipeFields, backbone: BackboneFacts, native: Sequence[ParameterFacts]
) -> tuple[tuple[str, ...], list[ParameterFacts], list[str], str | None]:
    """Stages, parameters and modules that are open whatever `parameters` and `norm` say, and the plainest `unfrozen` for them."""
    names = backbone.stage_names
    if recipe.unfrozen_tensors is not None:
        chosen = list(native[max(0, len(native) - recipe.unfrozen_tensors) :])
        return tuple(dict.fromkeys(p.stage for p in chosen)), chosen, _modules_of(chosen), None
    within = ""
    if recipe.stages is None:
        stages, within = _stages_from(recipe.unfrozen, backbone, native)
    elif unknown := [stage for stage in recipe.stages if stage not in names]:
        raise ValueError(f"must name stages of {backbone.backbone} ({', '.join(names)}) but got {unknown[0]!r}")
    else:
        stages = tuple(stage for stage in names if stage in recipe.stages)
    chosen = [p for p in native if p.stage in stages]
    if not within:
        modules = [m for s in backbone.stages if s.name in stages for m in s.modules]
        last = bool(stages) and stages == names[-len(stages) :]
        return stages, chosen, modules, None if not last else "all" if stages == names else stages[0]
    chosen = chosen[next(i for i, p in enumerate(chosen) if p.name.startswith(within + ".")) :]
    inner = _modules_of(p for p in chosen if p.stage == stages[0])
    rest = (m for s in backbone.stages if s.name in stages[1:] for m in s.modules)
    return stages, chosen, [within, *(m for m in inner if m != within and not m.startswith(within + ".")), *rest], None


def _modules_of(parameters: Iterable[ParameterFacts]) -> list[str]:
    return list(dict.fromkeys(p.name.rpartition(".")[0] for p in parameters))


def _stages_from(unfrozen: str | int, backbone: BackboneFacts, native: Sequence[ParameterFacts]) -> tuple[tuple[str, ...], str]:
    """The open stages of a value of `unfrozen`, and the module within the first of them that it starts at."""
    names = backbone.stage_names
    if unfrozen == HEAD or unfrozen == 0:
        return (), ""
    if unfrozen == "all":
        return names, ""
    if isinstance(unfrozen, int):
        if unfrozen > len(names):
            raise ValueError(f"must be at most {len(names)}, the stages of {backbone.backbone}, but got {unfrozen}")
        return names[-unfrozen:], ""
    if unfrozen in names:
        return names[names.index(unfrozen) :], ""
    stage = next((names.index(p.stage) for p in native if p.name.startswith(unfrozen + ".")), None)
    if stage is None:
        known = f"a stage ({', '.join(names)}) or module of {backbone.backbone}"
        raise ValueError(f"must be 'head', 'all', a count, or {known} but got {unfrozen!r}")
    return names[stage:], "" if unfrozen == backbone.stages[stage].modules[0] else unfrozen
