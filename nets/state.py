"""Which layers of a prototxt a net has: the include and exclude rules."""

import logging

from imae.prototxt_like.errors import InputError
from imae.prototxt_like.schema import NetParameter, NetState, NetStateRule
from imae.prototxt_like.text import did_you_mean

_log = logging.getLogger(__name__)


def filter_layers(param: NetParameter) -> NetParameter:
    """Return `param` with the layers that its `state` (phase, level, stages) meets the rules of.

    A stage that no rule names is logged as a warning: it may be misspelt, and would choose nothing in silence.
    """
    all_rules = [rule for layer in param.layer for rule in [*layer.include, *layer.exclude]]
    known = {stage for rule in all_rules for stage in [*rule.stage, *rule.not_stage]}
    for stage in sorted(set(param.state.stage) - known):
        _log.warning('net "%s": no rule names the stage "%s"%s', param.name, stage, did_you_mean(stage, known))
    filtered = NetParameter()
    filtered.CopyFrom(param)
    del filtered.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise InputError(f'layer "{layer.name}": has both include and exclude rules; give one kind')
        rules, wanted = (layer.include, True) if layer.include else (layer.exclude, False)
        if any(meets(param.state, rule) for rule in rules) == wanted or not rules:
            filtered.layer.add().CopyFrom(layer)
    return filtered


def meets(state: NetState, rule: NetStateRule) -> bool:
    """Return whether `state` has the rule's phase, a level in range, all of its stages and none of its not_stages."""
    return bool(
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )
