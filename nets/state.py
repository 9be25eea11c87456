"""Which layers of a prototxt a net has: the include and exclude rules."""

from collections.abc import Collection, Iterable

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import LayerParameter, NetParameter, NetState, NetStateRule, Phase
from imae.prototxt_like.text import did_you_mean


def set_state(state: NetState, phase: int, level: int | None, stages: Iterable[str]) -> None:
    """Give a prototxt's state a phase and, unless it is None, a level; add stages to its own."""
    state.phase = phase
    if level is not None:
        state.level = level
    state.stage.extend(stages)


def with_stages(net: NetParameter, stages: Iterable[str]) -> NetParameter:
    """Return a copy of a prototxt with more stages in its state."""
    staged = NetParameter()
    staged.CopyFrom(net)
    staged.state.stage.extend(stages)
    return staged


def filter_layers(param: NetParameter) -> NetParameter:
    """Return `param` with the layers that its `state` (phase, level, stages) meets the rules of.

    The result's state keeps only the stages that its own layers' rules name, so that filtering it again changes
    nothing. Raises InputError for a stage that no rule of `param` names: misspelt, it would choose other layers.
    """
    check_stages(param.state.stage, named_stages([param]), f'net "{param.name}"')
    filtered = NetParameter()
    filtered.CopyFrom(param)
    del filtered.layer[:]
    for layer in param.layer:
        if is_included(layer, param.state):
            filtered.layer.add().CopyFrom(layer)
    known = named_stages([filtered])
    filtered.state.stage[:] = [stage for stage in param.state.stage if stage in known]
    return filtered


def is_included(layer: LayerParameter, state: NetState) -> bool:
    """Return whether a layer's include or exclude rules, of which it has at most one kind, leave it in the net."""
    if layer.include and layer.exclude:
        raise InputError(f'layer "{layer.name}": has both include and exclude rules; give one kind')
    rules, wanted = (layer.include, True) if layer.include else (layer.exclude, False)
    return any(meets(state, rule) for rule in rules) == wanted or not rules


def left_out(top: str, whole: NetParameter) -> str:
    """Return, as the end of a message, which layer of `whole` has this top but is left out by its rules; empty if none.

    `whole` is a net before `filter_layers`.
    """
    for layer in whole.layer:
        if top in layer.top and not is_included(layer, whole.state):
            kind, phase = "include" if layer.include else "exclude", Phase.Name(whole.state.phase)
            maker = f'layer "{layer.name}" ({layer.type})'
            return f"; {maker} has it as a top, but its {kind} rules leave it out in phase {phase}"
    return ""


def named_stages(nets: Iterable[NetParameter]) -> list[str]:
    """Return the stages that the rules of these nets name, as wanted or as unwanted, each once."""
    rules = [rule for net in nets for layer in net.layer for rule in [*layer.include, *layer.exclude]]
    return list(dict.fromkeys(stage for rule in rules for stage in [*rule.stage, *rule.not_stage]))


def check_stages(stages: Iterable[str], named: Collection[str], where: str) -> None:
    """Raise InputError for the first of `stages` that is not among those `named` by rules; it begins with `where`."""
    for stage in stages:
        if stage not in named:
            known = f"the rules name {', '.join(named)}" if named else "no rule names any stage"
            raise InputError(f'{where}: no rule names the stage "{stage}"{did_you_mean(stage, named) or f"; {known}"}')


def meets(state: NetState, rule: NetStateRule) -> bool:
    """Return whether `state` has the rule's phase, a level in range, all of its stages and none of its not_stages."""
    return bool(
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )
