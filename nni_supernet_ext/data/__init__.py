"""Data samplers: which examples a step sees."""

__all__: list[str] = []
