"""From a backbone and a method to a trained model.

Read `methods` for the scores and the losses (SDL, Fast0Tag, sdl_plus), `loop` for the training loop, `modes` for what
is trained. `backbones` builds timm networks, `features` caches what a frozen one computes, `model` saves and loads.
"""
