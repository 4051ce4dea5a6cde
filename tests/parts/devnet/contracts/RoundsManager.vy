# pragma version 0.4.3
"""
@title The protocol's clock. A double: tests say which round it is, and which hash a round has.
"""

event NewRound:
    round: indexed(uint256)
    blockHash: bytes32

roundLength: public(uint256)
currentRound: public(uint256)
lastInitializedRound: public(uint256)
currentRoundStartBlock: public(uint256)
blockHashForRound: public(HashMap[uint256, bytes32])


@deploy
def __init__(_round: uint256, _hash: bytes32):
    self.roundLength = 50
    self._initialize(_round, _hash)


@external
@view
def blockNum() -> uint256:
    return block.number


@external
@view
def currentRoundInitialized() -> bool:
    return self.lastInitializedRound == self.currentRound


@external
def beginRound(_round: uint256):
    """A round that is not initialised yet."""
    self.currentRound = _round
    self.currentRoundStartBlock = block.number


@external
def initializeRound(_round: uint256, _hash: bytes32):
    """The hash may be zero: it is for some L1 blocks."""
    self._initialize(_round, _hash)


@internal
def _initialize(_round: uint256, _hash: bytes32):
    self.currentRound = _round
    self.currentRoundStartBlock = block.number
    self.lastInitializedRound = _round
    self.blockHashForRound[_round] = _hash
    log NewRound(round=_round, blockHash=_hash)
