-- How much the deposit covered, over time. Written by the one process that evaluates a sender (clearinghouse/coverage),
-- once a minute and whenever its funds or its level change.
CREATE TABLE coverage_snapshot (
    sender                            address NOT NULL,
    observed_at                       timestamptz NOT NULL,
    block_number                      bigint,                    -- of the reading; NULL over a declared escrow
    block_time                        timestamptz NOT NULL,
    l1_block_number                   bigint NOT NULL,
    round                             bigint NOT NULL,
    validity_rounds                   bigint NOT NULL,           -- how many rounds a ticket can be redeemed
    simulated                         boolean NOT NULL,          -- the escrow is one by declaration
    -- What is there.
    deposit_wei                       wei NOT NULL,
    reserve_wei                       wei NOT NULL,
    claimed_in_round_wei              wei NOT NULL,
    pool_size                         bigint NOT NULL,
    lock                              text NOT NULL CHECK (lock IN ('locked', 'unlocking', 'unlocked')),
    -- What open tickets may take from it: every one may still win.
    num_tickets                       bigint NOT NULL,
    expected_wei                      numeric NOT NULL,
    deviation_wei                     numeric NOT NULL,
    face_value_max_wei                numeric NOT NULL,          -- of the open tickets
    worst_case_wei                    numeric NOT NULL,          -- all of them win
    coverage_bps                      numeric,                   -- NULL: nothing is open
    level                             text NOT NULL CHECK (level IN ('ok', 'watch', 'low', 'critical')),
    remaining_ev_wei                  numeric NOT NULL,          -- may still be released above the floor
    issuable_face_value_wei           numeric NOT NULL,
    reserve_share_wei                 numeric NOT NULL,          -- of one orchestrator
    is_enforced                       boolean NOT NULL,
    quotes                            jsonb NOT NULL DEFAULT '[]',  -- orchestrators that have claimed or ask too much
    -- The outlook, by a process of its own: NULL together where it did not come to an end.
    posterior_expected_wei            numeric,                   -- silence says that a ticket has probably lost
    posterior_deviation_wei           numeric,
    posterior_coverage_bps            numeric,
    delays_count                      integer,                   -- redemptions that the posterior view is drawn from
    exhausted_probability             float8,                    -- by the open tickets alone
    posterior_exhausted_probability   float8,
    horizon_s                         bigint,
    confidence_bps                    integer,
    exhausted_in_horizon_probability  float8,                    -- at the present burn
    burn_wei_per_day                  numeric,
    empty_median_s                    bigint,                    -- NULL: not foreseen
    empty_pessimistic_s               bigint,
    windows                           jsonb,                     -- burn and times by the window they are drawn from
    top_up_reserve_wei                numeric,
    top_up_deposit_wei                numeric,
    PRIMARY KEY (sender, observed_at)
);

-- Whoever evaluates adds; nobody changes.
CREATE FUNCTION forget_coverage_snapshots(older_than interval) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH forgotten AS (
        DELETE FROM coverage_snapshot WHERE (sender, observed_at) IN (
            SELECT sender, observed_at FROM coverage_snapshot WHERE observed_at < now() - older_than
             ORDER BY observed_at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    SELECT count(*) FROM forgotten;
$$;
CREATE INDEX coverage_snapshot_observed ON coverage_snapshot (observed_at);
