"""Photographs and their tags: where they come from, and what every later step reads.

`sources` brings raw data in, `prepare` packs it into shards, `dataset.Dataset` reads these, `splits` divides the tags
into seen and unseen, `validation` is the gate before training. `photos.open_photo` decodes any photograph, for training
and serving alike.
"""
