# pragma version 0.4.3
"""
@title A price feed, or an L2 sequencer's. A double: anybody may make it say anything.
"""

struct RoundData:
    roundId: uint80
    answer: int256
    startedAt: uint256
    updatedAt: uint256
    answeredInRound: uint80

latestRoundData: public(RoundData)
decimals: public(uint8)
description: public(String[64])


@deploy
def __init__(_description: String[64], _decimals: uint8):
    self.description = _description
    self.decimals = _decimals


@external
def setRound(_id: uint80, _answer: int256, _startedAt: uint256, _updatedAt: uint256, _answeredIn: uint80):
    self.latestRoundData = RoundData(
        roundId=_id, answer=_answer, startedAt=_startedAt, updatedAt=_updatedAt, answeredInRound=_answeredIn
    )


@external
def setDecimals(_decimals: uint8):
    self.decimals = _decimals
