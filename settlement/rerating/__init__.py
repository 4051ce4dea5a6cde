"""Closed periods rated anew, where a rate card was wrong: what every call should have been charged, and what follows.

replay.py   a month's calls by the cards as of a version: pure sums of clearinghouse/rates, call by call
store.py    our rows, and the calls of a period
plan.py     what a re-rating would be, and its row
in_place.py whether another invoice can take the place of the one that asked
finish.py   credit note, books, new invoice: each once
"""
