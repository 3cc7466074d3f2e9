"""A package of its own: another that is called `tests` (IPython 7 brings one) is not taken for it."""
