"""The version, in a file that imports nothing: setup.cfg reads it without torch, and any room may name it."""

__version__ = "0.1.0"
