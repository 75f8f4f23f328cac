"""What follows from changes while they happen: rules that open alerts, evaluated on the lake's own log.

A rule is a function of the order of changes alone, so evaluating it in any slices gives the same alerts. `rulefile` and
`expressions` read rules, `events` and `patterns` make DuckDB's SQL of them, `engine` evaluates them from cut to cut,
`ledger` commits alerts together with positions, `run` is the loop, `outputs` and `delivery` send.
"""
