"""Which labels are wrong, and what helps a person to decide."""

from mlcv.audit.instructions import Shown, examples_of_class

__all__ = ["Shown", "examples_of_class"]
