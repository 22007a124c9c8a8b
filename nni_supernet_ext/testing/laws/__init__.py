"""The laws: what must hold for every method. Each raises AssertionError with what broke."""
