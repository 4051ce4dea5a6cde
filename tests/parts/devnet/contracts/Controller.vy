# pragma version 0.4.3
"""
@title Which contract has which name. A double: anybody may set anything.
"""

paused: public(bool)
contracts: HashMap[bytes32, address]


@external
@view
def getContract(_id: bytes32) -> address:
    return self.contracts[_id]


@external
def setContract(_name: String[32], _address: address):
    self.contracts[keccak256(_name)] = _address


@external
def setPaused(_paused: bool):
    self.paused = _paused
