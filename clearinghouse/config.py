"""Every setting of the clearinghouse: its name, unit, default, what is allowed, and what it is for.

The models are frozen and read nothing by themselves; `clearinghouse.config_sources.load_settings` fills them from
flags, environment, file and defaults. How values are written is in config_values.py; of some sections the models are in
modules of their own. docs/configuration.md is made from all of them.
A secret `x` has a twin `x_file` that names a file to read it from; only one of the two may be given.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from chain.chainlink import BASE
from chain.networks import NETWORKS
from clearinghouse.config_alerts import AlertSettings, NoticeSettings
from clearinghouse.config_chain import ChainSettings, CoverageSettings, EscrowSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.config_invoices import InvoiceSettings
from clearinghouse.config_payments import PaymentSettings
from clearinghouse.config_prices import FeedsByCurrency, OpinionUrls, PricesByCurrency
from clearinghouse.config_section import Section
from clearinghouse.config_statements import StatementSettings
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.config_topups import TopupSettings
from clearinghouse.config_values import (
    COMMA_LIST,
    Address,
    DatabaseUrl,
    File,
    HostAndPort,
    Password,
    Pepper,
    Port,
    PriceCeiling,
    Seconds,
    SignerHeaders,
    SignerUrl,
    Token,
    WebhookHeaders,
    WebhookUrl,
    Wei,
    Whole,
)


class ListenSettings(Section):
    """Where the service listens, and how patient it is with clients."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on, for both ports.")
    http_port: Port = Field(default=8080, description="HTTP port; 0 takes a free one.")
    grpc_port: Port = Field(default=9090, description="gRPC port; 0 takes a free one.")
    tls_cert_file: File | None = Field(default=None, description="PEM certificate chain; turns TLS on for both ports.")
    tls_key_file: File | None = Field(default=None, description="PEM key of the certificate.")
    tls_client_ca_file: File | None = Field(
        default=None,
        description="PEM certificates of the authorities whose clients may connect (mTLS), for both ports.",
    )
    body_max_bytes: Annotated[Whole, Field(ge=4096, le=1 << 20)] = Field(
        default=1 << 20, description="Largest request body; more is refused with 413."
    )
    read_timeout_s: Seconds = Field(default=10, description="How long a client may take to send one request.")
    idle_timeout_s: Seconds = Field(
        default=75,
        ge=1,
        description="How long a connection of the HTTP port may stay open without a request, and how long a client of "
        "either port may leave an answer where it is.",
    )
    connections_max_count: Annotated[Whole, Field(ge=16, le=1 << 20)] = Field(
        default=8192,
        description="Most connections of the HTTP port. One address (or IPv6 /64 network) gets as many as are left for "
        "all others: half of them if it is alone, so behind a proxy set it to twice what the proxy opens.",
    )
    grpc_connections_max_count: Annotated[Whole, Field(ge=16, le=1 << 20)] = Field(
        default=1024,
        description="Most connections of the gRPC port, each with up to 256 calls at once. They are shared by "
        "address as those of the HTTP port are.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file need each other")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        if self.http_port == self.grpc_port != 0:
            raise ValueError(f"http_port and grpc_port are both {self.http_port}: they need two ports")
        return self


class ApiSettings(Section):
    """Who may use what is not a gateway's own."""

    admin_token: Token | None = Field(
        default=None, description="Bearer token of the management API, which is off without it."
    )
    admin_token_file: File | None = Field(default=None, description="File with the admin token.")
    metrics_token: Token | None = Field(
        default=None, description="Bearer token that /metrics asks for; open without it."
    )
    metrics_token_file: File | None = Field(default=None, description="File with the metrics token.")
    docs_enabled: bool = Field(default=True, description="Whether /docs and /openapi.json are served.")


