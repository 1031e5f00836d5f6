"""Who decides. Knows numbers about a network (`problem.Problem`), never the network itself.

`baselines.make_search` builds the strategy that a configuration names; gymnasium and stable-baselines3
are imported only when that strategy is the hierarchical one.
"""
