"""Studies: variants of recipes side by side, and models beside published networks.

What comes out is one file of raw results, one table and one plot; :mod:`edgebnn.study.compare` and
:mod:`edgebnn.study.frontier` hold the results, ``tables`` and ``plots`` show them.
"""
