# pragma version 0.4.3
"""
@title Where each orchestrator says it is.
"""

uris: HashMap[address, String[256]]


@external
@view
def getServiceURI(_address: address) -> String[256]:
    return self.uris[_address]


@external
def setServiceURIOf(_address: address, _uri: String[256]):
    """For tests: on the real one everybody sets their own."""
    self.uris[_address] = _uri
