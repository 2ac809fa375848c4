"""Which templates may come from a stranger: those that put the values into a text and do nothing else."""

from __future__ import annotations

import jinja2
from jinja2 import nodes

from drpo.errors import InputError

_ALLOWED: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Macro),
    *(nodes.If, nodes.For, nodes.Getattr, nodes.Filter, nodes.CondExpr, nodes.Concat),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)
_FIELDS = {"query", "response", "kind", "first", "last", "index", "index0", "length"}
_FILTERS = {"trim", "upper", "lower", "title", "capitalize", "length", "json", "fenced"}


def refuse_active(name: str, source: str) -> None:
    """Nothing, if rendering `source` can but join texts: no calls, no attributes but the fields of a shot and
    of the loop, one loop over the shots, filters without arguments. Else an InputError.

    A template is a program; this admits so little of it that it can neither reach out of its values nor grow
    beyond a multiple of them.
    """
    try:
        tree = jinja2.Environment(autoescape=False).parse(source)
    except (jinja2.TemplateSyntaxError, RecursionError) as error:
        raise InputError(f"{name}: expected a jinja2 template: {error}") from None
    pending: list[tuple[nodes.Node, bool]] = [
        (tree, False)
    ]  # a list, since a stranger decides how deep it is
    while pending:
        node, inside = pending.pop()
        if (wrong := _wrong_with(node, inside)) is not None:
            raise InputError(
                f"{name}:{node.lineno}: a template that is shared may hold text, its values, if, and one "
                f"loop over the shots; found {wrong}"
            )
        inside = inside or isinstance(node, nodes.For)
        pending.extend((child, inside) for child in node.iter_child_nodes())


def _wrong_with(node: nodes.Node, inside: bool) -> str | None:
    """What a shared template may not do, in words; None where the node is harmless. inside: of a loop."""
    if isinstance(node, nodes.For):
        if inside or node.recursive:
            return "a loop in a loop"
        if not isinstance(node.iter, nodes.Name) or node.iter.name != "shots":
            return "a loop over something else"
    elif isinstance(node, nodes.Getattr):
        if node.attr not in _FIELDS:
            return f"the attribute {node.attr!r}"
    elif isinstance(node, nodes.Filter):
        if node.name not in _FILTERS or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return f"the filter {node.name!r}, or what it is given"
    elif isinstance(node, nodes.Macro):
        if node.defaults:
            return "a macro with defaults"
    elif not isinstance(node, _ALLOWED):
        return f"{type(node).__name__.lower()}"
    return None
