"""Photos and tags: data sources, the prepared dataset, splits and validation.

`sources.fetch` and `sources.read` import raw data, `prepare.prepare` packs it into shards, and all later steps read
these as a `dataset.Dataset`. `splits.split_tags` divides the tags into seen and unseen, `validation.validate` gates
training, and `statistics` summarises a data set. `photos.open_photo` decodes photos for training and serving alike.

Serving may import what needs neither torch nor pandas: `photos`, `scan.scan`, which finds the photos in folders, and
`batches`, which decodes them and runs the network in threads.
"""
