"""Rows of benchmarks.corel5k.classes: what was tried with the classes of a backbone's classifier."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Trial:
    """A way to use the classes, of benchmarks.corel5k.classes; the defaults are those that ship.

    Attributes:
        method: that the head of the seen tags is trained with; empty for no training, and no seen tags.
        words: how a tag is encoded: `both` (alone and in a caption), `alone`, `caption`, `glove` or `glove and minilm`.
        text: of a class, with {names}, {first} (name), {definition} and {kinds} (everyday words that it is a kind of).
        backbone: whose classifier it is, without training.
        views: of a photo, whose g are averaged: `pipeline` (squeezed, its cached features), `squeezed`, `half` (crop),
            `half mirrored` or `central` (crop).
        g: what the classes say of a photo: `softmax`, `logits`, `squares` (of the logits, with their sign),
            `less means` (over training photos) or `standardised`.
        temperature: of the softmax.
        unit: whether g has unit length.
        trust: spread of the classes' scores, in units of the seen tags'.
        noise: of the anchors, against the kernel's 1.
        by_anchor: whether an anchor's noise is in proportion to its leave-one-out error.
        sharpness: of the kernel; empty for cosines.
        anchors: `both`, `seen` tags or `classes`; `none` for the lift alone, or `conse`.
        centre: whether words and classes are centred by their own means (`own`), both by the words' (`one`) or not.
        inverse: whether scores are interpolated, rather than smoothed by the kernel.
        of_unit_length: whether a word's weights of the classes are.
        mean_back: whether the mean of the seen tags' scores is added to the unseen tags'.
        kinds: weight of the probabilities of classes that are kinds of a tag.
        bonus: added to unseen tags' scores.
        taught: weight of the classes' scores as further targets of the head; 0: none.
    """

    method: str = "sdl_plus"
    words: str = "both"
    text: str = "a photo of a {names}: {definition}"
    backbone: str = "tf_efficientnet_lite0"
    views: tuple[str, ...] = ("pipeline",)
    g: str = "softmax"
    temperature: float = 4.0
    unit: bool = True
    trust: float = 0.5
    noise: float = 0.3
    by_anchor: bool = False
    sharpness: tuple[float, ...] = (2.0, 4.0, 8.0)
    anchors: str = "both"
    centre: str = "own"
    inverse: bool = True
    of_unit_length: bool = False
    mean_back: bool = False
    kinds: float = 0.0
    bonus: float = 0.0
    taught: float = 0.0


_TRIAL = Trial()
TRIALS = {
    "GloVe, no classes": Trial(words="glove", anchors="none"),
    "words alone, no classes": Trial(words="alone", anchors="none"),
    "words in a caption, no classes": Trial(words="caption", anchors="none"),
    "words both ways, no classes": Trial(anchors="none"),
    "**classes as anchors, as shipped**": _TRIAL,
    "seen tags as anchors only": Trial(anchors="seen"),
    "classes as anchors only": Trial(anchors="classes"),
    **{f"trust {value}": Trial(trust=value) for value in (0.25, 0.35, 0.75, 1.0, 2.0)},
    **{f"noise {value}": Trial(noise=value) for value in (0.03, 0.1, 1.0)},
    "noise by each anchor's leave-one-out error": Trial(by_anchor=True),
    "g: centred logits": Trial(g="logits", unit=False),
    "g: centred logits of unit length": Trial(g="logits"),
    "g: signed squares of the centred logits, of unit length": Trial(g="squares"),
    **{f"g: softmax at temperature {value}": Trial(temperature=value) for value in (1.0, 3.0, 8.0)},
    "g not of unit length": Trial(unit=False),
    "g: logits standardised by class": Trial(g="standardised", unit=False),
    "g: logits minus their means over training photos": Trial(g="less means"),
    "mean of the seen scores added back": Trial(mean_back=True),
    "weights of unit length": Trial(of_unit_length=True),
    "all words centred by the seen tags' mean": Trial(centre="one"),
    "sharpness 4 only": Trial(sharpness=(4.0,)),
    "sharpness 2, 4, 8, 16": Trial(sharpness=(2.0, 4.0, 8.0, 16.0)),
    "class text without the definition": Trial(text="a photo of a {names}"),
    "class text: definition only": Trial(text="{definition}"),
    "class text: first name and definition": Trial(text="a photo of a {first}: {definition}"),
    "class text without the caption": Trial(text="{names}: {definition}"),
    "class text with hypernyms": Trial(text="a photo of a {names}, {kinds}: {definition}"),
    "words alone": Trial(words="alone"),
    "words in a caption": Trial(words="caption"),
    **{f"kinds (hypernyms) of weight {value}": Trial(kinds=value) for value in (0.3, 0.8, 1.5)},
    "GloVe": Trial(words="glove"),
    "GloVe and MiniLM, cosines averaged": Trial(words="glove and minilm"),
    "half crop for g": Trial(views=("half",)),
    "central crop for g": Trial(views=("central",)),
    "second view: squeezed and central crop": Trial(views=("pipeline", "central")),
    "calibrated stacking, +1": Trial(bonus=1.0),
    "head taught the classes' scores as well": Trial(taught=0.1),
    "head taught the classes' scores, in place of anchors": Trial(taught=0.1, anchors="none"),
    "SDL, no classes": Trial("sdl", anchors="none"),
    "SDL and classes": Trial("sdl"),
    "Fast0Tag, no classes": Trial("fast0tag", anchors="none"),
    "Fast0Tag and classes": Trial("fast0tag"),
}
_UNTRAINED = Trial("", of_unit_length=True, views=("half",))
UNTRAINED = {
    "ConSE": replace(_UNTRAINED, anchors="conse"),
    "ConSE as published: first names, words alone": replace(_UNTRAINED, anchors="conse", words="alone", text="{first}"),
    "**the classes, no kinds**": _UNTRAINED,
    **{f"kinds of weight {value}": replace(_UNTRAINED, kinds=value) for value in (0.3, 0.5, 0.8)},
    "**kinds of weight 1.5: the starter**": replace(_UNTRAINED, kinds=1.5),
    "squeezed": replace(_UNTRAINED, views=("squeezed",)),
    "central crop": replace(_UNTRAINED, views=("central",)),
    "two views: half crop and its mirror image": replace(_UNTRAINED, views=("half", "half mirrored")),
    "two views: half and central crop": replace(_UNTRAINED, views=("half", "central")),
    "two views: half crop and squeezed": replace(_UNTRAINED, views=("half", "squeezed")),
    "two views, with kinds of weight 1.5: `--views 2`": replace(_UNTRAINED, kinds=1.5, views=("half", "half mirrored")),
    "two views, the other a central crop, with kinds of weight 1.5": replace(
        _UNTRAINED, kinds=1.5, views=("half", "central")
    ),
    "three views": replace(_UNTRAINED, views=("half", "half mirrored", "central")),
    "words alone": replace(_UNTRAINED, words="alone"),
    "words in a caption": replace(_UNTRAINED, words="caption"),
    "class texts without the caption": replace(_UNTRAINED, text="{names}: {definition}"),
    "class texts without the definition": replace(_UNTRAINED, text="a photo of a {names}"),
    "class texts: definition only": replace(_UNTRAINED, text="{definition}"),
    "class texts with hypernyms": replace(_UNTRAINED, text="a photo of a {names}, {kinds}: {definition}"),
    "weights not of unit length": replace(_UNTRAINED, of_unit_length=False),
    "g not of unit length": replace(_UNTRAINED, unit=False),
    "g: centred logits of unit length": replace(_UNTRAINED, g="logits"),
    "g: centred logits": replace(_UNTRAINED, g="logits", unit=False),
    **{f"temperature {value}": replace(_UNTRAINED, temperature=value) for value in (1.0, 3.0, 5.0)},
    **{f"sharpness {value}": replace(_UNTRAINED, sharpness=(value,)) for value in (4.0, 6.0)},
    "word vectors not centred, sharpness 4": replace(_UNTRAINED, centre="none", sharpness=(4.0,)),
    **{f"noise {value}": replace(_UNTRAINED, noise=value) for value in (0.03, 1.0)},
    "no inverse": replace(_UNTRAINED, inverse=False),
    "linear kernel, noise 1": replace(_UNTRAINED, sharpness=(), noise=1.0),
    "GloVe and MiniLM, cosines averaged": replace(_UNTRAINED, words="glove and minilm"),
    "GloVe": replace(_UNTRAINED, words="glove"),
    "lite2 at 260 pixels": replace(_UNTRAINED, backbone="tf_efficientnet_lite2"),
}
