"""Importers: networks that were trained elsewhere, one file a format.

An importer takes a file and returns an :mod:`edgebnn.nn` module that computes what the file's
network does, ready for :func:`edgebnn.save`: from model.pt on, nobody asks where a network came
from. What edgebnn has no layer for is refused, in one line that names it.
"""
