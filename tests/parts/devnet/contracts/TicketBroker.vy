# pragma version 0.4.3
"""
@title Deposits, reserves and winning tickets, as tests need them: a double of our own, written from the behaviour.
"""

interface Controller:
    def paused() -> bool: view
    def getContract(_id: bytes32) -> address: view

interface RoundsManager:
    def currentRound() -> uint256: view
    def currentRoundInitialized() -> bool: view
    def blockHashForRound(_round: uint256) -> bytes32: view

interface BondingManager:
    def getTranscoderPoolSize() -> uint256: view
    def isActiveTranscoder(_transcoder: address) -> bool: view
    def bookFees(_transcoder: address, _amount: uint256): nonpayable

struct Sender:
    deposit: uint256
    withdrawRound: uint256

struct ReserveInfo:
    fundsRemaining: uint256
    claimedInCurrentRound: uint256

struct Ticket:
    recipient: address
    sender: address
    faceValue: uint256
    winProb: uint256
    senderNonce: uint256
    recipientRandHash: bytes32
    auxData: Bytes[128]

event DepositFunded:
    sender: indexed(address)
    amount: uint256

event ReserveFunded:
    reserveHolder: indexed(address)
    amount: uint256

event ReserveClaimed:
    reserveHolder: indexed(address)
    claimant: address
    amount: uint256

event WinningTicketRedeemed:
    sender: indexed(address)
    recipient: indexed(address)
    faceValue: uint256
    winProb: uint256
    senderNonce: uint256
    recipientRand: uint256
    auxData: Bytes[128]

event WinningTicketTransfer:
    sender: indexed(address)
    recipient: indexed(address)
    amount: uint256

event Unlock:
    sender: indexed(address)
    startRound: uint256
    endRound: uint256

event UnlockCancelled:
    sender: indexed(address)

event Withdrawal:
    sender: indexed(address)
    deposit: uint256
    reserve: uint256

HIGHEST_S: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
BATCH: constant(uint256) = 32

controller: immutable(Controller)
unlockPeriod: public(uint256)
ticketValidityPeriod: public(uint256)
usedTickets: public(HashMap[bytes32, bool])
senders: HashMap[address, Sender]
reserves: HashMap[address, uint256]
claimed_for_round: HashMap[address, HashMap[uint256, uint256]]
claimed_by_address: HashMap[address, HashMap[uint256, HashMap[address, uint256]]]


@deploy
def __init__(_controller: address):
    controller = Controller(_controller)
    self.unlockPeriod = 2
    self.ticketValidityPeriod = 2


# --- funds ---


@external
@payable
def fundDeposit():
    self._fund_deposit(msg.sender, msg.value)


@external
@payable
def fundReserve():
    self._fund_reserve(msg.sender, msg.value)


@external
@payable
def fundDepositAndReserve(_deposit: uint256, _reserve: uint256):
    self._fund_both(msg.sender, _deposit, _reserve, msg.value)


@external
@payable
def fundDepositAndReserveFor(_address: address, _deposit: uint256, _reserve: uint256):
    self._fund_both(_address, _deposit, _reserve, msg.value)


@external
def unlock():
    holder: Sender = self.senders[msg.sender]
    assert holder.deposit > 0 or self.reserves[msg.sender] > 0, "sender deposit and reserve are zero"
    assert holder.withdrawRound == 0, "unlock already initiated"
    start: uint256 = self._round()
    self.senders[msg.sender].withdrawRound = start + self.unlockPeriod
    log Unlock(sender=msg.sender, startRound=start, endRound=start + self.unlockPeriod)


@external
def cancelUnlock():
    self._cancel_unlock(msg.sender)


@external
def withdraw():
    deposit: uint256 = self.senders[msg.sender].deposit
    reserve: uint256 = self.reserves[msg.sender]
    assert deposit > 0 or reserve > 0, "sender deposit and reserve are zero"
    assert self.senders[msg.sender].withdrawRound > 0, "no unlock in progress"
    assert self._round() >= self.senders[msg.sender].withdrawRound, "account is locked"
    self.senders[msg.sender].deposit = 0
    self.reserves[msg.sender] = 0
    send(msg.sender, deposit + reserve)
    log Withdrawal(sender=msg.sender, deposit=deposit, reserve=reserve)


