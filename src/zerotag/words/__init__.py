"""Words as vectors: the space that photographs are mapped into.

`vectors` loads word vectors and writes the vocabulary's, `lexicon.look_up` finds the vector of any word,
`text_encoders` encodes whole texts, `vocabulary.Vocabulary` holds the tags, and `lift` is the larger space of sdl_plus.
"""
