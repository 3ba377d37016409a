"""USER: communities of a graph whose edges are partly wrong, by structural entropy (arXiv 2302.05889).

`graph` is checked input, `features` its columns centred, `entropy` and `davies_bouldin` the two measures of a
partition, `objective` the loss, `network` the GCN and the learned graph, `encoder` the fit and what it leaves, `noise`
wrong edges, `metrics` known classes, `link_prediction` held-out edges, `tools` what a model may call, `train` the
recipe. Guide: docs/user_graph.md.

Nothing is imported here, so that tools and configs are found without torch.
"""
