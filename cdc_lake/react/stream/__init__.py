"""Streaming SQL: named models in `streams/<name>.sql` over the live changes, kept up to date change by change.

`modelfile` reads files, `query` takes a model's SQL apart and refuses what cannot be kept up incrementally, `shape`
makes of it the SQL of one step, `step` evaluates one from a position to the next, `table` commits rows and position
together, `run` is the loop, `topic` sends rows to Kafka,
`replay` makes rows again and compares.
"""
