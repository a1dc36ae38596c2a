"""Evaluation: metrics, confidence intervals, calibrated probabilities, and the report.

`evaluate.evaluate` computes all metrics of the supplement's Table 1 from `metrics` and `bootstrap`, `comparison`
compares two models on the same photos, and `report.write_report` writes the HTML report. `held_out` fits what
`calibration.Calibration` stores; applying a calibration needs only numpy, and it is all that serving may import from
this package.
"""
