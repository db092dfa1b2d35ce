"""Divides the graph of a frozen part in two, so that values may be kept at a shallower place than the trained part's edge.

A *position* stands after a node, in the graph's own order. What lives there is what was computed from the images up to
it and is read after it: these values are kept, and the rest of the graph goes on from them. What does not depend on the
images (a position embedding, reshaped) is computed on whichever side reads it.

The operations of both halves together are those of the whole, in the same order, on the same modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from searchft.features.split import node_names, values_digest


@dataclass(frozen=True)
class Position:
    """A place inside a frozen part."""

    name: str
    """Of the node it stands after, e.g. `features.4.conv.0.0`, or `layer3.1.add_5` where no module has a name for it."""
    node: fx.Node
    live: tuple[fx.Node, ...]
    """What would be kept, in the graph's order: computed from the images up to here and read after."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What each value is, as in `Split.digest`."""
        return tuple(str(node.meta.get("key", node.name)) for node in self.live)


def positions(prefix: fx.GraphModule) -> list[Position]:
    """Every place inside a frozen part, the shallowest first; neither the images nor the trained part's edge are among them."""
    nodes = list(prefix.graph.nodes)
    imaged = _imaged(nodes)
    order = {node: i for i, node in enumerate(nodes)}
    last_read = {node: max((order[user] for user in node.users), default=-1) for node in imaged}
    inner = [node for node in nodes if node in imaged and node.op not in ("placeholder", "output")]
    names = dict(zip(nodes, node_names(nodes), strict=True))
    found: list[Position] = []
    alive: list[fx.Node] = [node for node in nodes if node.op == "placeholder"]
    for node in inner[:-1]:  # after the last one lies the edge
        here = order[node]
        alive = [other for other in (*alive, node) if last_read[other] > here]
        found.append(Position(names[node], node, tuple(alive)))
    return found


def divide(prefix: fx.GraphModule, name: str) -> tuple[fx.GraphModule, fx.GraphModule, Position]:
    """(images [B,3,H,W] → kept values, kept values → crossing values, where), over the very modules of `prefix`.

    The second half may overwrite what it is given. Raises KeyError if there is no such position.
    """
    position = {position.name: position for position in positions(prefix)}[name]
    nodes = list(prefix.graph.nodes)
    images, output = nodes[0], nodes[-1]
    cut = nodes.index(position.node)

    first = fx.Graph()
    new: dict[fx.Node, Any] = {images: first.placeholder("images")}
    for node in _needed(nodes[: cut + 1], position.live):
        if node is not images:
            new[node] = first.node_copy(node, new.__getitem__)
    first.output(tuple(new[node] for node in position.live))

    rest = fx.Graph()
    new = {node: rest.placeholder(f"kept_{i}") for i, node in enumerate(position.live)}
    for node in _needed(nodes, output.all_input_nodes, position.live):
        new[node] = rest.node_copy(node, new.__getitem__)
    rest.output(fx.node.map_arg(output.args[0], new.__getitem__))
    return fx.GraphModule(prefix, first, "First"), fx.GraphModule(prefix, rest, "Rest"), position


def kept_digest(position: Position, altered: tuple[str, ...]) -> str:
    """Digest of the kept values: that of a split whose edge lies here, so that both share what is stored.

    `altered` names, value by value, the dtype it is kept in where an edge would keep it in another one; else it is empty.
    """
    return values_digest(key + (f"@{dtype}" if dtype else "") for key, dtype in zip(position.keys, altered, strict=True))


def _imaged(nodes: list[fx.Node]) -> set[fx.Node]:
    """The nodes whose values depend on the images."""
    imaged: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or any(a in imaged for a in node.all_input_nodes):
            imaged.add(node)
    return imaged


def _needed(nodes: list[fx.Node], wanted: Any, given: tuple[fx.Node, ...] = ()) -> list[fx.Node]:
    """Those of `nodes` that must be computed to have `wanted` when `given` is there, in order."""
    take = set(wanted) - set(given)
    for node in reversed(nodes):
        if node in take:
            take.update(a for a in node.all_input_nodes if a not in given)
    return [node for node in nodes if node in take]