class NativeSignerSettings(Section):
    """The signer in process: its key and what it refuses to exceed."""

    keystore_file: File | None = Field(
        default=None, description="Encrypted Ethereum keystore (version 3). Without it, one in data_dir."
    )
    keystore_password: Password | None = Field(default=None, description="Password of the keystore.")
    keystore_password_file: File | None = Field(default=None, description="File with the password of the keystore.")
    max_ticket_ev_wei: Wei = Field(default=3 * 10**12, description="Largest expected value of one ticket.")
    max_total_ev_wei: Wei = Field(default=2 * 10**13, description="Largest expected value of the tickets of one call.")
    deposit_multiplier_count: Annotated[Whole, Field(ge=1)] = Field(
        default=50,
        description="How many largest tickets the deposit must cover; 50 or more keeps one winner from emptying it.",
    )
    max_price_wei_per_unit: PriceCeiling | None = Field(
        default=None, description="Highest price accepted, in wei per unit whatever the unit; no ceiling without it."
    )
    webhook_url: WebhookUrl | None = Field(
        default=None,
        description="Asked before each payment is released, as go-livepeer's -remoteSignerWebhookUrl is. For "
        "`clearinghouse signer` alone: `serve` charges by itself and refuses it with signer.kind = native.",
    )
    webhook_headers: WebhookHeaders | None = Field(
        default=None, description="Headers sent to the webhook; in the environment one `Name: value` a line."
    )
    webhook_headers_file: File | None = Field(default=None, description="File with one `Name: value` a line.")


