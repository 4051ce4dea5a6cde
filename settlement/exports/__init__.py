"""Usage as files: every issuance of a period as CSV, JSON lines or Parquet, streamed.

The three have the same columns in the same order, which are the names of GET /v1/issuances, and the same texts for
amounts, so that any of them can be compared with any other. The same issuances in the same order give the same bytes,
however they were batched.
"""
