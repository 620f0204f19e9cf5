"""Frozen nouns with invariants in their constructors; no I/O."""
