"""Word vectors: the embedding space that photos are mapped into.

`vectors` loads word vectors and writes those of the vocabulary, `lexicon.look_up` finds the vector of any word, `tags`
has one spelling for every tag, `text_encoders` encodes texts, `vocabulary.Vocabulary` holds the tags, `lift` is the
kernel feature map of sdl_plus, and `kinds` says which classes are kinds of an everyday word. All other packages may
import them; all but `vectors` start without torch and pandas, as serving needs it.
"""