@internal
def _fund_both(_address: address, _deposit: uint256, _reserve: uint256, _value: uint256):
    assert _value == _deposit + _reserve, "msg.value does not equal sum of deposit amount and reserve amount"
    self._fund_deposit(_address, _deposit)
    self._fund_reserve(_address, _reserve)


@internal
def _fund_deposit(_address: address, _amount: uint256):
    if _amount == 0:
        return
    self.senders[_address].deposit += _amount
    self._end_unlock_by_owner(_address)
    log DepositFunded(sender=_address, amount=_amount)


@internal
def _fund_reserve(_address: address, _amount: uint256):
    if _amount == 0:
        return
    self.reserves[_address] += _amount
    self._end_unlock_by_owner(_address)
    log ReserveFunded(reserveHolder=_address, amount=_amount)


@internal
def _end_unlock_by_owner(_address: address):
    """Funding by somebody else does not cancel an unlock."""
    if msg.sender == _address and self.senders[_address].withdrawRound > 0:
        self._cancel_unlock(_address)


@internal
def _cancel_unlock(_address: address):
    assert self.senders[_address].withdrawRound > 0, "no unlock in progress"
    self.senders[_address].withdrawRound = 0
    log UnlockCancelled(sender=_address)


# --- readings ---


@external
@view
def getSenderInfo(_sender: address) -> (Sender, ReserveInfo):
    return self.senders[_sender], self._reserve_info(_sender)


@external
@view
def getReserveInfo(_holder: address) -> ReserveInfo:
    return self._reserve_info(_holder)


@external
@view
def claimedReserve(_holder: address, _claimant: address) -> uint256:
    return self.claimed_by_address[_holder][self._round()][_claimant]


@external
@view
def claimableReserve(_holder: address, _claimant: address) -> uint256:
    return self._claimable(_holder, _claimant)


@external
@view
def isUnlockInProgress(_sender: address) -> bool:
    return self.senders[_sender].withdrawRound > 0


@external
@view
def getTicketHash(_ticket: Ticket) -> bytes32:
    return self._hash(_ticket)


# --- tickets ---


@external
def redeemWinningTicket(_ticket: Ticket, _sig: Bytes[96], _recipient_rand: uint256):
    self._redeem(_ticket, _sig, _recipient_rand)


@external
def batchRedeemWinningTickets(
    _tickets: DynArray[Ticket, BATCH], _sigs: DynArray[Bytes[96], BATCH], _recipient_rands: DynArray[uint256, BATCH]
):
    assert len(_tickets) == len(_sigs) and len(_tickets) == len(_recipient_rands), "array lengths differ"
    for i: uint256 in range(len(_tickets), bound=BATCH):
        self._redeem(_tickets[i], _sigs[i], _recipient_rands[i])


@internal
def _redeem(_ticket: Ticket, _sig: Bytes[96], _recipient_rand: uint256):
    assert not staticcall controller.paused(), "system is paused"
    rounds: RoundsManager = RoundsManager(self._contract("RoundsManager"))
    assert staticcall rounds.currentRoundInitialized(), "current round is not initialized"
    ticket_hash: bytes32 = self._hash(_ticket)
    self._require_valid(_ticket, ticket_hash, _sig, _recipient_rand)
    self._require_funds_locked(_ticket.sender)
    self.usedTickets[ticket_hash] = True
    log WinningTicketRedeemed(
        sender=_ticket.sender, recipient=_ticket.recipient, faceValue=_ticket.faceValue, winProb=_ticket.winProb,
        senderNonce=_ticket.senderNonce, recipientRand=_recipient_rand, auxData=_ticket.auxData,
    )
    paid: uint256 = min(_ticket.faceValue, self.senders[_ticket.sender].deposit)
    self.senders[_ticket.sender].deposit -= paid
    if paid < _ticket.faceValue:
        paid += self._claim(_ticket.sender, _ticket.recipient, _ticket.faceValue - paid)
    if paid > 0:
        extcall BondingManager(self._contract("BondingManager")).bookFees(_ticket.recipient, paid)
        log WinningTicketTransfer(sender=_ticket.sender, recipient=_ticket.recipient, amount=paid)


