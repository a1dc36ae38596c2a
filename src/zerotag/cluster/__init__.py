"""Photos on a Ray cluster: the functions that run on one machine, called on many.

`connect.connected` connects to a cluster, `spread.spread` calls a function on items there, `photos` lists and reads
photographs of folders, object stores and tables of URLs, and `tag.tag_photos` and `index.index_photos` do what
`zerotag tag` and `zerotag index` do. The stages give `spread` to the functions that they call without a cluster too.
`launch` starts a training script on its workers. Only this package imports Ray, and
only inside functions.
"""
