# pragma version 0.4.3
"""
@title Who transcodes, and from which round to which. A double: no bonds, no stake, no order by stake.
"""

interface Controller:
    def getContract(_id: bytes32) -> address: view

interface RoundsManager:
    def currentRound() -> uint256: view

event TranscoderActivated:
    transcoder: indexed(address)
    activationRound: uint256

event TranscoderDeactivated:
    transcoder: indexed(address)
    deactivationRound: uint256

NEVER: constant(uint256) = max_value(uint256)

controller: immutable(Controller)
pool: DynArray[address, 128]
activation_round: HashMap[address, uint256]
deactivation_round: HashMap[address, uint256]
isRegisteredTranscoder: public(HashMap[address, bool])
fees: public(HashMap[address, uint256])


@deploy
def __init__(_controller: address):
    controller = Controller(_controller)


@external
def join(_transcoder: address):
    """Into the pool: registered at once, active from the next round."""
    self.isRegisteredTranscoder[_transcoder] = True
    self.activation_round[_transcoder] = self._round() + 1
    self.deactivation_round[_transcoder] = NEVER
    self.pool.append(_transcoder)
    log TranscoderActivated(transcoder=_transcoder, activationRound=self._round() + 1)


@external
def leave(_transcoder: address):
    """Out of the pool at once, active until this round ends, registered for ever."""
    kept: DynArray[address, 128] = []
    for each: address in self.pool:
        if each != _transcoder:
            kept.append(each)
    self.pool = kept
    self.deactivation_round[_transcoder] = self._round() + 1
    log TranscoderDeactivated(transcoder=_transcoder, deactivationRound=self._round() + 1)


@external
def bookFees(_transcoder: address, _amount: uint256):
    """What updateTranscoderWithFees comes to."""
    assert msg.sender == staticcall controller.getContract(keccak256("TicketBroker")), "caller must be TicketBroker"
    assert self.isRegisteredTranscoder[_transcoder], "transcoder must be registered"
    self.fees[_transcoder] += _amount


@external
@view
def isActiveTranscoder(_transcoder: address) -> bool:
    return self.activation_round[_transcoder] <= self._round() and self._round() < self.deactivation_round[_transcoder]


@external
@view
def getTranscoderPoolSize() -> uint256:
    return len(self.pool)


@external
@view
def getFirstTranscoderInPool() -> address:
    return self.pool[0] if len(self.pool) > 0 else empty(address)


@external
@view
def getNextTranscoderInPool(_transcoder: address) -> address:
    found: bool = False
    for each: address in self.pool:
        if found:
            return each
        found = each == _transcoder
    return empty(address)


@internal
@view
def _round() -> uint256:
    rounds: address = staticcall controller.getContract(keccak256("RoundsManager"))
    return staticcall RoundsManager(rounds).currentRound()
