"""Word vectors: the embedding space that photos are mapped into.

`vectors` loads word vectors and writes those of the vocabulary, `lexicon.look_up` finds the vector of any word,
`text_encoders` encodes texts, `vocabulary.Vocabulary` holds the tags, and `lift` is the kernel feature map of sdl_plus.
All other packages may import them; `lexicon`, `vocabulary` and `lift` need only numpy, so serving uses these three.
"""
