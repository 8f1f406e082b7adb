"""Packages: what a build system wants beside the C of a library, one file a build system.

A package takes a :class:`edgebnn.codegen.library.Library` and returns it with files added. It
neither moves nor changes the header and the source, so whatever is compiled and measured is the
same in all of them. Nothing is written.
"""
