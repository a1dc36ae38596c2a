"""How good a model is: metrics, their intervals, calibrated probabilities, and the report.

`evaluate.evaluate` computes all the figures of the supplement's Table 1, `metrics` and `bootstrap` are its parts,
`comparison` compares two models, `calibration` turns scores into probabilities, `report` writes the page.
"""
