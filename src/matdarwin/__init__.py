"""Language models that know materials: a formula in, a property with an honest error bar out."""

__version__ = "0.1.0"
