"""Criminal judicial opinions guided by legal chains (LegalChainReasoner, arXiv 2509.00783).

    from reasoning.legal import legal_chains, check_opinion, consistency

`chains` are the data, `statute` reads them from the law, `charges` are those that travel with the package; `check` says
whether reasons and sentence agree; `metrics`, `official` and `text_scores` measure.

This is for research on language models that give reasons. It must not be used to decide or to prepare a decision in a
person's case.
"""

from reasoning.legal.chains import Chain, MonthRange, build_graph, read_chains, write_chains
from reasoning.legal.check import check_opinion, consistency, legal_chains
from reasoning.legal.sentence import read_clause, read_sentence, sentence_clause

__all__ = [
    "Chain",
    "MonthRange",
    "build_graph",
    "check_opinion",
    "consistency",
    "legal_chains",
    "read_chains",
    "read_clause",
    "read_sentence",
    "sentence_clause",
    "write_chains",
]
