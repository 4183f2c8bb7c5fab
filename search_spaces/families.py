"""One space over all families of networks for tables: which family is itself a parameter.

The parameters of a family exist only where it is chosen. Those of ``mlp`` have the names that they have in its own
space, so that its trials train in packs as they do there; those of the others stand behind the family's name, as in
``realmlp/width``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, final

import keras
import keras_tuner

from search_spaces.catalogue import FAMILIES, FAMILY, MLP, SPACES, SpaceError, load_attribute
from search_spaces.context import TableContext
from search_spaces.recipe import declare_balance, declare_batch_size
from search_spaces.tabular import HyperParameters, TabularSpace


@final
class FamiliesSpace(keras_tuner.HyperModel):
    """The networks of several spaces (``tabular``).

    Args:
        context: The table and the task.
    """

    def __init__(self, context: TableContext) -> None:
        super().__init__(name=type(self).__name__)
        self.context = context
        self._spaces = _spaces(context)

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Declares the family, the batch size of all, and the parameters of each family."""
        hp.Choice(FAMILY, list(self._spaces), default=MLP)
        declare_batch_size(hp, self.context)
        declare_balance(hp, self.context)
        for name, space in self._spaces.items():
            with hp.conditional_scope(FAMILY, [name]):
                if name == MLP:
                    space.declare(hp)
                    continue
                with hp.name_scope(name):
                    space.declare(hp)

    def build(self, hp: HyperParameters) -> keras.Model:
        """Returns the compiled network of the family that `hp` asks for."""
        self.declare_hyperparameters(hp)
        family = hp.get(FAMILY)
        return self._spaces[family].build(own_parameters(hp.values, family=family))


def own_parameters(values: Mapping[str, Any], *, family: str) -> HyperParameters:
    """Returns the parameters of a family as its own space names them.

    Args:
        values: Active parameters of the space over all families.
        family: The family that they choose.
    """
    own = keras_tuner.HyperParameters()
    prefix = "" if family == MLP else f"{family}/"
    own.values = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    own.values |= {"batch_size": values["batch_size"]}
    own.values.pop(FAMILY, None)
    return own


def _spaces(context: TableContext) -> Mapping[str, TabularSpace]:
    """Returns the families that take the table, by name."""
    spaces: dict[str, TabularSpace] = {}
    for name in FAMILIES:
        found: Any = load_attribute(SPACES[name])
        # A family that is too dear for the table's columns says so; the others remain.
        with contextlib.suppress(SpaceError):
            spaces[name] = found(context)
    return spaces
