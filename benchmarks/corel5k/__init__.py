"""Benchmarks on the photographs of Corel5K.

`python -m benchmarks.corel5k` compares methods on test photos, `.folds` runs cross-validated ablations for
hyper-parameter selection, `.ideas` runs rejected ideas, and `.classes` what was tried with the classes of the
backbone's classifier. They share `protocol`, `figures` and `tables`.
"""