class GoLivepeerSettings(Section):
    """A pool of go-livepeer remote signers that share one sender address."""

    urls: Annotated[tuple[SignerUrl, ...], COMMA_LIST] = Field(
        default=(),
        description="Base URLs, separated by commas in the environment; two or more survive the loss of one.",
    )
    expected_address: Address | None = Field(
        default=None, description="Sender address every signer must have: a signer with another key is not used."
    )
    timeout_s: Seconds = Field(
        default=3.0, description="Budget for one call over all attempts; a hung signer is abandoned."
    )
    headers: SignerHeaders | None = Field(
        default=None, description="Headers sent to the signers; in the environment one `Name: value` a line."
    )
    headers_file: File | None = Field(default=None, description="File with one `Name: value` a line.")
    tls_ca_file: File | None = Field(default=None, description="PEM certificates to trust instead of the system's.")
    tls_client_cert_file: File | None = Field(
        default=None, description="PEM certificate to show to the signers (mTLS)."
    )
    tls_client_key_file: File | None = Field(default=None, description="PEM key of that certificate.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.tls_client_cert_file is None) != (self.tls_client_key_file is None):
            raise ValueError("tls_client_cert_file and tls_client_key_file need each other")
        if len(set(self.urls)) != len(self.urls):
            raise ValueError("urls names one signer twice")
        return self


class SignerSettings(Section):
    """Who signs the tickets."""

    kind: Literal["native", "go_livepeer"] = Field(
        default="native", description="In process, or a pool of go-livepeer signers."
    )
    native: NativeSignerSettings = NativeSignerSettings()
    go_livepeer: GoLivepeerSettings = GoLivepeerSettings()


class PolicySettings(Section):
    """What is paid with at most, whatever an orchestrator asks and whichever signer signs.

    Of prices a gateway's plan and the gateway itself can have lower ceilings: the lowest decides.

    A call that exceeds it is refused before it reaches a signer: prices with 481, everything else with 403.
    """

    recipients: Annotated[tuple[Address, ...], COMMA_LIST] = Field(
        default=(),
        description="Addresses that tickets may be paid to, separated by commas in the environment; any without it. "
        "Where the chain is read, only active orchestrators among them.",
    )
    ticket_ev_max_wei: Wei = Field(default=3 * 10**12, description="Largest expected value of one ticket.")
    call_ev_max_wei: Wei = Field(default=2 * 10**13, description="Largest expected value of the tickets of one call.")
    face_value_divisor_count: Annotated[Whole, Field(ge=1)] = Field(
        default=50,
        description="A face value is at most the sender's deposit divided by this, where the deposit is known: "
        "with [chain] or the native signer, not with a pool of go-livepeer signers alone.",
    )
    face_value_max_wei: Wei | None = Field(
        default=None, description="Largest face value; a pool of go-livepeer signers needs one without [chain]."
    )
    price_live_max_wei_per_unit: PriceCeiling | None = Field(
        default=None, description="Highest price of jobs of type live, in wei per second."
    )
    price_lv2v_max_wei_per_unit: PriceCeiling | None = Field(
        default=None, description="Highest price of jobs of type lv2v, in wei per pixel."
    )
    price_fixed_max_wei_per_unit: PriceCeiling | None = Field(
        default=None, description="Highest price of jobs of type fixed, in wei per call."
    )
    price_untyped_max_wei_per_unit: PriceCeiling | None = Field(
        default=None, description="Highest price of jobs without a type, in wei per pixel."
    )
    ev_open_max_wei: Wei | None = Field(
        default=None,
        description="Largest expected value of the open tickets of all gateways together (those of today and the two "
        "days before). Added up every second: what other processes release in that time may pass it.",
    )
    fee_watch_ratio_min_bps: Annotated[Whole, Field(ge=0, le=10_000)] = Field(
        default=100,
        description="A gateway whose fees of a day are below so many basis points of the expected value of its "
        "tickets is logged, once an hour at most; 0 watches nobody.",
    )
    fee_watch_ev_min_wei: Wei = Field(
        default=10**13, description="Expected value of a day's tickets from which on a gateway is watched."
    )
    crosscheck: Literal["off", "warn", "refuse"] = Field(
        default="off",
        description="Whether an orchestrator is asked, before the first ticket of a session, if it makes the offer: if "
        "not, or if it gives no answer, that is counted and logged (warn), or the call gets 403 or 503 (refuse).",
    )
    crosscheck_timeout_s: Seconds = Field(
        default=1, le=10, description="How long such a call may wait for its orchestrator."
    )
    crosscheck_remember_s: Annotated[Whole, Field(ge=10, le=86_400)] = Field(
        default=600, description="How long what an orchestrator told is remembered; no answer is remembered for 10."
    )
    crosscheck_private_hosts_allowed: bool = Field(
        default=False,
        description="Whether orchestrators in private networks and on this machine are asked: callers then choose "
        "which of your own hosts are connected to.",
    )


class PriceSettings(Section):
    """What one ETH costs in the currencies that accounts are kept in."""

    source: Literal["declared", "chainlink"] = Field(
        default="declared",
        description="Where prices come from: `declared` below, or Chainlink's feeds on the chain, which needs [chain]. "
        "Either way `clearinghouse price set` stands above it, for a time and without a restart.",
    )
    declared: PricesByCurrency = Field(
        default={"USD": Decimal(3000), "EUR": Decimal(2800)},
        description="Price of one ETH by currency, as decimals in quotes. Giving one replaces the default list. Not "
        "used with another source.",
    )
    max_age_s: Annotated[Whole, Field(ge=1, le=86_400)] = Field(
        default=300,
        description="A price that its source has not confirmed for so long is not used: calls get 503 `price_stale`. "
        "Declared prices do not age.",
    )
    poll_s: Annotated[Seconds, Field(ge=0.05, le=3600)] = Field(
        default=15, description="How often feeds and second opinions are read."
    )
    eth_usd_feed: Address | None = Field(
        default=None, description="Feed of ETH in USD; without it the one known of the network."
    )
    feed_max_age_s: Annotated[Whole, Field(ge=1, le=604_800)] = Field(
        default=3600,
        description="How old the feed's own answer may be, however recently it was read: more than its heartbeat.",
    )
    sequencer_feed: Address | None = Field(
        default=None, description="Uptime feed of the L2's sequencer; without it the one known of the network."
    )
    currency_feeds: FeedsByCurrency = Field(
        default={},
        description="Feeds of further currencies in USD, by currency, such as that of EUR / USD: ETH in EUR is then "
        "ETH / USD ÷ EUR / USD.",
    )
    currency_feed_max_age_s: Annotated[Whole, Field(ge=1, le=604_800)] = Field(
        default=90_000, description="How old the answers of these may be: more than their heartbeat, often a day."
    )
    second_opinions: OpinionUrls | None = Field(
        default=None,
        description="Who else is asked for the price of ETH, by currency: an https URL that answers in JSON, and as "
        "its fragment a JSON pointer to the price, `https://host/path#/data/amount`. Secret, because services put keys "
        "into URLs; in the environment one `USD: URL` a line.",
    )
    second_opinions_file: File | None = Field(default=None, description="File with one `USD: URL` a line.")
    second_opinion_timeout_s: Annotated[Seconds, Field(le=30)] = Field(
        default=3, description="How long a second opinion may take."
    )
    disagreement_max_bps: Annotated[Whole, Field(ge=1, le=10_000)] = Field(
        default=200, description="How far, in basis points of the feed's price, a second opinion may be from it."
    )
    on_disagreement: Literal["feed", "refuse"] = Field(
        default="refuse",
        description="What follows when it is further away: the feed's price is used all the same, and that is logged "
        "and counted (feed), or calls also get 503 `price_stale` until the two agree (refuse).",
    )
    observations_kept_days: Annotated[Whole, Field(ge=1, le=36_500)] = Field(
        default=400, description="How long the database keeps what sources said. Charges keep their own price."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source != "declared" and self.max_age_s < 3 * self.poll_s:
            raise ValueError("max_age_s must be at least three times poll_s: one lost poll is nothing unusual")
        if unread := set(self.second_opinions or ()) - {BASE, *self.currency_feeds}:
            raise ValueError(f"second_opinions has {', '.join(sorted(unread))}, of which there is no feed")
        return self

    @property
    def currencies(self) -> tuple[str, ...]:
        """Those that the source has prices in, without ETH."""
        return tuple(self.declared) if self.source == "declared" else (BASE, *self.currency_feeds)


class LimitSettings(Section):
    """Bounds on work in progress and on what is kept."""

    request_deadline_s: Seconds = Field(
        default=4.5, le=30, description="A call that takes longer gets 503; clients wait 5 s."
    )
    commit_batch_rows: Annotated[Whole, Field(ge=1, le=4096)] = Field(
        default=512, description="Most calls recorded in one transaction."
    )
    processes_count: Annotated[Whole, Field(ge=1, le=1000)] = Field(
        default=1,
        description="How many serving processes share the callers: each lets its part of every request rate through. "
        "Limits on money are exact whatever this says.",
    )
    keyed_answer_hours: Annotated[Whole, Field(ge=1, le=8760)] = Field(
        default=24, description="How long an answer given for an idempotency key can be repeated."
    )
    shutdown_timeout_s: Seconds = Field(
        default=10, ge=1, description="How long a stopping service may take to finish the calls it has accepted."
    )


class WebhookSettings(Section):
    """Where signers that are operated elsewhere ask before they release a payment."""

    enabled: bool = Field(
        default=False,
        description="Whether `POST /webhooks/remote-signer` is there. `clearinghouse webhook-signer create` registers "
        "who may ask.",
    )
    deadline_s: Seconds = Field(
        default=3, le=30, description="A question that takes longer gets a 503; signers wait 5 s."
    )
    repeats_per_hour_count: Annotated[Whole, Field(ge=0, le=1000)] = Field(
        default=12,
        description="Payments of one gateway that are approved again for nothing in an hour, because their answers "
        "were lost. What is behind a repeated one is not shown: each can cost as much as policy.call_ev_max_wei.",
    )


class SignerEventSettings(Section):
    """What the signers report to Kafka, and how it is compared with what was issued. Nobody is charged by it."""

    kafka_bootstrap_servers: Annotated[tuple[HostAndPort, ...], COMMA_LIST] = Field(
        default=(),
        description="Brokers as host:port, separated by commas in the environment. Without them nothing is read from "
        "Kafka; needs the extra `kafka`.",
    )
    kafka_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = Field(
        default=None, description="Topic of the signers' events, go-livepeer's -kafkaGatewayTopic."
    )
    kafka_group: str = Field(
        default="clearinghouse", min_length=1, description="Consumer group; all instances share one."
    )
    kafka_username: str | None = Field(default=None, description="User for SASL/PLAIN, which needs TLS.")
    kafka_password: Password | None = Field(default=None, description="Password of that user.")
    kafka_password_file: File | None = Field(default=None, description="File with the password.")
    kafka_tls: bool = Field(default=False, description="Whether the brokers are spoken to over TLS.")
    kafka_tls_ca_file: File | None = Field(
        default=None, description="PEM certificates to trust instead of the system's."
    )
    grace_s: Annotated[Whole, Field(ge=0, le=86_400)] = Field(
        default=600,
        description="An event is compared with the issuances when it is this old: others may still be on their way.",
    )
    keep_days: Annotated[Whole, Field(ge=1, le=3650)] = Field(
        default=30, description="How long events are kept. Findings are kept for good."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.kafka_bootstrap_servers) != (self.kafka_topic is not None):
            raise ValueError("kafka_bootstrap_servers and kafka_topic need each other")
        if self.kafka_username is not None and self.kafka_password is None:
            raise ValueError("kafka_username needs kafka_password_file")
        if self.kafka_username is not None and not self.kafka_tls:
            raise ValueError("kafka_username needs kafka_tls = true: the password would cross the network in the clear")
        if self.kafka_tls_ca_file is not None and not self.kafka_tls:
            raise ValueError("kafka_tls_ca_file needs kafka_tls = true")
        return self


class WorkSettings(Section):
    """`clearinghouse work`, which does what is due by time: checks of the books, alerts, top-ups."""

    metrics_port: Port = Field(
        default=8081,
        description="Port of its /healthz, /readyz and /metrics, at listen.host, without TLS; 0 takes a free one.",
    )
    runs_kept_days: Annotated[Whole, Field(ge=1, le=3650)] = Field(
        default=30, description="How long the record of a run is kept; the last ones of each job always are."
    )


class LogSettings(Section):
    """What is written to standard error."""

    format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or text for people."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written."
    )


class Settings(Section):
    """All settings, as read once at start-up."""

    data_dir: File = Field(
        default=Path(".clearinghouse"), description="Directory of the embedded database and generated keys."
    )
    database_url: DatabaseUrl | None = Field(
        default=None,
        description="PostgreSQL to use, with the rights of clearinghouse_serve, for `clearinghouse work` with those of "
        "clearinghouse_work. Without it, an embedded one.",
    )
    database_url_file: File | None = Field(default=None, description="File with the database URL.")
    admin_database_url: DatabaseUrl | None = Field(
        default=None,
        description="The same database with the rights of clearinghouse_admin (management API and commands) or of the "
        "owner (`clearinghouse migrate`). Without it a service with a database_url has no management API, and commands "
        "use database_url.",
    )
    admin_database_url_file: File | None = Field(default=None, description="File with the admin database URL.")
    api_key_pepper: Pepper | None = Field(
        default=None,
        description="Secret under which API keys are stored. All instances need the same one; changing it makes "
        "every key invalid. Needed with database_url; the embedded mode makes one in data_dir.",
    )
    api_key_pepper_file: File | None = Field(default=None, description="File with the pepper.")
    listen: ListenSettings = ListenSettings()
    api: ApiSettings = ApiSettings()
    signer: SignerSettings = SignerSettings()
    chain: ChainSettings = ChainSettings()
    escrow: EscrowSettings = EscrowSettings()
    policy: PolicySettings = PolicySettings()
    coverage: CoverageSettings = CoverageSettings()
    price: PriceSettings = PriceSettings()
    limits: LimitSettings = LimitSettings()
    webhook: WebhookSettings = WebhookSettings()
    signer_events: SignerEventSettings = SignerEventSettings()
    alerts: AlertSettings = AlertSettings()
    notices: NoticeSettings = NoticeSettings()
    dunning: DunningSettings = DunningSettings()
    topups: TopupSettings = TopupSettings()
    statements: StatementSettings = StatementSettings()
    stripe: StripeSettings = StripeSettings()
    invoices: InvoiceSettings = InvoiceSettings()
    payments: PaymentSettings = PaymentSettings()
    work: WorkSettings = WorkSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.signer.go_livepeer.timeout_s >= self.limits.request_deadline_s:
            raise ValueError(
                f"signer.go_livepeer.timeout_s ({self.signer.go_livepeer.timeout_s}) must be below "
                f"limits.request_deadline_s ({self.limits.request_deadline_s}): recording the answer takes time too"
            )
        if self.policy.crosscheck != "off" and self.policy.crosscheck_timeout_s >= self.limits.request_deadline_s:
            raise ValueError(
                f"policy.crosscheck_timeout_s ({self.policy.crosscheck_timeout_s}) must be below "
                f"limits.request_deadline_s ({self.limits.request_deadline_s}): signing and recording take time too"
            )
        return self


#: Both ways at once would look safe, and the webhook would never be asked.
WEBHOOK_NOT_IN_PROCESS: Final = (
    "signer.native.webhook_url is for `clearinghouse signer`: the native signer in process asks no webhook. Remove it, "
    "or set signer.kind = go_livepeer and name the signers that ask in signer.go_livepeer.urls."
)


def missing_for_serving(settings: Settings) -> list[str]:
    """What `serve` still needs, a sentence each. Other commands, such as `migrate`, do with less."""
    missing = []
    if settings.database_url is not None and settings.api_key_pepper is None:
        missing.append(
            "api_key_pepper is needed with database_url: all instances must read API keys under the same one."
        )
    pool = settings.signer.go_livepeer
    if settings.signer.kind == "go_livepeer":
        if not pool.urls:
            missing.append("signer.go_livepeer.urls is needed with signer.kind = go_livepeer.")
        if pool.expected_address is None:
            missing.append(
                "signer.go_livepeer.expected_address is needed with signer.kind = go_livepeer: without it, a signer "
                "with another key would spend another deposit."
            )
    if (
        settings.coverage.enforced == "yes"
        and settings.signer.kind == "go_livepeer"
        and not settings.chain.is_configured
    ):
        missing.append("chain.rpc_urls is needed with coverage.enforced = yes: nothing tells of the signers' deposit.")
    missing += missing_for_prices(settings)
    native = settings.signer.native
    if settings.signer.kind == "native" and native.keystore_file is not None and native.keystore_password is None:
        missing.append("signer.native.keystore_password_file is needed with signer.native.keystore_file.")
    if settings.signer.kind == "native" and native.webhook_url is not None:
        missing.append(WEBHOOK_NOT_IN_PROCESS)
    return missing


def missing_for_prices(settings: Settings) -> list[str]:
    """What reading prices still needs, a sentence each."""
    missing = []
    if settings.price.source == "chainlink":
        if not settings.chain.is_configured:
            missing.append("chain.rpc_urls is needed with price.source = chainlink: the feeds are on the chain.")
        if settings.price.eth_usd_feed is None and NETWORKS[settings.chain.network].eth_usd_feed is None:
            missing.append(f"price.eth_usd_feed is needed: no feed is known of the network {settings.chain.network}.")
    return missing
