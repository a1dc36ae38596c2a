"""Tag and search photographs with a packaged model, using numpy, Pillow and ONNX Runtime, without torch.

`tagger.Tagger`, also available as `zerotag.Tagger`, is the entry point for the command line, the service and other
programs. `index` searches photos by words and by example, `update` keeps the index the same as folders, `duplicates`
finds photos that are there twice, and `links` shows results as a folder. `package` reads and writes the folder that is
served, and `card` its model card. `text_encoder` encodes phrases, `scoring` scores words, `fold` folds near-synonyms of
an answer, and `keywords` ranks a person's own vocabulary.
"""
