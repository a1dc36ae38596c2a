"""Which model is in service, and when to train another.

`choice` finds the best of the trained models, `champion` keeps the record of the one in service, `reasons` and `drift`
say when retraining is due.
"""