@internal
@view
def _require_valid(_ticket: Ticket, _hash: bytes32, _sig: Bytes[96], _recipient_rand: uint256):
    assert _ticket.recipient != empty(address), "ticket recipient is null address"
    assert _ticket.sender != empty(address), "ticket sender is null address"
    assert len(_ticket.auxData) == 64, "invalid length for ticket auxData"
    created: uint256 = convert(slice(_ticket.auxData, 0, 32), uint256)
    created_hash: bytes32 = convert(slice(_ticket.auxData, 32, 32), bytes32)
    known: bytes32 = staticcall RoundsManager(self._contract("RoundsManager")).blockHashForRound(created)
    assert known != empty(bytes32) and known == created_hash, "ticket creationRoundBlockHash is invalid"
    assert created + self.ticketValidityPeriod > self._round(), "ticket is expired"
    rand: bytes32 = convert(_recipient_rand, bytes32)
    assert keccak256(rand) == _ticket.recipientRandHash, "recipientRand does not match"
    assert not self.usedTickets[_hash], "ticket is used"
    assert self._signer(_hash, _sig) == _ticket.sender, "invalid signature over ticket hash"
    assert convert(keccak256(concat(slice(_sig, 0, 65), rand)), uint256) < _ticket.winProb, "ticket did not win"


@internal
@view
def _require_funds_locked(_sender: address):
    withdraw_round: uint256 = self.senders[_sender].withdrawRound
    assert withdraw_round == 0 or self._round() < withdraw_round, "sender is unlocked"
    assert self.senders[_sender].deposit > 0 or self.reserves[_sender] > 0, "sender deposit and reserve are zero"


@internal
def _claim(_holder: address, _claimant: address, _amount: uint256) -> uint256:
    claimed: uint256 = min(_amount, self._claimable(_holder, _claimant))
    if claimed > 0:
        self.claimed_for_round[_holder][self._round()] += claimed
        self.claimed_by_address[_holder][self._round()][_claimant] += claimed
        self.reserves[_holder] -= claimed
        log ReserveClaimed(reserveHolder=_holder, claimant=_claimant, amount=claimed)
    return claimed


@internal
@view
def _claimable(_holder: address, _claimant: address) -> uint256:
    """The round's share of each: of what is left and what was claimed in it. A pool that grew may make it negative."""
    bonding: BondingManager = BondingManager(self._contract("BondingManager"))
    pool_size: uint256 = staticcall bonding.getTranscoderPoolSize()
    if pool_size == 0 or not staticcall bonding.isActiveTranscoder(_claimant):
        return 0
    share: uint256 = (self.reserves[_holder] + self.claimed_for_round[_holder][self._round()]) // pool_size
    taken: uint256 = self.claimed_by_address[_holder][self._round()][_claimant]
    return share - taken if share > taken else 0


@internal
@view
def _reserve_info(_holder: address) -> ReserveInfo:
    return ReserveInfo(
        fundsRemaining=self.reserves[_holder],
        claimedInCurrentRound=self.claimed_for_round[_holder][self._round()],
    )


@internal
@pure
def _signer(_hash: bytes32, _sig: Bytes[96]) -> address:
    if len(_sig) != 65:
        return empty(address)
    r: uint256 = convert(slice(_sig, 0, 32), uint256)
    s: uint256 = convert(slice(_sig, 32, 32), uint256)
    v: uint256 = convert(slice(_sig, 64, 1), uint256)
    if s > HIGHEST_S or (v != 27 and v != 28):
        return empty(address)
    return ecrecover(keccak256(concat(b"\x19Ethereum Signed Message:\n32", _hash)), v, r, s)


@internal
@pure
def _hash(_ticket: Ticket) -> bytes32:
    return keccak256(
        concat(
            convert(_ticket.recipient, bytes20), convert(_ticket.sender, bytes20), convert(_ticket.faceValue, bytes32),
            convert(_ticket.winProb, bytes32), convert(_ticket.senderNonce, bytes32), _ticket.recipientRandHash,
            _ticket.auxData,
        )
    )


@internal
@view
def _contract(_name: String[32]) -> address:
    return staticcall controller.getContract(keccak256(_name))


@internal
@view
def _round() -> uint256:
    return staticcall RoundsManager(self._contract("RoundsManager")).currentRound()
