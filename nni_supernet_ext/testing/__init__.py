"""Laws that every method obeys, with toy settings to run them: for this package and for yours."""

from nni_supernet_ext.testing.toys import ToyCellSpace, ToySpace, toy_data, toy_evaluator, toy_supernet

__all__ = ["ToyCellSpace", "ToySpace", "toy_data", "toy_evaluator", "toy_supernet"]
