"""`make devnet`: a chain of one's own with a clearinghouse over it, to play with what otherwise costs money and days.

python -m tests.devnet start      the chain, an orchestrator that draws the lottery, and `clearinghouse dev` over both
python -m tests.devnet pay 30     … and, from another terminal, whatever may happen to them, a command each

docs/devnet.md is the walk-through.
"""
