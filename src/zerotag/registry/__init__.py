"""The model in service, and when to train another.

`choice.best_model` selects among the trained models, `champion` keeps the record of the one in service and rolls it
back, and `reasons.age_or_drift` tells whether retraining is due, from what `drift` measures. The flows act on this;
nothing here trains or loads a network.
"""
