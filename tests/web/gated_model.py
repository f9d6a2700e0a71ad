"""A model that can be made to wait, for tests of who waits for it."""

import threading

from vdsr_cli.loading import LoadedModel


class Gate:
    """A model that waits to be let through, and counts."""

    def __init__(self, model):
        self.scale, self.lr_multiple = model.scale, model.lr_multiple
        self.latent_shapes, self.model = model.latent_shapes, model
        self.fixed_tile, self.margin = model.fixed_tile, model.margin
        self.is_reached, self.is_open, self.calls = threading.Event(), threading.Event(), 0

    def means(self, lr, noise, temperature, *, repeats=1):
        self.calls += 1
        self.is_reached.set()
        assert self.is_open.wait(30)
        return self.model.means(lr, noise, temperature, repeats=repeats)


def loaded(model, name="tiny"):
    card = {"degradation": "bicubic"}
    return LoadedModel(name=name, model=model, record=None, card=card, parameters=1)
