"""`midsource bench`: what this machine does with midsource, beside what it could do at most and what others do.

`bench.stage` holds what every row needs, `bench.row` what a row says; each row is a module of one shape (`NAME`, `WHAT`,
`TARGET`, `run(bench)`), listed in `bench.rows`. `bench.report` turns the JSON into docs/performance.md and its pictures.
"""
