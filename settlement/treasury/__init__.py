"""The treasury: what ETH was bought for, what moved in escrows by hand, what is earned, how much ETH to buy.

records.py    conversions and movements as operators write them down, and how a wrong one is voided
margins.py    average prices and margins: exact, pure
report.py     both over a period, beside the luck of the tickets
advise.py     how much ETH to buy now
documents.py  all of it in JSON
"""
