"""The spaces by name; looking a name up imports no TensorFlow."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping

SPACES: Mapping[str, str] = {
    "additive": "search_spaces.additive:AdditiveSpace",
    "backbone": "search_spaces.pretrained:RandomBackboneSpace",
    "cell": "search_spaces.cell:CellSpace",
    "cnn": "search_spaces.cnn:CNNSpace",
    "ft_transformer": "search_spaces.ft_transformer:FTTransformerSpace",
    "mixer": "search_spaces.patches:MixerSpace",
    "mlp": "search_spaces.tabular:MLPSpace",
    "pretrained": "search_spaces.pretrained:pretrained_space",
    "realmlp": "search_spaces.realmlp:RealMLPSpace",
    "resnet": "search_spaces.tabular:ResNetSpace",
    "tabm": "search_spaces.tabm:TabMSpace",
    "tabm-mini": "search_spaces.tabm:tabm_mini",
    "tabular": "search_spaces.families:FamiliesSpace",
    "vit": "search_spaces.patches:ViTSpace",
}
"""Name of a space -> ``module:attribute`` of its class."""

IMAGE_SPACES: frozenset[str] = frozenset({"backbone", "cell", "cnn", "mixer", "pretrained", "vit"})
"""Those of `SPACES` whose networks look at images; the others take tables."""

MLP = "mlp"

FAMILIES: tuple[str, ...] = (MLP, "resnet", "tabm", "tabm-mini", "realmlp", "ft_transformer", "additive")
"""The spaces that ``tabular`` searches over."""

FAMILY = "family"
"""The parameter of ``tabular`` that chooses among them."""


class SpaceError(ValueError):
    """A space cannot be used; the message says why and what to do."""


def check_space_name(name: str) -> str:
    """Returns `name` if it is one of `SPACES` or has the form ``module:attribute``.

    Raises:
        SpaceError: The name is neither.
    """
    if name in SPACES:
        return name
    module, separator, attribute = name.partition(":")
    parts = [*module.split("."), attribute]
    if separator and all(part.isidentifier() for part in parts):
        return name
    near = difflib.get_close_matches(name, SPACES, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise SpaceError(
        f"unknown space {name!r}{hint}: expected one of {', '.join(sorted(SPACES))}, or your own build function "
        f"as module:function"
    )


def check_space_suits(name: str, *, has_images: bool) -> str:
    """Returns `name` if the space of that name takes data of this kind; a space of the user's own may take any.

    Args:
        name: What `check_space_name` returned.
        has_images: Whether a column of the data is one of images.

    Raises:
        SpaceError: It is a space for the other kind.
    """
    if name not in SPACES or (name in IMAGE_SPACES) is has_images:
        return name
    others = ", ".join(sorted(IMAGE_SPACES if has_images else SPACES.keys() - IMAGE_SPACES))
    needs, got = ("a table", "images") if has_images else ("images", "a table")
    raise SpaceError(f"the space {name!r} builds networks for {needs}, and the data is {got}: expected one of {others}")


FEW_IMAGES = 20_000
"""Training images below which networks that learn from patches what an image is are behind convolutions."""


def space_warning(name: str, *, num_rows: int) -> str:
    """Returns why a space is a doubtful choice for so many training rows; nothing where it is not.

    Args:
        name: The space.
        num_rows: Training rows.
    """
    if name not in ("mixer", "vit") or num_rows >= FEW_IMAGES:
        return ""
    return (
        f"the space {name!r} has to learn from the data what an image is, and {num_rows:,} training images are few for "
        f"that (at least {FEW_IMAGES:,} are asked for, and the authors had millions): expect --space cnn to be better"
    )


def load_attribute(reference: str) -> object:
    """Imports what ``module:attribute`` names.

    Raises:
        SpaceError: The module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything at import
        raise SpaceError(
            f"cannot import the space module {module_name!r}: {type(error).__name__}: {error}; it must be importable "
            f"from the folder the command runs in, or installed"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        names = [name for name in vars(module) if not name.startswith("_")]
        near = difflib.get_close_matches(attribute, names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SpaceError(f"module {module_name!r} has no {attribute!r}{hint}") from None
