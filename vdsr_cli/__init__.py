"""vdsr: super-resolution that samples, on hierarchical variational autoencoders."""

__version__ = "0.1.0"

__all__ = ["__version__"]
