"""Benchmarks on Corel5K's real photographs, one command a file.

`python -m benchmarks.corel5k` runs the tables of methods, `.folds` the ablations that settings are chosen by, `.ideas`
what was tried and left; `protocol`, `figures` and `tables` are what they share.
"""
