"""Model registry: which model answers, and reasons to retrain.

`served.package_to_serve` finds the model that answers, and has the starter built if there is none. `choice.best_model`
selects the best trained model, `champion` records the one in production and rolls it back, `releases` tags it in Git
for DVC's registry, `shadow` counts how a challenger differed from it before it is promoted, and `reasons.age_or_drift`
decides whether to retrain, based on `drift`. The flows act on this; nothing here trains or loads a network.
"""
