"""Model registry: the model in production, and reasons to retrain.

`choice` selects the best trained model, `champion` records the one in production, `reasons` and `drift` decide when to
retrain.
"""
