"""Train models.

`methods` has the scores and losses (SDL, Fast0Tag, sdl_plus), `loop` the training loop, `modes` the fine-tuning modes.
`backbones` builds timm networks, `features` caches features of a frozen backbone, `model` saves and loads models.
"""
