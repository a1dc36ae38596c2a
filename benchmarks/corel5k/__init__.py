"""Benchmarks on the photographs of Corel5K.

`python -m benchmarks.corel5k` compares methods on test photos, `.folds` runs cross-validated ablations for
hyper-parameter selection, and `.ideas` runs rejected ideas. They share `protocol`, `figures` and `tables`.
"""
