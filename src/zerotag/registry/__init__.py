"""Model registry: the model in production, and reasons to retrain.

`choice.best_model` selects the best trained model, `champion` records the one in production and rolls it back, and
`reasons.age_or_drift` decides whether to retrain, based on `drift`. The flows act on this; nothing here trains or loads
a network.
"""
