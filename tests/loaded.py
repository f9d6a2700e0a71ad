"""Models of tests as the loader would give them."""

from typing import Any

from vdsr_cli.loading import Loaded


def loaded_as(name: str, model: Any, **card: Any) -> Loaded:
    """A model under a name, of no row of weights.toml."""
    return Loaded(name=name, model=model, record=None, card=card, parameters=1)
