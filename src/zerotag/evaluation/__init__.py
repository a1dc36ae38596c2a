"""Evaluation: metrics, confidence intervals, calibrated probabilities, and the report.

`evaluate.evaluate` computes all metrics of the supplement's Table 1 from `metrics` and `bootstrap`, `comparison`
compares two models, `calibration` maps scores to probabilities, and `report` writes the HTML report.
"""
