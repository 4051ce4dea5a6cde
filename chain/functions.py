"""The functions of the protocol's contracts that are read, by their selectors (remote-signer protocol, section 8.2)."""

from __future__ import annotations

from typing import Final

from chain import abi

# Controller
GET_CONTRACT: Final = abi.selector("getContract(bytes32)")

# TicketBroker
GET_SENDER_INFO: Final = abi.selector("getSenderInfo(address)")
CLAIMED_RESERVE: Final = abi.selector("claimedReserve(address,address)")
TICKET_VALIDITY_PERIOD: Final = abi.selector("ticketValidityPeriod()")
UNLOCK_PERIOD: Final = abi.selector("unlockPeriod()")

# RoundsManager
CURRENT_ROUND: Final = abi.selector("currentRound()")
LAST_INITIALIZED_ROUND: Final = abi.selector("lastInitializedRound()")
BLOCK_HASH_FOR_ROUND: Final = abi.selector("blockHashForRound(uint256)")

# BondingManager
GET_TRANSCODER_POOL_SIZE: Final = abi.selector("getTranscoderPoolSize()")
GET_FIRST: Final = abi.selector("getFirstTranscoderInPool()")
GET_NEXT: Final = abi.selector("getNextTranscoderInPool(address)")
IS_ACTIVE: Final = abi.selector("isActiveTranscoder(address)")
IS_REGISTERED: Final = abi.selector("isRegisteredTranscoder(address)")

# ServiceRegistry
GET_SERVICE_URI: Final = abi.selector("getServiceURI(address)")
