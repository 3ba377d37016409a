"""Signed graphs: who trusts whom, who agrees with whom, and the sign that an edge not yet there would have.

    from tasks.graph.signed.encoder import SignedGraphEncoder

    encoder = SignedGraphEncoder().fit(edges)            # int [m, 3]: source, target, 1 or -1
    encoder.predict([[17, 404]])                         # chance that 17 trusts 404

`edges` checks a graph, `data` reads the published ones, `planted` makes small ones, `triangles` counts balance and
difficulty, `curriculum` orders examples, `backbones` and `attention` are the networks, `augment` is SGA's, `learn` puts
them together, `splits`, `baselines`, `metrics` and `evaluate` measure. docs/signed_graphs.md is the guide.
"""
