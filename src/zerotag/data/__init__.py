"""Photos and tags: data sources, preparation and validation.

`sources` fetches raw data, `prepare` packs it into shards, `dataset.Dataset` reads them, `splits` splits the tags into
seen and unseen, `validation` checks the data before training. `photos.open_photo` decodes photos, both for training
and for serving.
"""
