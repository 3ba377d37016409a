"""Verbs as argument concepts: what can do it, to what can it be done (AC, AAAI 2016, arXiv 1803.00729).

    from reasoning.verbs import Lexicon, VerbEncoder, wordnet_lexicon

`conllu` and `shallow` give trees, `arguments` reads verbs' arguments off them, `statistics` weighs these, `wordnet` and
`taxonomy` say what is a what, `clique` and `concepts` choose k concepts, `lexicon` is all that behind one object,
`encoder` its vectors, `identify` measures it, and `relations` names one relation one way.
"""

from reasoning.verbs.concepts import Concepts, SelectionalAssociation, conceptualise
from reasoning.verbs.encoder import VerbEncoder
from reasoning.verbs.lexicon import Lexicon, wordnet_lexicon
from reasoning.verbs.taxonomy import Taxonomy, read_tsv, wordnet

__all__ = [
    "Concepts",
    "Lexicon",
    "SelectionalAssociation",
    "Taxonomy",
    "VerbEncoder",
    "conceptualise",
    "read_tsv",
    "wordnet",
    "wordnet_lexicon",
]
