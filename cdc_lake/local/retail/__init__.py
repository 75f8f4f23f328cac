"""A made-up retailer: schema, bulk load and a living workload for the demo, the tests and the benchmarks."""
