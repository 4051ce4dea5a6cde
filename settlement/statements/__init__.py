"""Statements: what a gateway had, what came and went in a period, and what is left, on paper and in a table.

    Statement ──▶ figures: rounded, still adding up ──▶ page: texts in a locale ──▶ PDF
        └───────▶ CSV: every digit

Nothing here reads a database or a clock: the same Statement gives the same bytes.
"""
